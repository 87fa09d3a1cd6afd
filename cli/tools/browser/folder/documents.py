"""The files of a folder as pages."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from urllib.parse import unquote

from gptoss.cli.tools.browser.charsets import decoded
from gptoss.cli.tools.browser.html_page import html_page
from gptoss.cli.tools.browser.neutral import neutral, neutral_line
from gptoss.cli.tools.browser.page import Page

_HTML = (".html", ".htm", ".xhtml")
_MARKDOWN = (".md", ".markdown", ".mdown", ".mkd")
_LINK = re.compile(r"(?<!!)\[([^\[\]\n]{1,300})\]\(\s*<?([^()\s<>]{1,1000})>?(?:\s+\"[^\"\n]*\")?\s*\)")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|/|#")
_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*\s*$")
_TITLE_LINES = 50


def document_page(path: str, data: bytes) -> Page:
    """Return a document as a page, whose lines are those of the file; of HTML its text.

    Links to other documents of the folder have numbers; all others are text.

    Args:
        path: in the folder, with slashes.
        data: the content.
    """
    suffix = posixpath.splitext(path)[1].lower()
    if suffix in _HTML:
        page = html_page(decoded(data, is_html=True), path, local=_resolver(path))
        return page if page.title != path else _titled(page, posixpath.basename(path))
    lines = neutral(decoded(data)).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    links: dict[str, int] = {}
    title = posixpath.basename(path)
    if suffix in _MARKDOWN:
        title = _heading(lines) or title
        lines = _with_links(lines, _resolver(path), links)
    return _titled(
        Page(
            path,
            title,
            "\n".join(("", f"URL: {path}", *lines)),
            tuple(links),
            own_lines=(None, None, *range(1, len(lines) + 1)),
        ),
        title,
    )


def source_page(path: str, data: bytes) -> Page:
    """Return a document as it is written, without links."""
    lines = neutral(decoded(data)).split("\n")
    own = (None, None, *range(1, len(lines) + 1))
    return Page(path, neutral_line(posixpath.basename(path)), "\n".join(("", f"URL: {path}", *lines)), own_lines=own)


def _titled(page: Page, title: str) -> Page:
    return Page(page.url, neutral_line(title), page.text, page.links, own_lines=page.own_lines)


def _heading(lines: list[str]) -> str | None:
    for line in lines[:_TITLE_LINES]:
        heading = _HEADING.match(line)
        if heading and heading[1]:
            return heading[1]
    return None


def _with_links(lines: list[str], resolve: Callable[[str], str | None], links: dict[str, int]) -> list[str]:
    def numbered(match: re.Match[str]) -> str:
        target = resolve(match[2])
        if target is None:
            return match[0]
        text = match[1].replace("†", "‡")
        return f"【{links.setdefault(target, len(links))}†{text}】"

    found = []
    is_code = False
    for line in lines:
        if line.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
        found.append(line if is_code or "](" not in line else _LINK.sub(numbered, line))
    return found


def _resolver(path: str) -> Callable[[str], str | None]:
    """Return what turns the links of a document into paths of the folder; None of one that leads out of it."""
    folder = posixpath.dirname(path)

    def resolve(href: str) -> str | None:
        href = href.strip()
        if not href or _SCHEME.match(href):
            return None
        target = unquote(re.split(r"[?#]", href, maxsplit=1)[0])
        if not target or any(ord(character) < 32 for character in target):
            return None
        target = posixpath.normpath(posixpath.join(folder, target))
        return None if target.startswith(("..", "/")) or target == "." else target

    return resolve
