"""Inline Markdown as styled text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markdown_it.token import Token
from rich.segment import Segment
from rich.style import Style

from gptoss.cli.base.text import sanitize
from gptoss.cli.displays.citations import LINK_TITLE
from gptoss.cli.terminal import theme
from gptoss.cli.terminal.markdown_parser import has_open_math
from gptoss.cli.terminal.styled_text import Line, plain

_STYLES = {"strong": theme.STRONG, "em": theme.EMPHASIS, "s": theme.DELETED, "link": theme.LINK}
# What could still become markup when more comes. A bracket that is closed and not followed by `(` cannot.
_UNDECIDED = re.compile(r"[*_~`<\\&!|]|\[(?![^\[\]]*\][^(])")
# An address in the midst of a text, without the signs that a sentence has behind it.
_ADDRESS = re.compile(r"(https?://[!-~]*[A-Za-z0-9/#=&_~+%$@-])")
_DELIMITERS = ("*", "_", "~", "`", "$", "\\")


def inline_text(tokens: Sequence[Token], *, marks: bool, links: bool = False) -> Line:
    """Return the text of inline tokens.

    Args:
        tokens: of the parser.
        marks: whether to keep the signs of emphasis and code.
        links: whether addresses are links; numbers of citations always are.
    """
    line: Line = []
    styles: list[Style] = []
    begins: list[tuple[str | None, int]] = []
    followed: list[str] = []

    def add(text: str, style: Style | None = None) -> None:
        style = Style.combine([*styles, *([style] if style else [])]) if styles or style else None
        # The parser decodes entities and percent signs, so what was harmless in the source need not be so here.
        line.append(Segment(sanitize(text), style))

    for token in tokens:
        name = token.type.removesuffix("_open").removesuffix("_close")
        if token.type == "link_open":
            target = str(token.attrs.get("href", ""))
            is_citation = token.attrs.get("title") == LINK_TITLE
            followed.append(target if links or is_citation else "")
            begins.append((None if is_citation else target, len(plain(line))))
            styles.append(theme.LINK + _link_to(followed[-1]))
        elif token.type == "link_close":
            styles.pop()
            target = followed.pop()
            shown, begin = begins.pop()
            if shown is not None and plain(line)[begin:] not in (shown, shown.removeprefix("mailto:")):
                add(" (", theme.DIM)
                add(shown, theme.DIM + _link_to(target))
                add(")", theme.DIM)
        elif name in _STYLES:
            if marks and token.nesting < 0:
                add(token.markup)
            if token.nesting > 0:
                styles.append(_STYLES[name])
            elif token.nesting < 0:
                styles.pop()
            if marks and token.nesting > 0:
                add(token.markup)
        elif token.type == "code_inline":
            add(f"{token.markup}{token.content}{token.markup}" if marks else token.content, theme.CODE)
        elif token.type == "math_inline":
            add(token.content, theme.MATH)
        elif token.type == "image":
            add(f"[{token.content or 'image'}] ({token.attrs.get('src', '')})", theme.DIM)
        elif token.type in ("softbreak", "hardbreak"):
            add("\n")
        elif links and not begins and "://" in token.content:
            for number, piece in enumerate(_ADDRESS.split(token.content)):
                add(piece, _link_to(piece) if number % 2 else None)
        else:
            add(token.content)
    return line


def _link_to(target: str) -> Style:
    return Style(link=sanitize(target)) if target else Style()


def settled_length(source: str, text: Line) -> int:
    """Return the number of characters of a paragraph's text that no further source can change.

    Args:
        source: of the paragraph, as far as it is known.
        text: what it is shown as.
    """
    if has_open_math(source) or source.endswith(_DELIMITERS):
        return 0  # a run of delimiters that grows may close something else
    literal = (theme.CODE, theme.MATH)
    shown = "".join("x" * len(part.text) if part.style in literal else part.text for part in text)
    match = _UNDECIDED.search(shown)
    return len(shown) if match is None else match.start()
