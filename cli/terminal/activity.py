"""What a turn does while nothing of it can be seen, and for how long: the text of a status row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gptoss.cli.base.errors import OutputError
from gptoss.cli.base.interrupts import Terminated
from gptoss.cli.base.text import counted, duration, one_line
from gptoss.cli.session.events import (
    Approval,
    CommentaryDelta,
    Event,
    FinalDelta,
    PrefillProgress,
    ReasoningDelta,
    RoundFinished,
    RoundStarted,
    Sampled,
    ToolCall,
    ToolOutput,
    ToolResult,
    TurnFinished,
)

STOP_HINT = "; Ctrl-C stops"
QUIET_S = 0.3
"""Seconds of silence before a status row; half a second is the longest that a person takes for an immediate answer."""
_BEAT_S = 0.1
# Tokens without text after which it is a call that the model writes; a header has fewer.
_CALL_TOKENS = 12


class Activity:
    """What a turn is doing, from its events.

    Args:
        clock: seconds.

    Attributes:
        since: when it began; None while there is nothing to say, or a question to the person may be on the screen.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.since: float | None = None
        self._what, self._brief, self._share = "", "", ""
        self._tokens = 0
        self._silent_tokens = 0
        self._read_before: int | None = None
        self._tool = ""

    def take(self, event: Event) -> None:
        """Follow one event."""
        match event:
            case RoundStarted():
                self._read_before = event.cached_tokens
                self._begin(f"reading {counted(event.prompt_tokens - (event.cached_tokens or 0), 'token')}", "reading")
            case PrefillProgress(done, total):
                self._read(done, total)
            case Sampled():
                self._tokens += 1
                self._silent_tokens += 1
                if self._silent_tokens == _CALL_TOKENS and self.since is not None:
                    self._begin("writing a call", tokens=self._silent_tokens)
            case ReasoningDelta():
                self._say("thinking")
            case CommentaryDelta() | FinalDelta():
                self._say("answering")
            case ToolCall(recipient):
                self.since, self._tool = None, one_line(recipient)
            case Approval(allowed=True) | ToolOutput():
                if self.since is None:
                    self._begin(f"running {self._tool}", "running")
            case Approval() | ToolResult() | RoundFinished() | TurnFinished():
                self.since = None

    def text(self, width: int, hint: str) -> str:
        """Return what goes on, for how long, and the hint, in words that fit into `width` cells if any do."""
        seconds = duration(0.0 if self.since is None else self._clock() - self.since)
        tokens = f"{counted(self._tokens, 'token')}, " if self._tokens else ""
        texts = [
            f"{self._what}{self._share}: {tokens}{seconds}{hint}",
            f"{self._what}: {seconds}{hint}",
            f"{self._brief}: {seconds}{hint}",
            f"{seconds}{hint}",
        ]
        return next((text for text in texts if len(text) <= width), texts[-1])

    def shift(self, seconds: float) -> None:
        """Leave out seconds in which the program stood still."""
        if self.since is not None:
            self.since += seconds

    def _begin(self, what: str, brief: str = "", tokens: int = 0) -> None:
        self._what, self._brief, self._share, self._tokens = what, brief or what, "", tokens
        self._silent_tokens = tokens
        self.since = self._clock()

    def _say(self, what: str) -> None:
        if self._what != what or self.since is None:
            self._begin(what, tokens=1)
        self._silent_tokens = 0

    def _read(self, done: int, total: int) -> None:
        if done >= total:
            self._begin("thinking")
            return
        if self._read_before is None:
            self._read_before = done
        if total > self._read_before:
            share = (done - self._read_before) / (total - self._read_before)
            self._what = f"reading {counted(total - self._read_before, 'token')}"
            self._share = f", {share:.0%}" if share > 0 else ""


@contextmanager
def beating(beats: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Within this context `beats` are called ten times a second, from a thread of its own."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(_BEAT_S):
            try:
                for beat in beats:
                    beat()
            except (OutputError, Terminated):  # the main thread meets the same when it writes
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
