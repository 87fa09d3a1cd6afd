"""Text from outside made safe for a terminal.

What a model, a file, a file's name or a saved conversation says is hostile until shown otherwise: an escape sequence
in it could rewrite the screen, the window's title or the clipboard. Here every control character becomes a visible
sign, so that a sequence which begins with one is harmless text.
"""

from __future__ import annotations

import json
import textwrap

# Kept as they are: line feed and tab. A carriage return is kept before a line feed only, see `Sanitizer`.
_KEPT_CONTROLS = {0x09, 0x0A}

_NARROWEST = 20  # characters in which a text is still easily read
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def _translations() -> dict[int, str]:
    table = {code: chr(0x2400 + code) for code in range(0x20) if code not in _KEPT_CONTROLS}  # C0, as its picture
    table[0x7F] = "\N{SYMBOL FOR DELETE}"
    table |= dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT)  # C1: 8-bit escape sequences
    table |= dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT)  # lone surrogates cannot be encoded
    # Embeddings, overrides and isolates make text read otherwise than it is (Boucher & Anderson 2021, "Trojan
    # Source"). Right-to-left script needs none of them, and has no use for a sign where one stood.
    table |= dict.fromkeys(range(0x202A, 0x202F), "")  # and U+2066 to U+2069, below
    # Characters that nobody sees and a model reads (Unicode, Default_Ignorable_Code_Point): marks of direction, spaces
    # without width, fillers, controls of formats that no terminal has, tags, and the variation selectors beyond those
    # of emoji. The joiners of emoji and of many scripts (U+200C, U+200D) stay, and so do the selectors of Mongolian
    # and U+FE00 to U+FE0F.
    table |= dict.fromkeys([0xAD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x200B, 0x200E, 0x200F], "")
    table |= dict.fromkeys([*range(0x2060, 0x2070), 0x3164, 0xFEFF, 0xFFA0, *range(0xFFF0, 0xFFFC)], "")
    table |= dict.fromkeys([*range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)], "")
    table |= dict.fromkeys([0x2028, 0x2029], "\n")  # separators of lines and paragraphs
    return table


_TABLE = _translations()


def sanitize(text: str) -> str:
    """`text` with nothing in it that a terminal would obey, but line feeds and tabs."""
    return text.replace("\r\n", "\n").translate(_TABLE)


def one_line(text: str) -> str:
    """`text` for a message: sanitized, with its line breaks and runs of spaces made single spaces."""
    return " ".join(sanitize(text).split())


def shown_name(name: str) -> str:
    """Return a file's name on one line: as it is, or as a JSON string where it has characters that deceive the eye."""
    is_plain = name.isprintable() and sanitize(name) == name and name == name.strip() and not name.startswith('"')
    return name if is_plain else json.dumps(name)


class Sanitizer:
    """`sanitize` for text that comes in pieces: the pieces give what the whole would give."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return the next piece made safe; a carriage return at its end is held back until what follows is known."""
        text = self._held + piece
        self._held = "\r" if text.endswith("\r") else ""
        return sanitize(text.removesuffix("\r"))

    def finish(self) -> str:
        """Return the text that was held back; the sanitizer can then be used for another text."""
        held, self._held = self._held, ""
        return sanitize(held)


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts, for people: `1 token`, `1,234 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return seconds for people: `3.2 s`, `48 s`, `2 min 5 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def whole_number(text: str) -> int | None:
    """Return the whole number, 0 or more, that a word is; None if it is something else or has more than 18 digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def in_rows(text: str, columns: int, hang: int = 0) -> str:
    """Return a line broken between words into rows of at most `columns` characters; longer words stay whole.

    Args:
        text: one line.
        columns: characters of a row.
        hang: columns by which all rows but the first are indented.
    """
    indent = " " * (len(text) - len(text.lstrip(" ")))
    hang = hang if columns - hang >= _NARROWEST else len(indent)
    rows = textwrap.wrap(
        text.strip(" "),
        columns,
        initial_indent=indent,
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return "\n".join(rows) or text
