"""Where the events of a turn go. Each display shows one thing in one place; a run has several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.output import Output
from gptoss.cli.base.text import counted, one_line
from gptoss.cli.session.events import Event, FinalDelta, Notice, ReasoningDelta, RoundStarted, TurnFinished


class Display(ABC):
    """Shows events in the order in which they come."""

    @abstractmethod
    def show(self, event: Event) -> None:
        """Show one event.

        Raises:
            OutputClosed, OutputError: standard output cannot be written.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End what is shown; of use when a turn breaks off without its last event."""


class Displays(Display):
    """Several displays as one; each event goes to all, in their order."""

    def __init__(self, displays: Sequence[Display]) -> None:
        self._displays = displays

    def show(self, event: Event) -> None:
        """Show one event on each."""
        for display in self._displays:
            display.show(event)

    def close(self) -> None:
        """End each."""
        for display in self._displays:
            display.close()


class Answer(Display):
    """The final channel and nothing else, ended by exactly one newline."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._held_newlines = 0
        self._begun = False

    def show(self, event: Event) -> None:
        """Write what of the answer the event brings; newlines wait until more text follows."""
        if isinstance(event, FinalDelta):
            text = event.text.rstrip("\n")
            if text:
                self._output.write_untrusted("\n" * self._held_newlines + text)
                self._held_newlines = 0
                self._begun = True
            self._held_newlines += len(event.text) - len(text)
        elif isinstance(event, TurnFinished):
            self._begun |= event.answered
            self.close()

    def close(self) -> None:
        """End the answer, if there was any."""
        if self._begun:
            self._output.finish_untrusted()
            self._output.write("\n")
        self._held_newlines, self._begun = 0, False


class ReasoningFile(Display):
    """The reasoning in a file of its own, as it is.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            self._fail(error)

    def show(self, event: Event) -> None:
        """Write what of the reasoning the event brings."""
        if self._file is None:
            return
        try:
            if isinstance(event, ReasoningDelta):
                self._file.write(event.text)
                self._file.flush()
            elif isinstance(event, TurnFinished):
                self.close()
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """End the file."""
        file, self._file = self._file, None
        if file is not None:
            with file:
                file.write("\n")

    def _fail(self, error: OSError) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
        raise InputError(f"cannot write the reasoning to {one_line(str(self._path))}: {error.strerror}") from None


class Warnings(Display):
    """Reports turns that were left out, and notices, on standard error; in a pipe too.

    Args:
        output: standard error.
        notices: whether to write notices; False where another display shows them.
    """

    def __init__(self, output: Output, *, notices: bool = True) -> None:
        self._output = output
        self._notices = notices

    def show(self, event: Event) -> None:
        """Write a line where the event brings one."""
        if isinstance(event, Notice) and self._notices:
            self._output.write_line(f"gptoss: {one_line(event.text)}", hang=8)
        if isinstance(event, RoundStarted) and event.dropped_turns and event.number == 1:
            turns = "turn was" if event.dropped_turns == 1 else f"{event.dropped_turns:,} turns were"
            self._output.write_line(
                f"gptoss: the oldest {turns} left out of the prompt (--overflow drop-oldest)", hang=8
            )


class Stats(Display):
    """One line of figures at the end of a turn."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, event: Event) -> None:
        """Write the line when the turn is over."""
        if isinstance(event, TurnFinished):
            self._output.write(self._output.styled(self._output.fitted(stats_line(event), 2), "dim") + "\n")


def stats_line(turn: TurnFinished) -> str:
    """Return tokens, seconds and speeds of a turn, for people."""
    usage, timing = turn.usage, turn.timing
    computed = usage.prompt_tokens - usage.cached_tokens
    return (
        f"prompt {counted(usage.prompt_tokens, 'token')}, {usage.cached_tokens:,} cached, "
        f"{computed:,} in {timing.prefill_s:.2f} s{_speed(computed, timing.prefill_s)}; "
        f"reply {counted(usage.completion_tokens, 'token')}, {usage.reasoning_tokens:,} of reasoning, "
        f"in {timing.decode_s:.2f} s{_speed(usage.completion_tokens, timing.decode_s)}; {turn.finish_reason}"
    )


def _speed(tokens: int, seconds: float) -> str:
    return f" ({tokens / seconds:,.1f}/s)" if tokens and seconds > 0 else ""
