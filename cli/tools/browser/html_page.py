"""HTML as a page: its text in Markdown, numbered links, tables and code; nothing that a person would not see.

Libraries that turn HTML into Markdown keep hidden text, which is how pages give orders to models, and none of them
writes numbered links. Parsing is by lxml, the walk over the tree is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

from lxml import etree

from gptoss.cli.tools.browser.hidden import HiddenRules, is_hidden
from gptoss.cli.tools.browser.markdown_writer import MarkdownWriter
from gptoss.cli.tools.browser.neutral import neutral, neutral_line
from gptoss.cli.tools.browser.page import Page

_DROPPED = frozenset(("head", "script", "style", "template", "noframes", "title"))
_SCRIPT_MARKS = {"sup": "^{%s}", "sub": "_{%s}"}
_WORD = re.compile(r"[\w\-]+\Z")
_SPACE = re.compile(r"\s+")
Local = Callable[[str], str | None]

_LINE = re.compile("\r\n?|\u2028|\u2029|\x85")
_MOST_LINK_TEXT = 1000


def html_page(html: str, url: str, title: str | None = None, *, local: Local | None = None) -> Page:
    """Return a page of HTML.

    Args:
        html: the source.
        url: its address; links are resolved against it.
        title: in place of the page's own.
        local: for a document of a folder: returns the path that a link leads to, None of a link that stays text.
            Without it links lead to the web.
    """
    html = _LINE.sub("\n", html).replace("\0", "")
    root = _parsed(html)
    if root is None:
        return _page([], [], url, title or url, ())
    found = root.find(".//title")
    own_title = "" if found is None else neutral_line("".join(found.itertext()))
    walk = _Walk(root, url, local)
    lines, own = walk.lines()
    return _page(lines, own, url, title or own_title or urlsplit(url).netloc or url, tuple(walk.addresses))


def _page(lines: list[str], own: list[int | None], url: str, title: str, addresses: tuple[str, ...]) -> Page:
    return Page(
        url, neutral_line(title), "\n".join(["", f"URL: {url}", *lines]), addresses, own_lines=(None, None, *own)
    )


def _parsed(html: str) -> Any:
    parser = etree.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True, huge_tree=True, recover=True
    )
    try:
        return etree.fromstring(html.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:
        return None  # nothing in it


class _Walk:
    """One walk over a tree."""

    def __init__(self, root: Any, url: str, local: Local | None) -> None:
        self._root = root
        self._local = local
        base = root.find(".//base[@href]")
        self._base = url if base is None else _joined(url, base.get("href"))
        self._domain = domain_of(url)
        self._site, self._base_domain = _site_of(self._base), domain_of(self._base)
        self._rules = HiddenRules.of("\n".join(style.text or "" for style in root.iter("style")))
        self._writer = MarkdownWriter()
        self._ids: dict[str, int] = {}
        self._images = 0
        self._abbreviations: dict[str, str] = {}

    @property
    def addresses(self) -> list[str]:
        return list(self._ids)

    def lines(self) -> tuple[list[str], list[int | None]]:
        writer = self._writer
        walk = etree.iterwalk(self._root, events=("start", "end"))
        skipped: Any = None
        for event, element in walk:
            tag = element.tag
            if not isinstance(tag, str):
                continue
            if event == "start":
                if element.sourceline is not None:
                    writer.source_line = element.sourceline
                if tag in _DROPPED or is_hidden(element, self._rules) or self._replaced(element, tag):
                    walk.skip_subtree()
                    skipped = element
                    continue
                if tag in ("ol", "ul"):
                    writer.begin_list(tag, _number(element.get("start")))
                else:
                    writer.start(tag)
                self._text(element.text)
            else:
                if element is skipped:
                    skipped = None
                else:
                    writer.end(tag)
                self._text(element.tail)
        lines, own = writer.lines()
        meanings = [f"  *[{short}]: {meaning}" for short, meaning in self._abbreviations.items()]
        return lines + meanings, own + [None] * len(meanings)

    def _text(self, text: str | None) -> None:
        if text:
            writer = self._writer
            writer.text(neutral(text))
            if writer.source_line is not None and "\n" in text:
                writer.source_line += text.count("\n")

    def _replaced(self, element: Any, tag: str) -> bool:
        """Write an element that is written as a whole; return whether it is one."""
        if tag == "a":
            return self._link(element)
        if tag == "img":
            name = neutral_line(element.get("alt", element.get("title")) or "")
            self._writer.text(f"[Image {self._images}: {name}]" if name else f"[Image {self._images}]")
            self._images += 1
            return True
        if tag in _SCRIPT_MARKS and all(each.tag == "a" and _is_place(each) for each in element.iterdescendants()):
            text = self._seen_text(element).strip() if len(element) else element.text or ""
            if _WORD.match(text):
                self._writer.text(_SCRIPT_MARKS[tag] % neutral(text))
                return True
            return False
        if tag == "abbr" and element.get("title"):
            self._abbreviations[neutral_line("".join(element.itertext()))] = neutral_line(element.get("title"))
            return False
        if tag == "math":
            self._writer.text(neutral_line(_formula(element)))
            return True
        return False

    def _link(self, element: Any) -> bool:
        href = element.get("href")
        if href is None or href.lstrip().lower().startswith(("mailto:", "javascript:")):
            return False
        text = _SPACE.sub(" ", neutral(self._seen_text(element))).replace("†", "‡")
        if not text:
            return False
        if href.startswith("#"):
            self._writer.text(text)
            return True
        address = self._address(href)
        if address is None:
            self._writer.text(text)
            return True
        number = self._ids.setdefault(address, len(self._ids))
        if len(text) > _MOST_LINK_TEXT:
            text = text[:_MOST_LINK_TEXT] + "..."
        domain = "" if self._local is not None else self._domain_of(address)
        self._writer.text(f"【{number}†{text}】" if domain in ("", self._domain) else f"【{number}†{text}†{domain}】")
        return True

    def _address(self, href: str) -> str | None:
        if self._local is not None:
            return self._local(href)
        if (
            href.startswith("/")
            and self._site
            and not href.startswith("//")
            and "/." not in href
            and href.isprintable()
        ):
            return self._site + href.rstrip()
        address = _joined(self._base, href)
        return address if urlsplit_or_none(address) is not None else None

    def _domain_of(self, address: str) -> str:
        """Return the domain of an address; that of the page's own site is known."""
        if (
            self._site
            and address.startswith(self._site)
            and address[len(self._site) : len(self._site) + 1] in ("/", "")
        ):
            return self._base_domain
        return domain_of(address)

    def _seen_text(self, element: Any) -> str:
        """Return the text of a link, without what is hidden."""
        if len(element) == 0:
            return element.text or ""
        parts: list[str] = []
        walk = etree.iterwalk(element, events=("start", "end"))
        for event, each in walk:
            if event == "start":
                if each.tag in _DROPPED or (each is not element and is_hidden(each, self._rules)):
                    walk.skip_subtree()
                elif each.text:
                    parts.append(each.text)
            elif each is not element and each.tail:
                parts.append(each.tail)
        return " ".join(parts)


def _site_of(url: str) -> str:
    """Return the beginning of an address up to its path; empty where it has no such form."""
    domain = urlsplit_or_none(url)
    site = "" if domain is None else f"{url.partition(':')[0]}://{domain}"
    return site if url.startswith(site) else ""


def domain_of(url: str) -> str:
    """Return the domain of an address, with its port."""
    split = urlsplit_or_none(url)
    return "" if split is None else neutral_line(split)


def urlsplit_or_none(url: str) -> str | None:
    """Return the domain of an address of the web; None of another one."""
    try:
        split = urlsplit(url)
    except ValueError:
        return None
    return split.netloc if split.scheme in ("http", "https") and split.netloc else None


def _joined(base: str, href: str) -> str:
    try:
        return urljoin(base, href.strip())
    except ValueError:
        return ""


def _is_place(element: Any) -> bool:
    """Return whether a link leads to a place in its own page."""
    return bool((element.get("href") or "#").startswith("#"))


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else 1


def _formula(element: Any) -> str:
    """Return a formula in TeX, where the page has it, else its text."""
    for annotation in element.iter("annotation"):
        if annotation.get("encoding") == "application/x-tex":
            return f"${annotation.text or ''}$"
    return element.get("alttext") or " ".join(element.itertext())
