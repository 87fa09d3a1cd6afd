"""The line below the input line: model, effort, context, speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment

from gptoss.cli.base.text import one_line
from gptoss.cli.terminal.styled_text import crop, width_of

_BETWEEN = " \N{MIDDLE DOT} "


@dataclass(frozen=True)
class Part:
    """One figure, and a shorter way to say it where there is little room."""

    text: str
    short: str


def status_bar(parts: Sequence[Part], columns: int) -> str:
    """Return all parts if they fit, else all in short, else as much of that as fits."""
    for texts in ([part.text for part in parts], [part.short for part in parts]):
        whole = _BETWEEN.join(one_line(text) for text in texts)
        if width_of(whole) < columns:
            return whole
    return "".join(segment.text for segment in crop([Segment(whole)], columns - 1))


def context_part(used: int, available: int) -> Part:
    """Return the used part of the context, at most all of it."""
    figures = f"{_short(min(used, available))} of {_short(available)}"
    share = "full" if used >= available else f"{used / available:.0%}"
    return Part(f"context {figures} ({share})", figures)


def _short(tokens: int) -> str:
    if tokens < 1000:
        return str(tokens)
    return f"{tokens / 1000:.1f}k" if tokens < 10_000 else f"{tokens / 1000:.0f}k"
