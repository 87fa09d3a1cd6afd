"""Source code with colours, line by line."""

from __future__ import annotations

from functools import lru_cache

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import _TokenType
from pygments.util import ClassNotFound
from rich.segment import Segment
from rich.style import Style

from gptoss.cli.terminal.styled_text import Line
from gptoss.cli.terminal.theme import SYNTAX

# Lexers are regular expressions, slow on some texts: they see no more than this before a line, nor a very long one.
_CONTEXT_LINES = 100
_LONGEST_LINE = 1000
_TAB = 4


def highlight(lines: list[str], language: str, begin: int = 0) -> list[Line]:
    """Return the lines from number `begin` on, coloured where the language is known."""
    shown = [line.expandtabs(_TAB) for line in lines[begin:]]
    lexer = _lexer(language)
    first = max(0, begin - _CONTEXT_LINES)
    context = [line.expandtabs(_TAB) for line in lines[first:begin]]
    if lexer is None or any(len(line) > _LONGEST_LINE for line in context + shown):
        return [[Segment(line)] for line in shown]
    coloured: list[Line] = [[]]
    for kind, text in lexer.get_tokens("\n".join(context + shown)):
        style = _style(kind)
        for index, piece in enumerate(text.split("\n")):
            if index:
                coloured.append([])
            if piece:
                coloured[-1].append(Segment(piece, style))
    coloured = coloured[len(context) : len(context) + len(shown)]
    return coloured + [[] for _ in range(len(shown) - len(coloured))]


@lru_cache(maxsize=32)
def _lexer(language: str) -> Lexer | None:
    name = language.split()[0] if language.split() else ""
    if not name or len(name) > 30:
        return None
    try:
        return get_lexer_by_name(name, stripnl=False, ensurenl=True)
    except ClassNotFound:
        return None


@lru_cache(maxsize=256)
def _style(kind: _TokenType) -> Style | None:
    names = str(kind).removeprefix("Token.").split(".")
    return next((style for n in range(len(names), 0, -1) if (style := SYNTAX.get(".".join(names[:n])))), None)
