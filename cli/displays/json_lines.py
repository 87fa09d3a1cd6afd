"""A turn for programs: one object at the end, or one event a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.output import Output
from gptoss.cli.displays.citations import Citations
from gptoss.cli.displays.logprobs import token_with_logprobs
from gptoss.cli.displays.text import Display
from gptoss.cli.session.events import (
    Approval,
    CommentaryDelta,
    Event,
    FinalDelta,
    Notice,
    ProblemFound,
    ReasoningDelta,
    RoundStarted,
    Sampled,
    ToolCall,
    ToolOutput,
    ToolResult,
    TurnFinished,
)

if TYPE_CHECKING:
    from gptoss.harmony import Encoding


class Sink(Protocol):
    """Where JSON is written: standard output, or a file of results."""

    def write(self, text: str) -> None:
        """Write text at once."""
        ...

    def safe(self, text: str) -> str:
        """Return the text as it may be written there."""
        ...


def _no_session() -> str | None:
    return None


class JsonObject(Display):
    """`--json`: the whole turn as one object, written when it is over.

    Args:
        output: standard output.
        session: returns the id of the conversation, if it is saved.
        logprobs_of: the encoding of the tokens, when their log probabilities are wanted.
        labels: what stands first in the object.
        citations: of the answers; None where nothing is cited.
    """

    def __init__(
        self,
        output: Sink,
        session: Callable[[], str | None] = _no_session,
        logprobs_of: Encoding | None = None,
        labels: Mapping[str, Any] = MappingProxyType({}),
        citations: Citations | None = None,
    ) -> None:
        self._output = output
        self._session = session
        self._encoding = logprobs_of
        self._labels = labels
        self._citations = citations
        self._tokens: list[dict[str, Any]] = []
        self._dropped_turns = 0
        self._model = ""
        self._texts = {"reasoning": "", "commentary": "", "answer": ""}
        self._tool_calls: dict[str, dict[str, Any]] = {}
        self._problems: list[str] = []

    def show(self, event: Event) -> None:
        """Gather what the event brings; write at the last."""
        match event:
            case RoundStarted():
                self._model = event.model
                self._dropped_turns = event.dropped_turns
            case Sampled() if self._encoding is not None:
                self._tokens.append(token_with_logprobs(event.token, self._encoding))
            case ReasoningDelta():
                self._texts["reasoning"] += event.text
            case CommentaryDelta():
                self._texts["commentary"] += event.text
            case FinalDelta():
                self._texts["answer"] += event.text
            case ToolCall():
                self._tool_calls[event.id] = {**_call(event), "result": None, "status": None}
            case ToolResult():
                self._tool_calls[event.call_id] |= {"result": event.message.text, "status": event.status}
            case ProblemFound():
                self._problems.append(event.description)
            case TurnFinished():
                answer = self._texts["answer"] if event.answered else None
                _write(
                    self._output,
                    {
                        **self._labels,
                        "model": self._model,
                        **self._texts,
                        "answer": answer,
                        **({"citations": self._citations.data(answer or "")} if self._citations is not None else {}),
                        "tool_calls": list(self._tool_calls.values()),
                        "problems": self._problems,
                        **_ending(event),
                        "dropped_turns": self._dropped_turns,
                        "session": self._session(),
                        **({"logprobs": self._tokens} if self._encoding is not None else {}),
                    },
                )


class JsonLines(Display):
    """`--stream-json`: each event as it comes; arguments as `JsonObject` has them."""

    def __init__(
        self,
        output: Output,
        session: Callable[[], str | None] = _no_session,
        logprobs_of: Encoding | None = None,
        citations: Citations | None = None,
    ) -> None:
        self._output = output
        self._session = session
        self._encoding = logprobs_of
        self._citations = citations
        self._answer = ""
        self._problems: list[str] = []

    def show(self, event: Event) -> None:
        """Write the event's line, if it has one."""
        match event:
            case RoundStarted():
                counts = {"prompt_tokens": event.prompt_tokens, "cached_tokens": event.cached_tokens}
                if event.number == 1:
                    self._write("start", model=event.model, **counts, dropped_turns=event.dropped_turns)
                else:
                    self._write("round", number=event.number, **counts, dropped_turns=event.dropped_turns)
            case Sampled() if self._encoding is not None:
                self._write("token", **token_with_logprobs(event.token, self._encoding))
            case ReasoningDelta():
                self._write("delta", channel="analysis", text=event.text)
            case CommentaryDelta():
                self._write("delta", channel="commentary", text=event.text)
            case FinalDelta():
                self._answer += event.text
                self._write("delta", channel="final", text=event.text)
            case ToolCall():
                self._write("tool_call", **_call(event))
            case Approval():
                self._write(
                    "approval",
                    id=event.call_id,
                    allowed=event.allowed,
                    by=event.by,
                    rule=event.rule,
                    reason=event.reason,
                )
            case ToolOutput():
                self._write("tool_output", id=event.call_id, text=event.text)
            case ToolResult():
                self._write(
                    "tool_result",
                    id=event.call_id,
                    name=event.message.author.name,
                    status=event.status,
                    text=event.message.text,
                    seconds=round(event.seconds, 6),
                    files=[str(path) for path in event.files],
                )
            case Notice():
                self._write("notice", text=event.text)
            case ProblemFound():
                self._problems.append(event.description)
            case TurnFinished():
                cited = {} if self._citations is None else {"citations": self._citations.data(self._answer)}
                self._write("done", **_ending(event), **cited, problems=self._problems, session=self._session())

    def show_error(self, message: str, status: ExitStatus) -> None:
        """Write the event that says why there is no more."""
        self._write("error", message=message, status=int(status))

    def _write(self, event: str, **fields: Any) -> None:
        _write(self._output, {"event": event, **fields})


def _call(event: ToolCall) -> dict[str, str]:
    return {"id": event.id, "recipient": event.recipient, "arguments": event.arguments}


def _ending(event: TurnFinished) -> dict[str, Any]:
    return {
        "finish_reason": event.finish_reason,
        "limit": event.limit,
        "usage": asdict(event.usage),
        "timing": {name: round(seconds, 6) for name, seconds in asdict(event.timing).items()},
        "seed": event.seed,
    }


def _write(output: Sink, value: dict[str, Any]) -> None:
    # On a terminal the control characters that JSON lets through (DEL, C1) are made visible too.
    output.write(output.safe(json.dumps(value, ensure_ascii=False)) + "\n")
