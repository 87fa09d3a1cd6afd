"""The gpt-oss transformer (OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", 2025), read top down.

Token ids in, logits out. Knows nothing of text, sampling or conversations, nor how its operations are computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from gptoss.model.cache import KVCache
from gptoss.model.checkpoint import Checkpoint
from gptoss.model.config import ModelConfig
from gptoss.model.layers import layer_forward
from gptoss.model.ops import Ops, select_ops
from gptoss.model.quantize import PackingReport, Progress, Quantization, load_weights
from gptoss.model.read_ahead import ReadAhead, Reading
from gptoss.model.rope import RotaryEmbedding
from gptoss.model.weights import Weights

Logits = Literal["all", "last", "none"]


class Transformer:
    """A function of its configuration and weights; the only state between calls is the cache that a caller passes.

    Attributes:
        packing: what packing the experts did, where `from_checkpoint` was asked for it and there was something to pack.
    """

    packing: PackingReport | None = None

    def __init__(self, config: ModelConfig, weights: Weights, ops: Ops | None = None) -> None:
        self.config = config
        self.device = weights.embedding.device
        self.ops = ops or select_ops(device=self.device)
        self.weights = self.ops.prepare(weights)
        self._rope = RotaryEmbedding(config.head_dim, config.rope, self.device)

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        device: torch.device | str = "cpu",
        backend: str | Ops | None = None,
        *,
        quantize: Quantization | None = None,
        progress: Progress | None = None,
        reading: Reading | None = None,
    ) -> Self:
        """Load the checkpoint in a folder, in any published layout.

        Args:
            path: the folder.
            device: where to compute.
            backend: how to compute, by name or made already; by default as `select_ops` chooses.
            quantize: "mxfp4" packs experts that are not packed in the checkpoint; None leaves them as they are.
            progress: called with the part of the packing that is done, up to 1.
            reading: reads the mapped files into memory, all of them, and is called with the bytes that are there, and
                those in all; None leaves each page until it is needed, as a model larger than the memory must.

        Raises:
            CheckpointError: it is missing, broken or not of this architecture, or its experts cannot be packed.
        """
        ops = select_ops(backend, device)
        checkpoint = Checkpoint.open(Path(path))
        with contextlib.ExitStack() as stack:
            if reading is not None:
                stack.enter_context(ReadAhead(checkpoint.stored_bytes(), reading))
            weights, packing = load_weights(checkpoint, device, quantize, progress)
            transformer = cls(checkpoint.config, weights, ops)
        transformer.packing = packing
        return transformer

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
        ids = torch.as_tensor(token_ids, dtype=torch.long, device=self.device)
        x = F.embedding(ids, self.weights.embedding).float()
        angles = self._rope(0 if cache is None else cache.length, ids.shape[-1])
        for index, layer in enumerate(self.weights.layers):
            x = layer_forward(x, index, self.config, layer, angles, cache, self.ops)
            if layer_done is not None:
                layer_done(index + 1)
        if cache is not None:
            cache.advance(ids.shape[-1])
        if logits != "all":
            x = x[..., -1:, :] if logits == "last" else x[..., :0, :]
        x = self.ops.rms_norm(x, self.weights.norm, self.config.rms_norm_eps)
        return self.ops.linear(x, self.weights.unembedding)

    def new_cache(self, max_length: int | None = None, dtype: torch.dtype = torch.bfloat16) -> KVCache:
        """An empty cache for this model, by default for as many positions as the model was made for."""
        return KVCache(self.config, max_length or self.config.max_context_length, self.device, dtype)
