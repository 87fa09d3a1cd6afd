"""vLLM's `/v1/completions` with token ids in and out; gptoss's own server speaks it too.

Source of the fields: vLLM 0.32, `vllm/entrypoints/openai/completion/protocol.py`, and its recorded answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss.model.errors import ModelNotFoundError, quote
from gptoss.model.interface import SamplingParams, Token
from gptoss.model.remote.transport import RemoteError, Transport

PATH = "/v1/completions"
MAX_TOP_LOGPROBS = 20
_ID_PREFIX = "token_id:"
_MAX_MODELS = 1000


@dataclass(frozen=True)
class ServedModel:
    """A model on a server.

    Attributes:
        name: as the server knows it.
        max_context: tokens of prompt and answer together.
        server: which program serves it, in the server's own word.
    """

    name: str
    max_context: int
    server: str


@dataclass(frozen=True)
class Call:
    """One request to sample.

    Attributes:
        ids: the prompt.
        params: how to sample; its seed is given.
        max_tokens: the most tokens.
        stop: tokens that end the completion.
        ignore_stop: go on at the model's own stop tokens.
        grammar: in llguidance's Lark; None: none.
        allowed: the only tokens allowed; None: any.
        forbidden: tokens that are not to come.
    """

    ids: tuple[int, ...] = field(repr=False)
    params: SamplingParams
    max_tokens: int
    stop: frozenset[int] = frozenset()
    ignore_stop: bool = False
    grammar: str | None = None
    allowed: tuple[int, ...] | None = None
    forbidden: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chunk:
    """What one event of a stream brings.

    Attributes:
        tokens: the next tokens.
        finish_reason: the server's word for the end; None: it goes on.
        cached_tokens: prompt tokens that were not computed again; None: not reported by this event.
    """

    tokens: tuple[Token, ...] = ()
    finish_reason: str | None = None
    cached_tokens: int | None = None


def find_model(transport: Transport, name: str | None) -> ServedModel:
    """Return the model of a server: the one of this name, else its only one.

    Raises:
        ModelNotFoundError: there is no such model, or several and none is named.
        RemoteError: the server cannot be reached, or is no server of models.
    """
    listed = transport.get("/v1/models")
    origin = transport.address.origin
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list) or len(entries) > _MAX_MODELS:
        raise RemoteError(f"{origin} lists no models: is it a server of models?")
    models = {entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)}
    names = ", ".join(quote(each) for each in list(models)[:10])
    if name is None:
        if len(models) != 1:
            raise ModelNotFoundError(f"{origin} serves {names or 'no model'}: name one, as in {origin}#MODEL")
        (name,) = models
    elif name not in models:
        raise ModelNotFoundError(f"{origin} has no model {quote(name)}; it serves {names or 'none'}")
    entry = models[name]
    length = entry.get("max_model_len")
    if not isinstance(length, int) or isinstance(length, bool) or length < 2:
        raise RemoteError(
            f"{origin} does not say how many tokens {quote(name)} holds (max_model_len): only vLLM and gptoss serve "
            "give token ids in this form"
        )
    return ServedModel(name, length, str(entry.get("owned_by", ""))[:40])


def body(model: str, call: Call) -> dict[str, Any]:
    """Return the request's JSON."""
    params = call.params
    fields: dict[str, Any] = {
        "model": model,
        "prompt": list(call.ids),
        "max_tokens": call.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k or 0,
        "min_p": params.min_p,
        "seed": params.seed,
        "stop_token_ids": sorted(call.stop),
        "ignore_eos": call.ignore_stop,
        "logprobs": params.top_logprobs,
        "stream": True,
        "stream_options": {"include_usage": True},
        "add_special_tokens": False,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }
    if call.grammar is not None:
        fields["structured_outputs"] = {"grammar": call.grammar}
    if call.allowed is not None:
        fields["allowed_token_ids"] = list(call.allowed)
    if call.forbidden:
        fields["logit_bias"] = {str(token): -100 for token in sorted(call.forbidden)}
    return fields


def parse_event(event: Mapping[str, Any], vocab_size: int, top: int) -> Chunk:
    """Return what an event brings.

    Args:
        event: the JSON object.
        vocab_size: ids from here on are refused.
        top: how many of the likeliest tokens were asked for.

    Raises:
        RemoteError: it has another form, or an id outside the vocabulary.
    """
    usage = event.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    cached = cached if _is_id(cached) else None
    choices = event.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise RemoteError("the server sent an event without choices")
    if not choices:
        return Chunk(cached_tokens=cached)
    choice = choices[0]
    ids = choice.get("token_ids")
    if ids is None and not choice.get("text"):
        ids = []
    if not isinstance(ids, list):
        raise RemoteError("the server gives text without token ids: it must know `return_token_ids` (vLLM 0.10.2)")
    if not all(_is_id(token) and token < vocab_size for token in ids):
        raise RemoteError(f"the server sent token ids outside of {vocab_size:,}: another model?")
    reason = choice.get("finish_reason")
    told = _logprobs(choice.get("logprobs"), ids, top)
    return Chunk(told, reason if isinstance(reason, str) else None, cached)


def _logprobs(found: Any, ids: list[int], top: int) -> tuple[Token, ...]:
    """Return the tokens with their log probabilities; NaN where the server gives none."""
    values = found.get("token_logprobs") if isinstance(found, dict) else None
    tops = found.get("top_logprobs") if isinstance(found, dict) else None
    if not isinstance(values, list) or len(values) != len(ids):
        return tuple(Token(token, math.nan) for token in ids)
    if not isinstance(tops, list) or len(tops) != len(ids):
        tops = [None] * len(ids)
    return tuple(
        Token(token, _number(value), _top(each, top)) for token, value, each in zip(ids, values, tops, strict=True)
    )


def _top(found: Any, top: int) -> tuple[tuple[int, float], ...]:
    if not isinstance(found, dict) or not top:
        return ()
    pairs = [
        (int(name.removeprefix(_ID_PREFIX)), _number(value))
        for name, value in found.items()
        if name.startswith(_ID_PREFIX) and name.removeprefix(_ID_PREFIX).isdecimal() and len(name) < 20
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:top])


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
