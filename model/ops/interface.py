"""The interface of a backend: the operations, and the shapes and types of their arguments.

Shapes are written with `...` for leading dimensions: none for one sequence, one for a batch of equally long sequences.
Activations are float32. Weights are passed as `Ops.prepare` returned them: in the checkpoint's own types (bfloat16,
float32, MXFP4) or packed by the backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.tensors.cache import CacheSlot
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear, Weights

if TYPE_CHECKING:
    from gptoss.model.ops.graphs import Recorder


class Ops(Protocol):
    """A backend: the operations of the model, and the facts about them that callers need.

    An instance computes one model at a time: `prepare` sets the attributes that depend on it. Instances share no
    state; several, with different options, can be used in one process.
    """

    name: str
    identical_tokens: int
    """Up to this many tokens computed together have bit for bit the logits that each has when computed alone."""

    @property
    def threads(self) -> int:
        """CPU threads that the kernels run on."""
        ...

    @property
    def description(self) -> str:
        """One line for people: the kernels, and the form of the dense layers."""
        ...

    @property
    def identity(self) -> str:
        """Everything but the weights that affects numerics; part of the prefix-cache key."""
        ...

    def made_bytes(self, config: ModelConfig) -> int:
        """Return bytes that `prepare` allocates for packed copies of the dense weights."""
        ...

    def working_bytes(self, config: ModelConfig, tokens: int, context: int) -> int:
        """Peak bytes beside weights and cache for a chunk of `tokens` at the end of `context` positions."""
        ...

    def bytes_read(self, layer: Linear) -> int:
        """Return bytes of weights that one use of a prepared dense layer reads."""
        ...

    def read_once(self, data: Tensor) -> int:
        """Read every byte of `data`, contiguous, once, as fast as a plain loop can: the bandwidth to compare with.

        Returns:
            The sum of the data as 64-bit words in the machine's byte order, the last word padded with zero bytes,
            modulo 2^64. It depends on every byte, so nothing can be skipped; all has been read when this returns.
        """
        ...

    def counts(self) -> dict[str, int]:
        """Return the calls of compiled kernels by this instance so far, by name; empty if it has none."""
        ...

    def prepare(self, weights: Weights, made: MadeWeights | None = None) -> Weights:
        """Convert the weights of a model to the form that this backend's operations take.

        Args:
            weights: the whole model, as in the checkpoint.
            made: memory of `made_bytes` for packed copies, perhaps filled by an earlier run; by default the backend
                allocates its own.

        Raises:
            DeviceError: the weights are on a device where this backend does not compute.
        """
        ...

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        """`x @ weight.T + bias`: x (..., in), weight (out, in), bias (out,) -> (..., out)."""
        ...

    def linears(self, x: Tensor, layers: Sequence[Linear]) -> list[Tensor]:
        """`linear` of the same input by each of several layers."""
        ...

    def rms_norm(self, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """`x / sqrt(mean(x^2) + eps) * scale` (Zhang and Sennrich 2019): x (..., n), scale (n,) -> (..., n)."""
        ...

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate the pairs (i, i + head_dim / 2) of each head by the angle of its position.

        Args:
            x: (..., tokens, heads, head_dim)
            cos: (tokens, head_dim / 2)
            sin: (tokens, head_dim / 2)

        Returns:
            As x.
        """
        ...

    def attention(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
        """Causal grouped-query attention with one learned sink logit a head (Xiao et al. 2023; gpt-oss card 2.2).

        Args:
            q: (..., tokens, heads, head_dim), the queries of the *last* `tokens` of the `keys` positions.
            k: (..., keys, kv_heads, head_dim), any floating dtype; heads is a multiple of kv_heads.
            v: as k.
            sinks: (heads,); each is the logit of an extra key whose value is zero.
            window: number of positions that a query sees, its own included; None for all.

        Returns:
            (..., tokens, heads, head_dim) float32.
        """
        ...

    def moe(self, x: Tensor, router: Linear, experts: Experts, top_k: int, alpha: float, limit: float) -> Tensor:
        """Mixture of experts: each token through its `top_k` experts, weighted by the softmax of their logits.

        Args:
            x: (..., hidden)
            router: weight (experts, hidden), bias (experts,)
            experts: gate_up (experts, 2 * width, hidden), even rows gate, odd rows up; down (experts, hidden, width).
            top_k: experts per token.
            alpha: slope of the sigmoid in the SwiGLU.
            limit: the gate is clamped to at most this, up to between minus and plus this.

        Returns:
            (..., hidden)
        """
        ...


@dataclass(frozen=True)
class Drawing:
    """Buffers for sampling one token on the device.

    Attributes:
        settings: float64, (5,): the random draw in [0, 1), temperature, natural log of min-p, top-k (0: off), top-p.
        mask: int32, (ceil(vocabulary / 32),): bit t % 32 of word t // 32 is set if token t is allowed.
        result: float64, (3,): the token id, its log probability before temperature and cuts, and an error code (0: no
            error, 1: the largest logit is infinite or not a number, 2: no token is allowed).
    """

    settings: Tensor
    mask: Tensor
    result: Tensor

    @classmethod
    def on(cls, device: torch.device, vocabulary: int) -> Drawing:
        """Buffers that allow every token."""
        mask = torch.full((-(-vocabulary // 32),), -1, dtype=torch.int32, device=device)
        settings = torch.tensor([0.0, 0.0, float("-inf"), 0.0, 1.0], dtype=torch.float64, device=device)
        return cls(settings, mask, torch.zeros(3, dtype=torch.float64, device=device))


@runtime_checkable
class StepOps(Ops, Protocol):
    """A backend that can decode one token without waiting for the host: token, position and sampling are in buffers."""

    recorder: Recorder
    is_whole: bool
    """Whether every layer of the model prepared last can be decoded in this way."""
    prefill_chunk: int
    """Prompt tokens to compute at a time."""

    def decode_layer(
        self,
        x: Tensor,
        index: int,
        config: ModelConfig,
        weights: LayerWeights,
        angles: tuple[Tensor, Tensor],
        slot: CacheSlot,
    ) -> Tensor:
        """Return one layer for one token whose position only the device knows.

        Args:
            x: (1, hidden), the residual stream.
            index: of the layer.
            config: of the model.
            weights: of the layer, prepared.
            angles: cosines and sines of the token's position, (1, head_dim / 2) each.
            slot: the cache, and the position in it where keys and values are stored.

        Returns:
            (1, hidden), the residual stream after the layer.
        """
        ...

    def prepare_layer(self, layer: LayerWeights) -> LayerWeights:
        """Convert one layer as `prepare` does; for loading layer by layer, when both forms of all would not fit."""
        ...

    def draw(self, drawing: Drawing, logits: Tensor, *, filtered: bool) -> None:
        """Sample from `logits` (vocabulary,) into `drawing.result`; top-k and top-p are applied only if `filtered`."""
        ...
