"""Decode one token as a step that is recorded once and replayed: on a GPU one CUDA graph, sampling included.

Everything that changes from token to token goes through one small buffer: token, position, random number, parameters.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gptoss.model.constraint import LogitMask
from gptoss.model.interface import SamplingParams
from gptoss.model.ops import Drawing, StepOps
from gptoss.model.ops.graphs import Step
from gptoss.model.tensors.cache import CacheSlot, KVCache

Body = Callable[[Tensor, CacheSlot, bool], Tensor]
"""The transformer on one token (1,) in its slot: logits (1, vocabulary), or the input of the last norm."""

# none: keys and values only; logits: of the next token; draw: sample from them; cut: sample with top-k and top-p.
_Kind = Literal["none", "logits", "draw", "cut"]

_INTEGERS = 2
"""Token and position come first in the buffer, then the settings of the sampling."""


@dataclass(frozen=True)
class Drawn:
    """What a device has sampled: a token and its log probability, unless `wrong` is 1 (no numbers) or 2 (none left)."""

    token_id: int
    logprob: float
    wrong: int


@dataclass
class _Recorded:
    """Recorded steps by kind; valid while the cache's buffers stay where they are."""

    moves: int
    steps: dict[_Kind, Step]


class DecodeStep:
    """Appends tokens to one cache. The recordings hold the cache's addresses, so each cache has a step of its own.

    Args:
        body: the transformer.
        ops: its backend.
        cache: takes the tokens' keys and values; referenced weakly, for its owner decides when its memory is freed.
        vocabulary: number of logits.
        device: of the model.
    """

    def __init__(self, body: Body, ops: StepOps, cache: KVCache, vocabulary: int, device: torch.device) -> None:
        self._cache = weakref.ref(cache)
        self._body = body
        self._ops = ops
        is_cuda = device.type == "cuda"
        self.device = device
        self._control = torch.zeros(_INTEGERS + 5, dtype=torch.int64, device=device)
        self._sent = torch.zeros(_INTEGERS + 5, dtype=torch.int64, pin_memory=is_cuda)
        self._integers = self._sent.numpy()[:_INTEGERS]
        self._numbers = self._sent.view(torch.float64).numpy()[_INTEGERS:]
        drawing = Drawing.on(device, vocabulary)
        self._drawing = Drawing(self._control.view(torch.float64)[_INTEGERS:], drawing.mask, drawing.result)
        self._back = torch.zeros(3, dtype=torch.float64, pin_memory=is_cuda)
        self._logits = torch.empty(vocabulary, dtype=torch.float32, device=device)
        self._is_masked = False
        self._recorded = _Recorded(-1, {})

    @classmethod
    def on(cls, body: Body, ops: StepOps, cache: KVCache, vocabulary: int, device: torch.device) -> DecodeStep:
        """Make a step whose buffers can be used outside of inference mode too."""
        with torch.inference_mode(False):
            return cls(body, ops, cache, vocabulary, device)

    @property
    def cache(self) -> KVCache:
        """The cache, which its owner still has."""
        cache = self._cache()
        assert cache is not None
        return cache

    def logits(self, token_id: int) -> Tensor:
        """Append a token and return the logits of the next, (vocabulary,) float32, a copy."""
        self._run("logits", token_id)
        return self._logits.clone()

    def append(self, token_id: int) -> None:
        """Append a token and compute no logits."""
        self._run("none", token_id)

    def draw(self, token_id: int, params: SamplingParams, number: float, mask: LogitMask | None) -> Drawn:
        """Append a token and sample the next one.

        Args:
            token_id: the token to append.
            params: how to sample.
            number: the random number, uniform from 0 to 1.
            mask: the logit mask; None allows every token.
        """
        self._numbers[:] = (
            number,
            params.temperature,
            math.log(params.min_p) if params.min_p > 0 else -math.inf,
            params.top_k or 0,
            params.top_p,
        )
        self._allow(mask)
        cuts = params.temperature > 0 and (params.top_k is not None or params.top_p < 1)
        self._run("cut" if cuts else "draw", token_id)
        chosen, logprob, wrong = self._back.tolist()
        return Drawn(int(chosen), logprob, int(wrong))

    def _allow(self, mask: LogitMask | None) -> None:
        if mask is None and not self._is_masked:
            return
        words = self._drawing.mask
        if mask is None:
            words.fill_(-1)
        else:
            count = min(len(mask.bits), len(words))
            words[:count].copy_(mask.bits[:count])
            words[count:].zero_()
        self._is_masked = mask is not None

    @torch.no_grad()
    def _run(self, kind: _Kind, token_id: int) -> None:
        cache = self.cache
        cache.reserve(cache.length + 1)
        # Growing moves the buffers; a prefill that ended early may have moved those of some layers only.
        if self._recorded.moves != cache.moves:
            self._recorded = _Recorded(cache.moves, {})
        self._integers[:] = token_id, cache.length
        step = self._recorded.steps.get(kind)
        if step is None:
            self._recorded.steps[kind] = self._ops.recorder.record(lambda: self._compute(kind))
        else:
            step()
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        cache.advance(1)

    def _compute(self, kind: _Kind) -> None:
        """Compute the recorded part: nothing in it depends on the host."""
        self._control.copy_(self._sent, non_blocking=True)
        token, position = self._control[:1], self._control[1:2]
        out = self._body(token, CacheSlot(self.cache, position), kind != "none")
        if kind == "none":
            return
        self._logits.copy_(out.flatten())
        if kind != "logits":
            self._ops.draw(self._drawing, self._logits, filtered=kind == "cut")
            self._back.copy_(self._drawing.result, non_blocking=True)
