"""The gpt-oss transformer (OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", 2025), read top down.

Token ids in, logits out. Knows nothing of text, sampling or conversations, nor how its operations are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gptoss.model.architecture.decode import DecodeStep
from gptoss.model.architecture.layers import layer_forward
from gptoss.model.architecture.rope import RotaryEmbedding
from gptoss.model.config import ModelConfig
from gptoss.model.ops import Ops, StepOps, select_ops
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.tensors.blocks import look_up
from gptoss.model.tensors.cache import CacheSlot, KVCache
from gptoss.model.tensors.weights import Weights

Logits = Literal["all", "last", "none"]


class Transformer:
    """A function of its configuration and weights; the only state between calls is the cache that a caller passes.

    Attributes:
        made: what the backend made of the weights, where it may be kept for other runs.
    """

    def __init__(
        self, config: ModelConfig, weights: Weights, ops: Ops | None = None, made: MadeWeights | None = None
    ) -> None:
        self.config = config
        self.device = weights.embedding.device
        self.ops = ops or select_ops(self.device)
        self.weights = self.ops.prepare(weights, made)
        self.made = made
        self._rope = RotaryEmbedding(config.head_dim, config.rope, self.device)
        self._step_ops = self.ops if isinstance(self.ops, StepOps) else None
        self._steps: WeakKeyDictionary[KVCache, DecodeStep] = WeakKeyDictionary()

    def __call__(
        self,
        token_ids: Sequence[int] | Tensor,
        cache: KVCache | None = None,
        logits: Logits = "all",
        layer_done: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Logits of the token after each position.

        Args:
            token_ids: (tokens,); without a cache also (batch, tokens), equally long and unpadded.
            cache: holds the positions before `token_ids` and takes theirs.
            logits: of "all" positions, of the "last" alone, or of "none".
            layer_done: called after each layer with how many are done.

        Returns:
            float32, (..., tokens, vocabulary), (..., 1, vocabulary) or (..., 0, vocabulary).

        Raises:
            ContextFullError: the cache cannot hold them.
        """
        if isinstance(token_ids, Sequence) and len(token_ids) == 1 and cache is not None:
            step = self.step(cache)
            if step is not None:
                return self._by_step(step, token_ids[0], logits, layer_done)
        ids = torch.as_tensor(token_ids, dtype=torch.long, device=self.device)
        angles = self._rope(0 if cache is None else cache.length, ids.shape[-1])
        x = self._layers(ids, angles, cache, layer_done)
        if cache is not None:
            cache.advance(ids.shape[-1])
        if logits != "all":
            x = x[..., -1:, :] if logits == "last" else x[..., :0, :]
        return self._head(x)

    def step(self, cache: KVCache) -> DecodeStep | None:
        """Return the step that appends one token to this cache on the device alone, made once for each cache.

        None: the backend, or these weights, cannot be decoded so.
        """
        ops = self._step_ops
        if ops is None or not ops.is_whole:
            return None
        step = self._steps.get(cache)
        if step is None:
            step = self._steps[cache] = DecodeStep.on(self._decode, ops, cache, self.config.vocab_size, self.device)
        return step

    def _by_step(
        self, step: DecodeStep, token_id: int, logits: Logits, layer_done: Callable[[int], None] | None
    ) -> Tensor:
        if logits == "none":
            step.append(token_id)
            out = torch.empty(0, self.config.vocab_size, device=self.device)
        else:
            out = step.logits(token_id).unsqueeze(0)
        if layer_done is not None:
            layer_done(self.config.num_layers)
        return out

    def _decode(self, token: Tensor, slot: CacheSlot, wants_logits: bool) -> Tensor:
        x = self._layers(token, self._rope.at(slot.position), slot)
        return self._head(x) if wants_logits else x

    def _layers(
        self,
        ids: Tensor,
        angles: tuple[Tensor, Tensor],
        cache: KVCache | CacheSlot | None,
        layer_done: Callable[[int], None] | None = None,
    ) -> Tensor:
        x = look_up(self.weights.embedding, ids)
        for index, layer in enumerate(self.weights.layers):
            x = layer_forward(x, index, self.config, layer, angles, cache, self.ops)
            if layer_done is not None:
                layer_done(index + 1)
        return x

    def _head(self, x: Tensor) -> Tensor:
        x = self.ops.rms_norm(x, self.weights.norm, self.config.rms_norm_eps)
        return self.ops.linear(x, self.weights.unembedding)

    def new_cache(self, max_length: int | None = None, dtype: torch.dtype = torch.bfloat16) -> KVCache:
        """Return an empty cache for this model, by default for as many positions as the model was made for."""
        return KVCache(self.config, max_length or self.config.max_context_length, self.device, dtype)
