"""Reasoning, preambles, tool calls and progress on standard error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.base.text import counted, duration, one_line
from gptoss.cli.displays.text import Display
from gptoss.cli.session.events import (
    Approval,
    CommentaryDelta,
    Event,
    FinalDelta,
    ProblemFound,
    ReasoningDelta,
    Sampled,
    ToolCall,
    ToolOutput,
    ToolResult,
    TurnFinished,
)
from gptoss.cli.terminal.activity import QUIET_S, STOP_HINT, Activity
from gptoss.cli.terminal.status_line import StatusLine

if TYPE_CHECKING:
    from gptoss.cli.terminal.running_output import RunningOutput

# Seconds of silence that are said to a screen reader, for which every status is a line more to read.
_ACCESSIBLE_QUIET_S = 1.0
_RULE_WIDTH = 40
_HANG = 2
_MOST_CHARACTERS = 400
"""Of a call or a result that is shown as one line at a terminal."""


class Aside(Display):
    """Shows on standard error what is not the answer.

    Args:
        output: standard error.
        reasoning: what to show of the reasoning; auto is show.
        status: the line for progress.
        clock: seconds.
    """

    def __init__(
        self,
        output: Output,
        reasoning: ReasoningView,
        status: StatusLine,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._reasoning = reasoning
        self._status = status
        self._clock = clock
        self._lock = threading.RLock()  # `beat` comes from another thread
        self._activity = Activity(clock)
        self._changed = clock()
        self._since: float | None = None
        """When the reasoning that goes on began."""
        self._section: str | None = None
        self._at_line_start = True
        self._seconds = 0.0
        self._tokens = 0
        self._pending = 0
        """Tokens of which it is not known yet what they say."""
        self._answers = False
        self._running: RunningOutput | None = None

    def show(self, event: Event) -> None:
        """Show one event, or count it."""
        with self._lock:
            self._activity.take(event)
            self._show(event)

    def beat(self) -> None:
        """Say what goes on while nothing of it is seen; to be called several times a second, from any thread."""
        with self._lock:
            # A row that is not ended, and an answer that may stand on the same screen, are not written over.
            if self._activity.since is None or self._section is not None or self._running or self._answers:
                return
            since, quiet = self._changed, QUIET_S
            if self._output.is_accessible:  # a line that stays, for what itself takes long
                since, quiet = max(since, self._activity.since), _ACCESSIBLE_QUIET_S
            if self._clock() - since >= quiet:
                self._status.show(self._activity.text(self._output.columns - 1, STOP_HINT))

    def suspend(self) -> None:
        """Take the status from the screen."""
        self._status.clear()

    def resume(self, seconds: float, *, surprised: bool) -> None:  # noqa: ARG002 - as `Suspendable` has it
        """Do not count the seconds for which the program stood still."""
        self._activity.shift(seconds)
        self._since = None if self._since is None else self._since + seconds

    def _show(self, event: Event) -> None:
        match event:
            case Approval(allowed=True):
                self._changed = self._clock()
            case Sampled():
                self._pending += 1
            case ReasoningDelta(text):
                self._show_reasoning(text)
            case CommentaryDelta(text):
                self._write("preamble", text)
            case FinalDelta():
                self._begin_answer()
            case ToolCall(recipient, arguments):
                self.close()
                self._show_text(f"call of {recipient}", arguments)
            case Approval(allowed=False):
                self.close()
                self._note("the call is not allowed")
            case ToolOutput(text=text):
                self._show_output(text)
            case ToolResult(message, files=files):
                self.close()
                self._show_text(f"result of {message.author.name}", message.text)
                for path in files:
                    self._note(f"file: {path}")
            case ProblemFound(description):
                self.close()
                self._note(f"the model's output was not well-formed: {description}")
            case TurnFinished():
                self.close()
                self._answers = False

    def _show_text(self, title: str, text: str) -> None:
        """Show an untrusted text below its title: at a terminal its first rows, elsewhere all of it on one line."""
        line = f"{title}: {text}"
        if not self._output.is_terminal or ("\n" not in text.strip("\n") and len(line) <= _MOST_CHARACTERS):
            self._note(line)
            return
        from gptoss.cli.terminal.styled_text import plain
        from gptoss.cli.terminal.tool_rows import first_rows

        self._note(f"{title}:")
        for row in first_rows(text, self._output.columns - 1):
            shown = self._output.as_shown(plain(row)).replace("\t", " ")
            self._output.write(self._output.styled(shown, "dim") + "\n")

    def _show_output(self, text: str) -> None:
        """Show the end of what a running tool writes, where rows can be written over; its result replaces it."""
        if not self._status.works:
            return
        from gptoss.cli.terminal.running_output import RunningOutput

        if self._running is None:
            self._status.clear()
            self._running = RunningOutput(self._output)
        self._running.feed(text)

    def _begin_answer(self) -> None:
        self.close()
        if self._output.is_accessible and not self._answers:
            self._output.write("Answer:\n")
        self._answers = True

    def _show_reasoning(self, text: str) -> None:
        if self._since is None:
            self.close()
            self._since, self._tokens, self._pending = self._clock(), 0, 1
        self._tokens, self._pending = self._tokens + self._pending, 0
        self._seconds = self._clock() - self._since
        if self._reasoning in (ReasoningView.SHOW, ReasoningView.AUTO):
            self._write("thinking", text)
        else:
            seconds = duration(self._seconds)
            self._status.show(f"thinking: {counted(self._tokens, 'token')}, {seconds}{STOP_HINT}")

    def _write(self, section: str, text: str) -> None:
        self._status.clear()
        if self._section != section:
            if section != "thinking":
                self.close()
            if self._output.is_terminal:
                self._rule(section, begins=True)
            self._section = section
        if text:
            self._at_line_start = text.endswith("\n")
            # Each piece is dimmed by itself: a program that is killed leaves no dim terminal behind.
            self._output.write_untrusted(text, style="dim")

    def close(self) -> None:
        """End the section that is open."""
        with self._lock:
            self._changed = self._clock()
            self._close()

    def _close(self) -> None:
        self._status.clear()
        if self._running is not None:
            self._running.clear()
            self._running = None
        thought = ""
        if self._since is not None:
            thought = f"thought for {duration(self._seconds)}, {counted(self._tokens, 'token')}"
            self._since = None
        if self._section is None:
            if thought and self._reasoning is ReasoningView.FOLD:
                self._status.leave(thought if self._output.is_accessible else f"{self._output.line * 2} {thought}")
            return
        self._section = None
        self._output.finish_untrusted()
        if not self._at_line_start:
            self._output.write("\n")
            self._at_line_start = True
        if self._output.is_terminal:
            self._rule(thought)

    def _rule(self, title: str, *, begins: bool = False) -> None:
        if self._output.is_accessible:
            self._output.write(f"{title.capitalize()}{':' if begins else '.'}\n" if title else "")
            return
        line = self._output.line
        text = f"{line * 2} {title} ".ljust(_RULE_WIDTH, line) if title else line * _RULE_WIDTH
        self._output.write(self._output.styled(text, "dim") + "\n")

    def _note(self, text: str) -> None:
        self._output.write(self._output.styled(self._output.fitted(one_line(text), _HANG), "dim") + "\n")
