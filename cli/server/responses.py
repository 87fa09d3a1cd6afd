"""`/v1/responses`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptoss.cli.base.settings import Effort
from gptoss.cli.server.answer_forms import read_form
from gptoss.cli.server.errors import CONTEXT_FULL, ApiError, api_error
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.offered_tools import read_tools
from gptoss.cli.server.replies import Asked, Begun, Call, Reply, Text, read_effort
from gptoss.cli.server.response_events import Events, Output
from gptoss.cli.server.response_items import read_items
from gptoss.cli.server.sampling import UNSUPPORTED, check_logprobs, sampling_params
from gptoss.cli.server.served import Served, new_id
from gptoss.cli.server.stored_responses import StoredResponse
from gptoss.cli.server.token_text import chat_logprob
from gptoss.cli.server.work import Work
from gptoss.cli.session.events import Usage
from gptoss.model.errors import ContextFullError

_UNSUPPORTED = {**UNSUPPORTED, "background": (False,), "conversation": (), "prompt": ()}
_BETWEEN = "\n\n"
_LOGPROBS = "message.output_text.logprobs"
_SEALED = "reasoning.encrypted_content"


@dataclass(frozen=True)
class _Wants:
    """What a request wants to see.

    Attributes:
        stream: events.
        store: keep the response.
        logprobs: of the answer's tokens.
        sealed: reasoning in `encrypted_content` too.
    """

    stream: bool
    store: bool
    logprobs: bool
    sealed: bool


class Responses:
    """The answer to one request.

    Args:
        served: the model.
        asked: the conversation.
        called: the recipients of its calls by their ids.
        wants: what is to be seen.
        echoed: fields of the request that a response repeats.
    """

    def __init__(
        self, served: Served, asked: Asked, called: Mapping[str, str], wants: _Wants, echoed: Mapping[str, Any]
    ) -> None:
        self._served = served
        self._asked = asked
        self._called = dict(called)
        self._wants = wants
        self._response: dict[str, Any] = {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": served.name,
            "output": [],
            "usage": None,
            **echoed,
        }
        self._events: Events | None = None

    @classmethod
    def read(cls, fields: Fields, served: Served) -> Responses:
        """Return what a request asks for.

        Raises:
            ApiError: it is malformed, or asks for what is not supported.
            SamplingError: a sampling parameter is out of its range.
        """
        served.require(fields.text("model"))
        fields.refuse(_UNSUPPORTED)
        limits = served.limits
        previous_id = fields.text("previous_response_id")
        stored = None if previous_id is None else served.responses.require(previous_id, "previous_response_id")
        read = read_items(
            _items(fields, limits.messages),
            served.calls,
            () if stored is None else stored.messages,
            {} if stored is None else stored.called,
        )
        if not read.messages:
            raise ApiError("input is empty", param="input")
        texts = [fields.text("instructions") or "", *read.instructions]
        include = fields.items("include", 16)
        top_logprobs = fields.whole("top_logprobs", 0, limits.top_logprobs) or 0
        reasoning = fields.object("reasoning") or Fields({}, "reasoning.")
        text = fields.object("text") or Fields({}, "text.")
        effort = read_effort(reasoning, "effort", served)
        max_tokens = fields.whole("max_output_tokens", 1)
        asked = Asked(
            tuple(read.messages),
            _BETWEEN.join(each for each in texts if each) or None,
            effort,
            read_tools(fields, limits, nested=False),
            read_form(text, "format", limits, nested=False),
            sampling_params(fields, served.model.engine.info.defaults, max_tokens, top_logprobs),
            drop_oldest=fields.choice("truncation", ("auto", "disabled")) == "auto",
        )
        wants = _Wants(
            fields.flag("stream"),
            fields.flag("store", default=True),
            bool(top_logprobs) or _LOGPROBS in include,
            _SEALED in include,
        )
        if wants.logprobs:  # the last event of a stream has them all too
            check_logprobs(served, asked.params, 1)
        return cls(served, asked, read.called, wants, _echoed(fields, asked, effort, max_tokens))

    @property
    def is_streamed(self) -> bool:
        """Whether the response is a stream of events."""
        return self._wants.stream

    def compute(self, work: Work) -> dict[str, Any] | None:
        """Sample the response."""
        events = self._events = Events(work.emit) if self.is_streamed else None
        output = Output(events, self._asked.tools.custom, sealed=self._wants.sealed)
        reply = Reply(self._served, self._asked)
        encoding = self._served.model.encoding
        try:
            for piece in reply.pieces(work):
                if isinstance(piece, Begun):
                    self._begin()
                    continue
                if isinstance(piece, Call):
                    self._called[piece.id] = piece.recipient
                logprobs = []
                if self._wants.logprobs and isinstance(piece, Text):
                    logprobs = [chat_logprob(token, encoding) for token in piece.tokens]
                output.add(piece, logprobs)
        except (ContextFullError, ApiError) as error:
            if events is None or api_error(error).code != CONTEXT_FULL:
                raise
            # codex shows this code in its own words, where it is no status of HTTP.
            events.emit(self.failed(api_error(error).body))
            return None
        if work.cancelled:
            return None
        is_cut = reply.limit is not None
        output.close("incomplete" if is_cut else "completed")
        response = {
            **self._response,
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": output.items,
            "usage": _usage(reply.usage),
        }
        if self._wants.store:
            messages = (*self._asked.messages, *reply.messages)
            self._served.responses.put(response["id"], StoredResponse(response, messages, self._called))
        if events is None:
            return response
        events.send("incomplete" if is_cut else "completed", response=response)
        return None

    def failed(self, error: dict[str, Any]) -> bytes:
        """Return the last events of a stream that an error ends."""
        pieces: list[bytes] = []
        events = self._events or Events(pieces.append)
        events.emit = pieces.append
        if not events.has_begun:
            events.send("created", response=self._response)
        code, message = error["error"]["code"], error["error"]["message"]
        failure = {"code": code or "server_error", "message": message}
        events.send("failed", response={**self._response, "status": "failed", "error": failure})
        return b"".join(pieces)

    def _begin(self) -> None:
        if self._events is not None:
            self._events.send("created", response=self._response)
            self._events.send("in_progress", response=self._response)


def _items(fields: Fields, most: int) -> Sequence[Fields]:
    value = fields.get("input")
    if isinstance(value, str):
        return [Fields({"role": "user", "content": value}, "input.")]
    return fields.objects("input", most)


def _echoed(fields: Fields, asked: Asked, effort: Effort, max_tokens: int | None) -> dict[str, Any]:
    """Return what a response says of its request."""
    params = asked.params
    text = fields.get("text") or {}
    return {
        "background": False,
        "instructions": fields.get("instructions"),
        "max_output_tokens": max_tokens,
        "max_tool_calls": None,
        "metadata": fields.get("metadata") or {},
        "parallel_tool_calls": fields.flag("parallel_tool_calls", default=True),
        "previous_response_id": fields.get("previous_response_id"),
        "reasoning": {"effort": effort.value, "summary": None},
        "store": fields.flag("store", default=True),
        "temperature": params.temperature,
        "text": {"format": text.get("format") or {"type": "text"}},
        "tool_choice": fields.get("tool_choice") or "auto",
        "tools": fields.get("tools") or [],
        "top_logprobs": params.top_logprobs,
        "top_p": params.top_p,
        "truncation": "auto" if asked.drop_oldest else "disabled",
        "user": None,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
