"""`/v1/completions`: token ids or text in, token ids or text out, in vLLM's form.

Knows no chat format. The token ids of an answer include the stop token that ended it, its text does not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.held import Held
from gptoss.cli.server.sampling import (
    UNSUPPORTED,
    StopStrings,
    check_logprobs,
    sampling_params,
    stop_strings,
    with_seed,
)
from gptoss.cli.server.served import Served, new_id
from gptoss.cli.server.token_text import TokenText, logprob, token_bytes
from gptoss.cli.server.work import Work, event
from gptoss.cli.session.events import Usage
from gptoss.model.interface import Request, SamplingParams, Token

_MAX_TOKENS = 16  # the API's own default
_UNSUPPORTED = {
    **UNSUPPORTED,
    "echo": (False,),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "truncate_prompt_tokens": (),
    "include_stop_str_in_output": (False,),
}


@dataclass(frozen=True)
class Form:
    """What a request wants to see of the tokens.

    Attributes:
        token_ids: the ids of prompt and answer.
        logprobs: log probabilities.
        tokens_as_ids: tokens beside log probabilities are written `token_id:N`.
        skip_special: special tokens are no part of the text.
        usage: a stream ends with the usage.
    """

    token_ids: bool
    logprobs: bool
    tokens_as_ids: bool
    skip_special: bool
    usage: bool

    def shows(self, piece: dict[str, Any]) -> bool:
        """Whether a piece of a stream has anything to show."""
        return self.token_ids or self.logprobs or bool(piece["text"]) or piece["finish_reason"] is not None


@dataclass(frozen=True)
class Completions:
    """The answer to one request.

    Attributes:
        served: the model.
        prompts: token ids, or texts.
        choices: answers to each prompt.
        params: how to sample.
        stop: texts that end an answer.
        stop_ids: token ids that do, beside the model's own.
        ignore_stop: not even these do.
        held: what the tokens must follow.
        form: what the request wants to see.
        is_streamed: as server-sent events.
    """

    served: Served
    prompts: tuple[tuple[int, ...] | str, ...]
    choices: int
    params: SamplingParams
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    ignore_stop: bool
    held: Held
    form: Form
    is_streamed: bool

    @classmethod
    def read(cls, fields: Fields, served: Served) -> Completions:
        """Return what a request asks for.

        Raises:
            ApiError: it is malformed, or asks for what is not supported.
            SamplingError: a sampling parameter is out of its range.
        """
        served.require(fields.text("model"))
        fields.refuse(_UNSUPPORTED)
        limits = served.limits
        prompts = _prompts(fields, limits.choices)
        choices = fields.whole("n", 1, limits.choices) or 1
        if choices * len(prompts) > limits.choices:
            raise ApiError(f"at most {limits.choices} answers to one request: n times the prompts", param="n")
        if fields.whole("best_of") not in (None, choices):
            raise ApiError("best_of is not supported", param="best_of", code="unsupported_parameter")
        is_streamed = fields.flag("stream")
        logprobs = fields.whole("logprobs", 0, limits.top_logprobs)
        max_tokens = fields.whole("max_tokens", 1) or _MAX_TOKENS
        params = sampling_params(fields, served.model.engine.info.defaults, max_tokens, logprobs or 0)
        if logprobs is not None and not is_streamed:
            check_logprobs(served, params, choices * len(prompts))
        options = fields.object("stream_options") or Fields({})
        stop_ids = fields.items("stop_token_ids", served.model.encoding.vocab_size)
        return cls(
            served,
            prompts,
            choices,
            params,
            stop_strings(fields, limits),
            frozenset(_ids(stop_ids, "stop_token_ids")),
            fields.flag("ignore_eos"),
            Held.read(fields, served),
            Form(
                fields.flag("return_token_ids"),
                logprobs is not None,
                fields.flag("return_tokens_as_token_ids"),
                fields.flag("skip_special_tokens", default=True),
                options.flag("include_usage"),
            ),
            is_streamed,
        )

    def compute(self, work: Work) -> dict[str, Any] | None:
        """Sample the answers one after the other; their prompts' prefix is computed once."""
        envelope = {
            "id": new_id("cmpl-"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.served.name,
        }
        usage = Usage(0, 0, 0, 0)
        choices = []
        for number, prompt in enumerate(self.prompts):
            if isinstance(prompt, str):
                self.served.check_text(prompt)
                prompt = tuple(self.served.model.encoding.encode(prompt))
            for nth in range(self.choices):
                if work.cancelled:
                    break
                choice = _Choice(self, prompt, number * self.choices + nth, with_seed(self.params, nth))
                for piece in choice.pieces(work):
                    if self.is_streamed and self.form.shows(piece):
                        work.emit(event(json.dumps({**envelope, "choices": [piece]})))
                usage += choice.usage(first=nth == 0)
                if not self.is_streamed:
                    choices.append(choice.whole())
        self.served.count(usage, cancelled=work.cancelled is not None)
        if work.cancelled:
            return None
        if not self.is_streamed:
            return {**envelope, "choices": choices, "usage": _usage(usage)}
        if self.form.usage:
            work.emit(event(json.dumps({**envelope, "choices": [], "usage": _usage(usage)})))
        work.emit(event("[DONE]"))
        return None

    def failed(self, error: dict[str, Any]) -> bytes:
        """Return the last events of a stream that an error ends."""
        return event(json.dumps(error)) + event("[DONE]")


class _Choice:
    """One answer while it is sampled."""

    def __init__(self, request: Completions, ids: tuple[int, ...], index: int, params: SamplingParams) -> None:
        self._request = request
        self._ids = ids
        self._index = index
        self._params = params
        self._encoding = request.served.model.encoding
        self._texts: list[str] = []
        self._length = 0
        self._tokens: list[Token] = []
        self._offsets: list[int] = []
        self._count = self._cached = self._seed = 0
        self._finish: str | None = None
        self._reason: int | str | None = None

    def pieces(self, work: Work) -> Iterator[dict[str, Any]]:
        """Sample; yield the pieces of a stream."""
        request, form = self._request, self._request.form
        decoder = TokenText(self._encoding, skip_special=form.skip_special)
        stops = StopStrings(request.stop)
        engine = request.served.model.engine
        generation = engine.generate(
            Request(
                self._ids,
                self._params,
                request.stop_ids,
                request.held.constraint(request.served),
                request.ignore_stop,
            )
        )
        with closing(generation):
            work.on_cancel(generation.cancel)
            self._seed = generation.seed
            for token in generation:
                is_stop = generation.finish_reason == "stop"
                self._count += 1
                if not request.is_streamed:
                    self._tokens.append(token)
                # A stop token is no text, whatever it would read as.
                text = stops.feed("" if is_stop else decoder.feed(token.id))
                if generation.finish_reason is not None and stops.found is None:
                    text += stops.feed(decoder.rest())
                    text += stops.rest() if stops.found is None else ""
                self._finish = _FINISH[generation.finish_reason]
                if is_stop and token.id in request.stop_ids:
                    self._reason = token.id
                if stops.found is not None:
                    self._finish, self._reason = "stop", stops.found
                yield self._piece(text, [token])
                if stops.found is not None:
                    break
            self._cached = generation.cached_tokens or 0
        if self._finish is None:
            self._finish = "abort"  # cancelled; as vLLM calls it

    def whole(self) -> dict[str, Any]:
        """Return the answer when it is over."""
        whole = self._piece("".join(self._texts), self._tokens, self._offsets)
        if self._request.form.token_ids:
            whole["prompt_token_ids"] = list(self._ids)
        return whole

    def usage(self, *, first: bool) -> Usage:
        """Return the tokens; a prompt counts once for all its choices."""
        prompt, cached = (len(self._ids), self._cached) if first else (0, 0)
        return Usage(prompt, cached, self._count, 0)

    def _piece(self, text: str, tokens: Sequence[Token], offsets: Sequence[int] | None = None) -> dict[str, Any]:
        form = self._request.form
        if offsets is None:
            offsets = [self._length] * len(tokens)
            self._length += len(text)
            if not self._request.is_streamed:
                self._offsets += offsets
                self._texts.append(text)
        piece: dict[str, Any] = {
            "index": self._index,
            "text": text,
            "logprobs": self._logprobs(tokens, offsets) if form.logprobs else None,
            "finish_reason": self._finish,
            "stop_reason": self._reason,
        }
        if self._finish is not None:
            piece["seed"] = self._seed
        if form.token_ids:
            piece["token_ids"] = [token.id for token in tokens]
            if self._count == 1:
                piece["prompt_token_ids"] = list(self._ids)
        return piece

    def _logprobs(self, tokens: Sequence[Token], offsets: Sequence[int]) -> dict[str, Any]:
        return {
            "tokens": [self._name(token.id) for token in tokens],
            "token_logprobs": [logprob(token.logprob) for token in tokens],
            "top_logprobs": [
                {
                    self._name(token.id): logprob(token.logprob),
                    **{self._name(other): logprob(value) for other, value in token.top},
                }
                for token in tokens
            ],
            "text_offset": list(offsets),
        }

    def _name(self, token: int) -> str:
        if self._request.form.tokens_as_ids:
            return f"token_id:{token}"
        return token_bytes(token, self._encoding).decode("utf-8", "replace")


_FINISH: dict[str | None, str | None] = {
    None: None,
    "stop": "stop",
    "length": "length",
    "context": "length",
    "cancelled": "abort",
}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _prompts(fields: Fields, most: int) -> tuple[tuple[int, ...] | str, ...]:
    """Return the prompts: a text, token ids, or a list of one of these."""
    value = fields.get("prompt")
    wanted = f"a text, a list of token ids, or a list of at most {most} of these"
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise ApiError(f"prompt must be {wanted}", param="prompt")
    if all(isinstance(each, str) for each in value) and len(value) <= most:
        return tuple(value)
    if all(isinstance(each, list) for each in value) and len(value) <= most:
        return tuple(_ids(each, "prompt") for each in value)
    if isinstance(value[0], int):
        return (_ids(value, "prompt"),)
    raise ApiError(f"prompt must be {wanted}", param="prompt")


def _ids(values: Sequence[Any], name: str) -> tuple[int, ...]:
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in values):
        raise ApiError(f"{name} must have token ids alone", param=name)
    return tuple(values)
