"""The interface of a backend: what it computes, on tensors of which shapes.

Shapes are written with `...` for leading dimensions: one sequence has none, a batch of equally long sequences has
one. Activations are float32; weights have the checkpoint's own types (bfloat16, float32, MXFP4) and stay so in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.tensors.cache import CacheSlot
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear, Weights

if TYPE_CHECKING:
    from gptoss.model.ops.graphs import Recorder

Dense = Literal["int8", "bf16"]
"""How the dense layers and the unembedding are kept: in eight bits, made at load, or as the checkpoint has them."""


class Ops(Protocol):
    """One way to compute the operations of the model."""

    name: str
    identical_tokens: int
    """Up to so many tokens computed together have, to the bit, the logits that each would have alone."""

    @property
    def description(self) -> str:
        """How it computes, for people: the kernels, and how dense layers are kept."""
        ...

    def made_bytes(self, config: ModelConfig) -> int:
        """Bytes that `prepare` makes of a model's dense weights, beside those that it is given."""
        ...

    def working_bytes(self, config: ModelConfig, tokens: int, context: int) -> int:
        """Bytes that computing `tokens` at a time takes beside weights and cache, near the end of a context."""
        ...

    def bytes_read(self, layer: Linear) -> int:
        """Bytes of weights that using a prepared dense layer once reads."""
        ...

    def read_once(self, data: Tensor) -> None:
        """Read every byte of `data` once, as fast as a plain loop can; it has been read when this returns."""
        ...

    def counts(self) -> dict[str, int]:
        """Calls of compiled kernels so far, by name; empty where there are none."""
        ...

    @property
    def identity(self) -> str:
        """What decides, beside the weights, how results are rounded."""
        ...

    def prepare(self, weights: Weights, made: MadeWeights | None = None) -> Weights:
        """The weights as this backend wants them; what its operations are given comes from here.

        Args:
            weights: of all of the model, as the checkpoint has them.
            made: memory for what is made of them, `made_bytes` of it; without, the backend takes its own.

        Raises:
            DeviceError: they lie where this backend does not compute.
        """
        ...

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        """`x @ weight.T + bias`: (..., in) -> (..., out)."""
        ...

    def linears(self, x: Tensor, layers: Sequence[Linear]) -> list[Tensor]:
        """`linear` of one input by each of several layers."""
        ...

    def rms_norm(self, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """Root-mean-square norm (Zhang and Sennrich 2019) over the last dimension: (..., n), (n,) -> (..., n)."""
        ...

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate pairs (i, i + head_dim / 2): (..., tokens, heads, head_dim), (tokens, head_dim / 2) -> as x."""
        ...

    def attention(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
        """Causal grouped-query attention with one learned sink logit a head (Xiao et al. 2023; gpt-oss card 2.2).

        Args:
            q: (..., tokens, heads, head_dim), the queries of the *last* `tokens` of the `keys` positions.
            k: (..., keys, kv_heads, head_dim), any floating dtype; heads is a multiple of kv_heads.
            v: as k.
            sinks: (heads,)
            window: how many positions a query sees, its own included; None for all.

        Returns:
            (..., tokens, heads, head_dim) float32.
        """
        ...

    def moe(self, x: Tensor, router: Linear, experts: Experts, top_k: int, alpha: float, limit: float) -> Tensor:
        """The mixture of experts: each token through its `top_k` experts, weighted by the softmax of their logits.

        Args:
            x: (..., hidden)
            router: (experts, hidden) and (experts,)
            experts: their two matrices; gate and up rows are interleaved, even rows gate.
            top_k: experts a token.
            alpha: slope of the sigmoid in the SwiGLU.
            limit: clamp of the SwiGLU's inputs.
        """
        ...


@dataclass(frozen=True)
class Drawing:
    """The buffers of one step's sampling, on the device.

    Attributes:
        settings: float64, (5,): the draw, temperature, natural log of min-p, top-k (0: all), top-p.
        mask: int32, a bit for each token that may come, lowest bit first.
        result: float64, (3,): the token, its log probability, what is wrong (0: nothing, 1: the logits are no numbers,
            2: none is allowed).
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
    """A backend that can decode one token without waiting for the host: token, position and sampling in buffers."""

    recorder: Recorder
    is_whole: bool
    """Whether all of the model prepared last can be decoded so."""
    prefill_chunk: int
    """Tokens of a prompt that are best computed at a time."""

    def decode_layer(
        self,
        x: Tensor,
        index: int,
        config: ModelConfig,
        weights: LayerWeights,
        angles: tuple[Tensor, Tensor],
        slot: CacheSlot,
    ) -> Tensor:
        """Layer `index` on the residual stream (1, hidden) of one token, whose keys and values go to their slot."""
        ...

    def prepare_layer(self, layer: LayerWeights) -> LayerWeights:
        """A layer as `prepare` leaves it, for one who has no room for both forms of all layers."""
        ...

    def draw(self, drawing: Drawing, logits: Tensor, *, filtered: bool) -> None:
        """Sample from `logits` (vocabulary,) into the drawing's result; with top-k and top-p only where `filtered`."""
        ...
