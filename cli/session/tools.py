"""The interface between a session and the tools that the model calls."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gptoss.cli.session.events import Approval, ToolCall, ToolLimit, ToolOutput, ToolStatus
from gptoss.harmony import Message

ToolEvent = Approval | ToolOutput


@dataclass(frozen=True)
class ToolOutcome:
    """How a call ended.

    Attributes:
        text: the result, as the model reads it; the session shortens one that is too long.
        status: for events.
        files: that the tool has made, for the person.
    """

    text: str
    status: ToolStatus = "ok"
    files: tuple[Path, ...] = ()


class Tools(Protocol):
    """Runs the tools that the model calls. A session calls it from the thread that reads the session's events."""

    def run(self, call: ToolCall, history: Sequence[Message]) -> Generator[ToolEvent, None, ToolOutcome | None]:
        """Run a call; yield its approval and its output as it comes, and return how it ended.

        None leaves the call to the caller of `Session.respond`. Whatever the model did wrong (an unknown tool,
        arguments that are not valid) is an outcome too.

        Args:
            call: the call.
            history: the messages of the conversation before it.
        """
        ...

    def may_exceed(self, limit: ToolLimit, call: ToolCall) -> bool:
        """Return whether to go on although a limit is reached; it then counts from zero again."""
        ...

    def cancel(self) -> None:
        """End the call that is running, from any thread or a signal handler; `run` then returns what there is."""
        ...


@dataclass(frozen=True)
class ToolLimits:
    """Limits of the tools in one turn.

    Attributes:
        calls: number of calls.
        seconds: that tools may run, together.
        repeats: how often the model may make the same call, with the same arguments, in succession.
        result_tokens: length of one result in the prompt; at most a quarter of the context.
    """

    calls: int = 100
    seconds: float = 1800.0
    repeats: int = 3
    result_tokens: int = 8192
