"""Text of a page made harmless: it brings no control sequences, no names of special tokens and no brackets of links."""

from __future__ import annotations

import re

from gptoss.cli.base.text import sanitize

_BRACKETS = str.maketrans({"【": "〖", "】": "〗", "◼": "◾"})
# Text never becomes a special token; a name that looks like one could still be taken for the format by a reader.
_SHOWN = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}|\\1|\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
_TOKEN_NAME = re.compile(r"<\|(\w{1,40})\|>")


def neutral(text: str) -> str:
    """Return text without control characters, with `【】` as `〖〗` and `<|start|>` as `‹|start|›`."""
    if "<|" not in text and text.isascii() and text.isprintable():
        return text
    return _TOKEN_NAME.sub(_SHOWN, sanitize(text).translate(_BRACKETS))


def neutral_line(text: str) -> str:
    """Return the text on one line, for titles."""
    return " ".join(neutral(text).split())
