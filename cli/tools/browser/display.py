"""The display of a page: its cursor, title and address, and numbered lines as far as a window of tokens reaches.

Form and window are those of the reference (`gpt-oss` 0.0.9, `simple_browser_tool.py`), which the models were trained
with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Self
from urllib.parse import unquote

from gptoss.cli.tools.browser.page import Page
from gptoss.harmony import Encoding, EncodingError

VIEW_TOKENS = 1024
"""Tokens of a window, the numbers of the lines among them."""

MOST_WINDOWS = 4
"""Windows that `num_lines` can ask for at once."""

_MOST_URL = 1024
_HEADING_TOKENS, _FEWEST_TOKENS = 64, 32
# No token of o200k has more characters; a text is encoded no further than a window can reach.
_CHARACTERS_A_TOKEN = 128
_AT_ONCE = 8
_MARGIN = 512  # characters at the end of a part whose tokens depend on what follows

TokenLengths = Callable[[str], list[int]]
"""Returns the characters of each token of a text."""


class LocationError(Exception):
    """A line that the page does not have; the text is for the model."""


def shown(page: Page, cursor: int, first: int, end: int) -> str:
    """Return lines of a page as the model reads them.

    Args:
        page: the page.
        cursor: its number.
        first, end: lines of the display, `end` not included.
    """
    url = truncated(unquote(page.url))
    heading = f"{page.title} ({url})" if url else page.title
    lines = page.lines
    view = f"**viewing lines [{first} - {end - 1}] of {len(lines) - 1}**"
    return f"[{cursor}] {heading}\n{view}\n\n{numbered(lines[first:end], first)}"


def numbered(lines: Sequence[str], first: int) -> str:
    """Return lines with their numbers."""
    return "\n".join(f"L{number}: {line}" for number, line in enumerate(lines, first))


@dataclass(frozen=True)
class Window:
    """How much one call shows.

    Attributes:
        tokens: of a window, the numbers of the lines among them.
        most: tokens that `num_lines` can ask for.
        lengths: counts tokens.
    """

    lengths: TokenLengths
    tokens: int = VIEW_TOKENS
    most: int = MOST_WINDOWS * VIEW_TOKENS

    @classmethod
    def of(cls, encoding: Encoding, context: int) -> Self:
        """Return the window for a model: with its heading, no result takes more than a quarter of the context."""
        room = max(_FEWEST_TOKENS, context // 4 - _HEADING_TOKENS)
        return cls(token_lengths(encoding), min(VIEW_TOKENS, room), min(MOST_WINDOWS * VIEW_TOKENS, room))


def end_of_window(page: Page, first: int, num_lines: int, window: Window) -> int:
    """Return the line after the last one to show.

    Args:
        page: the page.
        first: line of the display to begin with.
        num_lines: how many to show; 0 or less: as many as the window has room for.
        window: how much is shown.

    Raises:
        LocationError: the page has no such line.
    """
    total = len(page.lines)
    if first >= total:
        raise LocationError(f"Invalid location parameter: `{first}`. Cannot exceed page maximum of {total - 1}.")
    tokens = window.most if num_lines > 0 else window.tokens
    end = min(total, first + _lines_in_window(page.lines, first, tokens, window.lengths))
    return min(end, first + num_lines) if num_lines > 0 else end


def truncated(text: str, characters: int = _MOST_URL) -> str:
    """Return a text cut to some characters, three dots at its end."""
    return text if len(text) <= characters else text[: characters - 3] + "..."


def token_lengths(encoding: Encoding) -> TokenLengths:
    """Return what counts the characters of tokens.

    A token that is a part of a character counts as the signs that stand for broken ones, as in the reference: the two
    windows end at the same line.
    """
    known: dict[int, int] = {}

    def lengths(text: str) -> list[int]:
        found = []
        for token in encoding.encode(text):
            length = known.get(token)
            if length is None:
                length = known[token] = _length(encoding, token)
            found.append(length)
        return found

    return lengths


def _length(encoding: Encoding, token: int) -> int:
    try:
        return len(encoding.token_bytes(token).decode("utf-8", "replace"))
    except EncodingError:
        return 1


def _lines_in_window(lines: Sequence[str], first: int, tokens: int, lengths: TokenLengths) -> int:
    """Return how many lines have so many tokens, the last one whole; all if they have fewer."""
    most = (tokens + 1) * _CHARACTERS_A_TOKEN
    # No more lines are joined than `most` characters need.
    characters, last = 0, first
    while last < len(lines) and characters <= most:
        characters += len(lines[last]) + len("L0: ")
        last += 1
    text = numbered(lines[first:last], first)
    if len(text) <= tokens:
        return len(lines)
    text = text[:most]
    size = min(len(text), tokens * _AT_ONCE + _MARGIN)
    while True:
        counted = lengths(text[:size])
        is_whole = size == len(text)
        usable = size if is_whole else size - _MARGIN
        end = next(islice(accumulate(counted, initial=0), tokens, None), None) if len(counted) > tokens else None
        if end is not None and (is_whole or end <= usable):
            return text[:end].count("\n") + 1
        if is_whole:
            return len(lines)
        size = min(len(text), size * 4)
