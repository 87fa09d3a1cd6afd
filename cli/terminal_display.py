"""What stands beside the answer: reasoning, preambles, tool calls, progress. All of it goes to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable

from gptoss.cli.display import Display
from gptoss.cli.events import (
    CommentaryDelta,
    Event,
    FinalDelta,
    PrefillProgress,
    ProblemFound,
    ReasoningDelta,
    Sampled,
    Started,
    ToolCall,
    TurnFinished,
)
from gptoss.cli.output import Output
from gptoss.cli.text import one_line

# A status line is for prompts that take a while; for a shorter one it would only flicker.
_QUIET_PREFILL_TOKENS = 128
_REDRAW_S = 0.1
_RULE_WIDTH = 32


class StatusLine:
    """A line that is written over again and leaves nothing behind; only on a terminal that can do that."""

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._shown_at: float | None = None
        self._works = output.is_terminal and not output.is_dumb

    def show(self, text: str) -> None:
        """Show `text` in place of what stood there, at most ten times a second."""
        now = self._clock()
        if self._works and (self._shown_at is None or now - self._shown_at >= _REDRAW_S):
            self._shown_at = now
            self._output.write("\r\x1b[K" + self._output.styled(one_line(text), "dim"))

    def leave(self, text: str) -> None:
        """Show a line that stays, on every terminal."""
        self.clear()
        if self._output.is_terminal:
            self._output.write(self._output.styled(one_line(text), "dim") + "\n")

    def clear(self) -> None:
        """Take the line away."""
        if self._shown_at is not None:
            self._shown_at = None
            self._output.write("\r\x1b[K")


class Aside(Display):
    """Shows on standard error what is not the answer.

    Args:
        output: standard error.
        reasoning: whether to show the reasoning.
        status: the line for progress.
    """

    def __init__(self, output: Output, *, reasoning: bool, status: StatusLine) -> None:
        self._output = output
        self._reasoning = reasoning
        self._status = status
        self._section: str | None = None
        self._at_line_start = True
        self._tokens = 0

    def show(self, event: Event) -> None:
        """Show one event, or count it."""
        match event:
            case Started():
                self._tokens = 0
            case PrefillProgress(done, total) if total - done > _QUIET_PREFILL_TOKENS:
                self._status.show(f"reading the prompt: {done} of {total} tokens")
            case Sampled():
                self._tokens += 1
            case ReasoningDelta(text) if self._reasoning:
                self._write("thinking", text)
            case ReasoningDelta():
                self._status.show(f"thinking: {self._tokens} tokens")
            case CommentaryDelta(text):
                self._write("preamble", text)
            case FinalDelta():
                self.close()
            case ToolCall(recipient, arguments):
                self.close()
                self._note(f"call of {recipient}: {arguments}")
            case ProblemFound(description):
                self.close()
                self._note(f"the model's output was not well-formed: {description}")
            case TurnFinished():
                self.close()

    def _write(self, section: str, text: str) -> None:
        self._status.clear()
        if self._section != section:
            self.close()
            if self._output.is_terminal:
                self._rule(section)
            self._section = section
        if text:
            self._at_line_start = text.endswith("\n")
            # Each piece is dimmed by itself: a program that is killed leaves no dim terminal behind.
            self._output.write_untrusted(text, style="dim")

    def close(self) -> None:
        """End the section that is open."""
        self._status.clear()
        if self._section is None:
            return
        self._section = None
        self._output.finish_untrusted()
        if not self._at_line_start:
            self._output.write("\n")
            self._at_line_start = True
        if self._output.is_terminal:
            self._rule("")

    def _rule(self, title: str) -> None:
        line = self._output.line
        text = f"{line * 2} {title} ".ljust(_RULE_WIDTH, line) if title else line * _RULE_WIDTH
        self._output.write(self._output.styled(text, "dim") + "\n")

    def _note(self, text: str) -> None:
        self._output.write(self._output.styled(one_line(text), "dim") + "\n")
