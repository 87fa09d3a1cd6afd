"""The terminal as prompt_toolkit writes to it."""

from __future__ import annotations

import os
from typing import TextIO

from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output


class Screen(Vt100_Output):
    """A terminal that may or may not answer when it is asked for the place of its cursor (ECMA-48, 8.3.35: DSR).

    prompt_toolkit draws what stands below the line when it knows how many rows there are, so that it can put that at
    the bottom of the screen. Where a terminal does not answer, it stands right below the line.

    Attributes:
        is_silent: whether the terminal has not answered.
    """

    is_silent = False

    @classmethod
    def of(cls, stdout: TextIO) -> Screen:
        """Return the terminal behind a stream."""
        screen = cls.from_pty(stdout, term=os.environ.get("TERM"), default_color_depth=ColorDepth.from_env())
        assert isinstance(screen, cls)
        return screen

    @property
    def responds_to_cpr(self) -> bool:
        """Whether it is of use to ask."""
        return not self.is_silent and super().responds_to_cpr

    def get_rows_below_cursor_position(self) -> int:
        """Return the least number of rows that there can be.

        Raises:
            NotImplementedError: the terminal may yet tell.
        """
        if self.is_silent:
            return 1
        return super().get_rows_below_cursor_position()
