"""Calls the person back when an answer took long: a notification or the bell, and the title of the window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from gptoss.cli.base.output import Output
from gptoss.cli.base.text import duration, one_line
from gptoss.cli.displays.text import Display
from gptoss.cli.session.events import Event, TurnFinished

_BELL = "\x07"
_NOTIFY = "\x1b]9;{}\x07"
_PUSH_TITLE, _POP_TITLE = "\x1b[22;2t", "\x1b[23;2t"
# Terminals that show a notification for OSC 9, as iTerm2 defined it. tmux passes it on to none of them.
_PROGRAMS = ("iTerm.app", "WezTerm", "ghostty")
_TERMS = ("xterm-kitty", "xterm-ghostty")


class Attention(Display):
    """Rings the bell, or shows a notification where the terminal can, at the end of a turn that took long.

    Args:
        output: the terminal; nothing is written where it is none.
        variables: the environment, which names the terminal.
        after_s: seconds from which on a turn took long.
        clock: seconds.
    """

    def __init__(
        self,
        output: Output,
        variables: Mapping[str, str],
        after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._notifies = not variables.get("TMUX") and (
            variables.get("TERM_PROGRAM") in _PROGRAMS or variables.get("TERM") in _TERMS
        )
        self._after_s = after_s
        self._clock = clock
        self._began = clock()

    def show(self, event: Event) -> None:
        """Call the person when the turn is over, unless they stopped it."""
        if not isinstance(event, TurnFinished) or event.finish_reason == "interrupted" or not self._output.is_terminal:
            return
        seconds = self._clock() - self._began
        if seconds >= self._after_s:
            text = f"gptoss: the answer is there, after {duration(seconds)}"
            self._output.write(_NOTIFY.format(text) if self._notifies else _BELL)


class Title:
    """The title of the terminal's window: the model, and whether it answers. The one before comes back at the end.

    Args:
        output: the terminal; nothing is written where it is none or knows no sequences.
        wanted: whether the person asked for it.
    """

    def __init__(self, output: Output, *, wanted: bool) -> None:
        self._output = output
        self._works = wanted and output.is_terminal and output.obeys_sequences

    @contextmanager
    def kept(self, model: Callable[[], str]) -> Iterator[None]:
        """Within this context the window has the model's name as its title."""
        if not self._works:
            yield
            return
        self._output.write(_PUSH_TITLE)
        self._set(model())
        try:
            yield
        finally:
            self._output.write(_POP_TITLE)

    @contextmanager
    def answering(self, model: Callable[[], str]) -> Iterator[None]:
        """Within this context the title says that the model answers."""
        self._set(f"{model()}: answering")
        try:
            yield
        finally:
            self._set(model())

    def _set(self, text: str) -> None:
        if self._works:
            self._output.write(f"\x1b]2;gptoss {self._output.as_shown(one_line(text))}\x07")
