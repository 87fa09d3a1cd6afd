"""Run the calls of a turn, within its limits; every call gets a result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

from gptoss.cli.session.calls import result_message
from gptoss.cli.session.events import Event, ToolCall, ToolLimit, ToolResult
from gptoss.cli.session.tool_results import shortened
from gptoss.cli.session.tools import ToolLimits, ToolOutcome, Tools
from gptoss.harmony import Encoding, Message


@dataclass
class _Counts:
    """What one turn has used up of its limits."""

    calls: int = 0
    seconds: float = 0.0
    repeats: int = 0
    latest: tuple[str, str] = field(default=("", ""))

    def add(self, call: ToolCall) -> None:
        self.calls += 1
        same = (call.recipient, call.arguments)
        self.repeats = self.repeats + 1 if same == self.latest else 1
        self.latest = same


class ToolLoop:
    """Runs the calls of one turn.

    Args:
        tools: runs each; None leaves all to the caller.
        limits: of the turn.
        encoding: counts the tokens of results.
        context: tokens of prompt and answer together.
        is_stopping: whether the person has ended the turn.

    Attributes:
        limit: the limit that ended the turn, if one did.
    """

    def __init__(
        self,
        tools: Tools | None,
        limits: ToolLimits,
        encoding: Encoding,
        context: int,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._tools = tools
        self._limits = limits
        self._encoding = encoding
        self._result_tokens = max(1, min(limits.result_tokens, context // 4))
        self._is_stopping = is_stopping
        self._counts = _Counts()
        self.limit: ToolLimit | None = None

    def run(
        self, calls: Sequence[ToolCall], history: Sequence[Message], record: Callable[[Message], None]
    ) -> Generator[Event, None, tuple[ToolCall, ...]]:
        """Run calls one after the other; return those that are left to the caller.

        After the person has stopped the turn, and after a limit, the calls that are left are not run, and their
        results say so.

        Args:
            calls: of one round.
            history: the messages before them.
            record: called with each result before its event is yielded.
        """
        for index, call in enumerate(calls):
            began = time.perf_counter()
            outcome = self._refused(call)
            if outcome is None:
                if self._tools is None:
                    return tuple(calls[index:])
                with closing(self._tools.run(call, history)) as running, self._timed(self._tools):
                    outcome = yield from running
                if outcome is None:
                    return tuple(calls[index:])
                if outcome.status in ("cancelled", "denied") and self._is_stopping():
                    outcome = replace(outcome, text=f"{outcome.text}\n{_STOPPED}")
                elif outcome.status == "cancelled" and self.limit is not None:
                    outcome = replace(outcome, text=f"{outcome.text}\n{_LIMIT_TEXTS[self.limit]}", status="limit")
            message = result_message(call, shortened(outcome.text, self._result_tokens, self._encoding))
            record(message)
            history = (*history, message)
            yield ToolResult(message, call.id, outcome.status, time.perf_counter() - began, outcome.files)
        return ()

    def _refused(self, call: ToolCall) -> ToolOutcome | None:
        """Return why a call is not run; None if it is."""
        if self._is_stopping():
            return ToolOutcome(f"Not run. {_STOPPED}", "cancelled")
        if self.limit is not None:
            return ToolOutcome(f"Not run. {_LIMIT_TEXTS[self.limit]}", "limit")
        if self._tools is None:
            return None
        counts = self._counts
        counts.add(call)
        if counts.calls > self._limits.calls and not self._goes_on("tool_calls", call):
            return ToolOutcome(f"Not run. {_LIMIT_TEXTS['tool_calls']}", "limit")
        if counts.repeats > self._limits.repeats and not self._goes_on("tool_repeat", call):
            return ToolOutcome(f"Not run. {_LIMIT_TEXTS['tool_repeat']}", "limit")
        if counts.seconds >= self._limits.seconds and not self._goes_on("tool_time", call):
            return ToolOutcome(f"Not run. {_LIMIT_TEXTS['tool_time']}", "limit")
        return None

    def _goes_on(self, limit: ToolLimit, call: ToolCall) -> bool:
        if self._tools is not None and self._tools.may_exceed(limit, call):
            counts = self._counts
            self._counts = _Counts(
                1 if limit == "tool_calls" else counts.calls,
                0.0 if limit == "tool_time" else counts.seconds,
                1 if limit == "tool_repeat" else counts.repeats,
                counts.latest,
            )
            return True
        self.limit = limit
        return False

    @contextmanager
    def _timed(self, tools: Tools) -> Iterator[None]:
        """Count the seconds of a call, and cancel it when the turn has no more."""

        def expire() -> None:
            self.limit = "tool_time"
            tools.cancel()

        began = time.monotonic()
        timer = threading.Timer(max(0.0, self._limits.seconds - self._counts.seconds), expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._counts.seconds += time.monotonic() - began


_STOPPED = "The user has ended this turn."
_LIMIT_TEXTS: dict[ToolLimit, str] = {
    "tool_calls": "The turn has reached its limit of tool calls.",
    "tool_time": "The turn has reached its limit of time for tools.",
    "tool_repeat": "The same call was made too often in succession.",
}
