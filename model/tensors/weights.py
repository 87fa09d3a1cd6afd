"""The weights of a model: plain read-only tensors in the checkpoint's own types."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from gptoss.model.tensors.blocks import Blocks
from gptoss.model.tensors.joined_mxfp4 import JoinedMxfp4
from gptoss.model.tensors.low_rank import LowRank
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor

# (experts, out, in), packed or plain.
ExpertMatrix = Mxfp4Tensor | JoinedMxfp4 | Tensor


@dataclass(frozen=True)
class Linear:
    """A matrix (out, in) and its bias (out,), if it has one; `low_rank` is what adapters add."""

    weight: Tensor
    bias: Tensor | None = None
    low_rank: LowRank | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class QuantizedLinear(Linear):
    """A matrix in a quantised type of GGUF: `weight` has the raw bytes, (out, blocks, bytes of a block)."""

    kind: str = ""

    @classmethod
    def of(cls, matrix: Blocks, bias: Tensor | None = None) -> QuantizedLinear:
        """Make one of a matrix in blocks and a bias."""
        return cls(matrix.data, bias, matrix.kind)

    @property
    def blocks(self) -> Blocks:
        """The matrix."""
        return Blocks(self.kind, self.weight)


@dataclass(frozen=True)
class Experts:
    """The experts of one layer.

    `gate_up` (experts, 2 * width, hidden) with even rows gate and odd rows up, `down` (experts, hidden, width); biases
    (experts, 2 * width) and (experts, hidden). What adapters add is in float32.
    """

    gate_up: ExpertMatrix
    gate_up_bias: Tensor
    down: ExpertMatrix
    down_bias: Tensor
    gate_up_low_rank: LowRank | None = field(default=None, kw_only=True)
    down_low_rank: LowRank | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class HostExperts(Experts):
    """Experts that stay in host memory while the rest of the model is on a device.

    The device's backend adds them and their router in the form of the host's backend.
    """

    bound: Experts | None = None
    router: Linear | None = None


@dataclass(frozen=True)
class LayerWeights:
    """One layer: attention, then the mixture of experts, each behind its norm (hidden,); `sinks` (heads,)."""

    attention_norm: Tensor
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    sinks: Tensor
    mlp_norm: Tensor
    router: Linear
    experts: Experts


@dataclass(frozen=True)
class Weights:
    """A whole model: `embedding` (vocabulary, hidden), the layers, `norm` (hidden,), `unembedding`."""

    embedding: Tensor | Blocks
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    unembedding: Linear
