"""The end of a running tool's output, in rows that are written over."""

from __future__ import annotations

from gptoss.cli.base.output import Output
from gptoss.cli.terminal import theme
from gptoss.cli.terminal.live import LiveRegion
from gptoss.cli.terminal.tool_rows import OutputTail


class RunningOutput:
    """Shows what one call writes while it runs.

    Args:
        output: a terminal with a cursor to move, at the beginning of a row.
    """

    def __init__(self, output: Output) -> None:
        self._region = LiveRegion(output)
        self._tail = OutputTail()

    def feed(self, piece: str) -> None:
        """Show more of the output, which is untrusted."""
        self._tail.feed(piece)
        self._region.update([], self._tail.rows(self._region.width, theme.DIM))

    def clear(self) -> None:
        """Remove the rows."""
        self._region.update([], [])
