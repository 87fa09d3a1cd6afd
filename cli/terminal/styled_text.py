"""Text with styles, and how it is broken into rows of a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from unicodedata import category

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

Line: TypeAlias = list[Segment]
"""Pieces of text with their styles; `\\n` is a line break where the text is still to be wrapped."""

# Characters of a word that is left whole: more than addresses and paths have.
_LONGEST_WORD = 4096
_EMOJI_PRESENTATION = "\N{VARIATION SELECTOR-16}"
# Where East Asian text must not be broken (after JIS X 4051, "kinsoku"): not before the one, not after the other.
_STICKS_TO_PREVIOUS = ("Pe", "Pf", "Po", "Lm")
_STICKS_TO_NEXT = ("Ps", "Pi")


@dataclass(frozen=True)
class Row:
    """One row of wrapped text.

    Attributes:
        line: what stands in it.
        end: index of the first character of the text that stands behind it; spaces at which it was broken are before.
    """

    line: Line
    end: int


def width_of(text: str) -> int:
    """Return the cells that `text` takes at most; terminals disagree on some emoji, and the wider reading is taken."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def line_width(line: Line) -> int:
    """Return the cells that a line takes."""
    return sum(width_of(segment.text) for segment in line)


def plain(line: Line) -> str:
    """Return the text alone."""
    return "".join(segment.text for segment in line)


def skip(line: Line, count: int) -> Line:
    """Return the line without its first `count` characters."""
    rest = []
    for segment in line:
        if count < len(segment.text):
            rest.append(Segment(segment.text[count:], segment.style))
        count = max(0, count - len(segment.text))
    return rest


def take(line: Line, count: int) -> Line:
    """Return the first `count` characters."""
    kept = []
    for segment in line:
        if count > 0:
            kept.append(Segment(segment.text[:count], segment.style))
        count -= len(segment.text)
    return kept


def crop(line: Line, width: int) -> Line:
    """As much of the beginning as fits into `width` cells."""
    if line_width(line) <= width:
        return line
    kept, left = [], width
    for segment in line:
        size = 0
        for character in segment.text:
            left -= _cells(character)
            if left < 0:
                break
            size += 1
        kept.append(Segment(segment.text[:size], segment.style))
        if left < 0:
            break
    return kept


def fold(line: Line, width: int) -> list[Line]:
    """Return the line cut into pieces of at most `width` cells, wherever in a word that is; at least one piece."""
    if line_width(line) <= width:
        return [line]
    pieces: list[Line] = [[]]
    left = width
    for segment in line:
        begin = 0
        for index, character in enumerate(segment.text):
            size = _cells(character)
            if size > left and left < width:
                pieces[-1].append(Segment(segment.text[begin:index], segment.style))
                pieces.append([])
                begin, left = index, width
            left -= size
        pieces[-1].append(Segment(segment.text[begin:], segment.style))
    return pieces


def wrap(text: Line, width: int, *, whole_words: bool = False) -> list[Row]:
    """Break text into rows of at most `width` cells.

    Args:
        text: the text.
        width: cells of a row.
        whole_words: leave a word that is longer than that (an address, a path) whole, in a row that is wider: the
            terminal breaks it, and knows that it is one word when it is copied or followed.

    Rows are filled one after the other, so the rows of what stands behind one row's end are the rows that follow it:
    a text that grows at its end changes only its last row.
    """
    characters = [(character, segment.style) for segment in text for character in segment.text]
    rows, begin = [], 0
    while begin < len(characters):
        end, following = _break(characters, begin, max(1, width), _LONGEST_WORD if whole_words else 0)
        rows.append(Row(_joined(characters[begin:end]), following))
        begin = following
    return rows


def _break(characters: list[tuple[str, Style | None]], begin: int, width: int, longest_word: int) -> tuple[int, int]:
    """Return where the row that begins at `begin` ends, and where the next one begins."""
    cells = 0
    place: tuple[int, int] | None = None
    previous = ""
    for index in range(begin, len(characters)):
        character = characters[index][0]
        if character == "\n":
            return index, index + 1
        size = _cells(character)
        if character == " ":
            if cells + size > width:
                return index, _after_spaces(characters, index)
            if previous != " ":
                place = (index, index + 1)
            elif place is not None:
                place = (place[0], index + 1)
        else:
            if index > begin and _may_part(previous, character):
                place = (index, index)
            if cells + size > width and index > begin and (place or index - begin >= longest_word):
                return place or (index, index)
        cells += size
        previous = character
    return len(characters), len(characters)


def _may_part(before: str, behind: str) -> bool:
    """Whether a row may end between two characters that no space stands between: wide ones, mostly."""
    return (
        not (before.isascii() and behind.isascii())
        and 2 in (_cells(before), _cells(behind))
        and before != " "
        and _cells(behind) > 0
        and category(behind) not in _STICKS_TO_PREVIOUS
        and category(before) not in _STICKS_TO_NEXT
    )


def _after_spaces(characters: list[tuple[str, Style | None]], index: int) -> int:
    while index < len(characters) and characters[index][0] == " ":
        index += 1
    return index + 1 if index < len(characters) and characters[index][0] == "\n" else index


def _joined(characters: Iterable[tuple[str, Style | None]]) -> Line:
    line: Line = []
    piece, current = "", None
    for character, style in characters:
        if piece and style != current:
            line.append(Segment(piece, current))
            piece = ""
        piece, current = piece + character, style
    return [*line, Segment(piece, current)] if piece else line


@lru_cache(maxsize=4096)
def _cells(character: str) -> int:
    return 1 if character == _EMOJI_PRESENTATION else cell_len(character)
