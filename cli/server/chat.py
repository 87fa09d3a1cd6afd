"""`/v1/chat/completions`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gptoss.cli.server.answer_forms import read_form
from gptoss.cli.server.chat_messages import read_messages
from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.offered_tools import function_name, plain_argument, read_tools
from gptoss.cli.server.replies import Asked, Begun, Call, Reasoning, Reply, Text, for_choice, read_effort
from gptoss.cli.server.sampling import UNSUPPORTED, check_logprobs, sampling_params, stop_strings
from gptoss.cli.server.served import Served, new_id
from gptoss.cli.server.token_text import chat_logprob
from gptoss.cli.server.work import Work, event
from gptoss.cli.session.events import Usage

_UNSUPPORTED = {**UNSUPPORTED, "logit_bias": ({},), "functions": ([],), "function_call": ("auto", "none"), "audio": ()}
_BETWEEN = "\n\n"


@dataclass(frozen=True)
class Chat:
    """The answer to one request.

    Attributes:
        served: the model.
        asked: the conversation.
        choices: how many answers.
        logprobs: the tokens of the answers come with log probabilities.
        is_streamed: as server-sent events.
        has_usage: a stream ends with the usage.
    """

    served: Served
    asked: Asked
    choices: int
    logprobs: bool
    is_streamed: bool
    has_usage: bool

    @classmethod
    def read(cls, fields: Fields, served: Served) -> Chat:
        """Return what a request asks for.

        Raises:
            ApiError: it is malformed, or asks for what is not supported.
            SamplingError: a sampling parameter is out of its range.
        """
        served.require(fields.text("model"))
        fields.refuse(_UNSUPPORTED)
        limits = served.limits
        messages = fields.objects("messages", limits.messages)
        if not messages:
            raise ApiError("messages is empty", param="messages")
        instructions, said = read_messages(messages, served.calls)
        logprobs = fields.flag("logprobs")
        top_logprobs = fields.whole("top_logprobs", 0, limits.top_logprobs) or 0
        if top_logprobs and not logprobs:
            raise ApiError("top_logprobs needs logprobs", param="top_logprobs")
        max_tokens = fields.whole("max_completion_tokens", 1) or fields.whole("max_tokens", 1)
        options = fields.object("stream_options") or Fields({})
        asked = Asked(
            said,
            instructions,
            read_effort(fields, "reasoning_effort", served),
            read_tools(fields, limits, nested=True),
            read_form(fields, "response_format", limits, nested=True),
            sampling_params(fields, served.model.engine.info.defaults, max_tokens, top_logprobs),
            stop_strings(fields, limits),
        )
        choices = fields.whole("n", 1, limits.choices) or 1
        is_streamed = fields.flag("stream")
        if logprobs and not is_streamed:
            check_logprobs(served, asked.params, choices)
        return cls(served, asked, choices, logprobs, is_streamed, options.flag("include_usage"))

    def compute(self, work: Work) -> dict[str, Any] | None:
        """Sample the answers one after the other; their prompt is computed once."""
        envelope = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion.chunk" if self.is_streamed else "chat.completion",
            "created": int(time.time()),
            "model": self.served.name,
        }
        usage = Usage(0, 0, 0, 0)
        choices = []
        for index in range(self.choices):
            choice = _Choice(self, index)
            for piece in choice.pieces(work):
                if self.is_streamed:
                    work.emit(event(json.dumps({**envelope, "choices": [piece]})))
            if work.cancelled:
                return None
            usage += for_choice(choice.usage, index)
            if not self.is_streamed:
                choices.append(choice.whole())
        if not self.is_streamed:
            return {**envelope, "choices": choices, "usage": _usage(usage)}
        if self.has_usage:
            work.emit(event(json.dumps({**envelope, "choices": [], "usage": _usage(usage)})))
        work.emit(event("[DONE]"))
        return None

    def failed(self, error: dict[str, Any]) -> bytes:
        """Return the last events of a stream that an error ends."""
        return event(json.dumps(error)) + event("[DONE]")


class _Choice:
    """One answer while it is sampled."""

    def __init__(self, request: Chat, index: int) -> None:
        self._request = request
        self._index = index
        self._reply = Reply(request.served, request.asked, index)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        self._was_preamble = False

    @property
    def usage(self) -> Usage:
        """The tokens of this answer and its prompt."""
        return self._reply.usage

    def pieces(self, work: Work) -> Iterator[dict[str, Any]]:
        """Sample; yield the pieces of a stream."""
        is_first = True
        for piece in self._reply.pieces(work):
            if isinstance(piece, Begun):
                continue
            delta = self._delta(piece)
            logprobs = self._new_logprobs(piece)
            if not delta and not logprobs:
                continue
            if is_first:
                delta = {"role": "assistant", **delta}
                is_first = False
            yield self._piece(delta, logprobs)
        if not work.cancelled:
            yield self._piece({"role": "assistant", "content": ""} if is_first else {}, [], self._finish)

    def whole(self) -> dict[str, Any]:
        """Return the answer when it is over."""
        reasoning = "".join(self._reasoning) or None
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self._text) or (None if self._calls else ""),
            "refusal": None,
            "reasoning_content": reasoning,
            "reasoning": reasoning,
        }
        if self._calls:
            message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in self._calls]
        logprobs = {"content": self._logprobs, "refusal": None} if self._request.logprobs else None
        return {"index": self._index, "message": message, "logprobs": logprobs, "finish_reason": self._finish}

    @property
    def _finish(self) -> str:
        if self._reply.limit is not None:
            return "length"
        return "tool_calls" if self._reply.calls else "stop"

    def _delta(self, piece: Reasoning | Text | Call) -> dict[str, Any]:
        if isinstance(piece, Call):
            call = self._call(piece)
            self._calls.append(call)
            return {"tool_calls": [call]}
        # Under a schema, the content is the answer alone.
        if isinstance(piece, Reasoning) or (piece.is_preamble and self._request.asked.form is not None):
            self._reasoning.append(piece.text)
            return {"reasoning_content": piece.text, "reasoning": piece.text} if piece.text else {}
        text = piece.text
        if text and self._was_preamble and not piece.is_preamble:
            text = _BETWEEN + text
        if text:
            self._was_preamble = piece.is_preamble
            self._text.append(text)
        return {"content": text} if text else {}

    def _call(self, call: Call) -> dict[str, Any]:
        name = function_name(call.recipient)
        made: dict[str, Any] = {"index": len(self._calls), "id": call.id}
        if name in self._request.asked.tools.custom:
            return {**made, "type": "custom", "custom": {"name": name, "input": plain_argument(name, call.arguments)}}
        return {**made, "type": "function", "function": {"name": name, "arguments": call.arguments}}

    def _new_logprobs(self, piece: Reasoning | Text | Call) -> list[dict[str, Any]]:
        if not self._request.logprobs or not isinstance(piece, Text):
            return []
        new = [chat_logprob(token, self._request.served.model.encoding) for token in piece.tokens]
        if not self._request.is_streamed:
            self._logprobs += new
        return new

    def _piece(
        self, delta: dict[str, Any], logprobs: list[dict[str, Any]], finish: str | None = None
    ) -> dict[str, Any]:
        shown = {"content": logprobs, "refusal": None} if logprobs else None
        return {"index": self._index, "delta": delta, "logprobs": shown, "finish_reason": finish}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
