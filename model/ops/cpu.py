"""The CPU backend: C++ kernels for AVX-512, AVX2 and any other machine, chosen at run time.

Experts in MXFP4 are read where the checkpoint is mapped. Dense layers are kept as they are ("bf16", computed in
float32) or in eight bits with one scale for 32 weights ("int8", made at load); activations that meet MXFP4 or
eight-bit weights are 16-bit integers with one scale for 32. What the kernels do not cover (other types or layouts
of weights, odd head sizes) goes through the reference backend, and a warning says so. Not differentiable.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.errors import DeviceError, quote

# After torch, whose OpenMP pool it shares.
from gptoss.model.kernels import _cpu
from gptoss.model.ops.interface import Dense
from gptoss.model.ops.reference import ReferenceOps, activation_bytes
from gptoss.model.storage.expert_pager import ExpertPager
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear, Weights

log = logging.getLogger(__name__)

ISA_VARIABLE = "GPTOSS_CPU_ISA"
DENSE_VARIABLE = "GPTOSS_CPU_DENSE"
HEAD_DIM_STEP = 16
"""The kernels take heads of a multiple of this many dimensions."""


@dataclass(frozen=True)
class BoundLinear(Linear):
    """A dense layer whose weights the kernels know."""

    kernel: _cpu.Dense | None = None


@dataclass(frozen=True)
class BoundExperts(Experts):
    """Experts whose weights the kernels know."""

    kernel: _cpu.Experts | None = None


class CpuOps(ReferenceOps):
    """The kernels; see :class:`gptoss.model.ops.interface.Ops` for shapes.

    Args:
        dense: how dense layers are kept; by default as the variable GPTOSS_CPU_DENSE says, else "int8".
        isa: the level of the kernels; by default as the variable GPTOSS_CPU_ISA says, else the best of the machine.
        pager: reads the experts that tokens have chosen; for a model that does not fit into memory.

    Raises:
        DeviceError: the machine does not run that level, or there is no such way to keep dense layers.
    """

    name = "cpu"

    def __init__(self, dense: Dense | None = None, isa: str | None = None, pager: ExpertPager | None = None) -> None:
        self._pager = pager
        chosen = dense or os.environ.get(DENSE_VARIABLE) or "int8"
        if chosen not in get_args(Dense):
            raise DeviceError(f"{DENSE_VARIABLE} is {quote(chosen)}: choose one of {', '.join(get_args(Dense))}")
        self.dense = chosen
        isa = isa or os.environ.get(ISA_VARIABLE) or _cpu.isas()[0]
        try:
            _cpu.use_isa(isa)
        except ValueError:
            raise DeviceError(f"this machine has no {quote(isa)}: set {ISA_VARIABLE} to {_names()}") from None
        _cpu.keep_freed_memory()
        log.info("cpu kernels: %s, dense layers in %s, %d threads", isa, chosen, torch.get_num_threads())

    @property
    def description(self) -> str:
        """The level of the kernels and how dense layers are kept."""
        return f"{self.name} ({_cpu.isa()}, dense layers in {self.dense})"

    @property
    def identity(self) -> str:
        """The level, the dense layers' form, and the build of the kernels."""
        built = Path(_cpu.__file__).stat()
        return f"{super().identity}, {_cpu.isa()}, {self.dense}, built {built.st_size} {built.st_mtime_ns}"

    def made_bytes(self, config: ModelConfig) -> int:
        """The eight-bit layers, where they are wanted."""
        return int8_bytes(config) if self.dense == "int8" else 0

    def working_bytes(self, config: ModelConfig, tokens: int, context: int) -> int:  # noqa: ARG002 - as the interface
        """Activations; scores are never held."""
        return activation_bytes(config, tokens)

    def bytes_read(self, layer: Linear) -> int:
        """What the kernel has of it."""
        if not isinstance(layer, BoundLinear) or layer.kernel is None:
            return super().bytes_read(layer)
        return layer.kernel.bytes

    def read_once(self, data: Tensor) -> None:
        """A loop of the same vector loads that the kernels make."""
        _cpu.read_once(data.reshape(-1).view(torch.uint8), torch.get_num_threads())

    def counts(self) -> dict[str, int]:
        """By level and operation."""
        return _cpu.counts()

    def prepare(self, weights: Weights, made: MadeWeights | None = None) -> Weights:
        """Bind every matrix to its kernel; those without one stay as they are."""
        if weights.embedding.device.type != "cpu":
            raise DeviceError(f"the backend {self.name!r} runs on the CPU, but the weights are on another device")
        dense = [weights.unembedding, *(x for layer in weights.layers for x in (layer.q, layer.k, layer.v, layer.o))]
        bound = _bind_int8(dense, made) if self.dense == "int8" else list(map(_bind_bf16, dense))
        unembedding, *projections = bound
        prepared = replace(
            weights,
            layers=tuple(
                _layer(layer, projections[4 * index : 4 * index + 4]) for index, layer in enumerate(weights.layers)
            ),
            norm=weights.norm.float(),
            unembedding=unembedding,
        )
        self.identical_tokens = _cpu.GEMV_TOKENS if _all_bound(prepared) else 1
        return prepared

    def bind_moe(self, router: Linear, experts: Experts) -> tuple[Linear, Experts]:
        """Bind both to their kernels."""
        return _bind_bf16(router), _experts(experts)

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        """`x @ weight.T + bias`."""
        return self.linears(x, (layer,))[0]

    def linears(self, x: Tensor, layers: Sequence[Linear]) -> list[Tensor]:
        """All in one go of the threads."""
        kernels = [layer.kernel for layer in layers if isinstance(layer, BoundLinear) and layer.kernel is not None]
        if len(kernels) < len(layers):
            return [super(CpuOps, self).linear(x, layer) for layer in layers]
        x = _floats(x)
        outs = [x.new_empty(*x.shape[:-1], layer.weight.shape[0]) for layer in layers]
        tokens = x.numel() // x.shape[-1]
        if tokens:
            addresses = [out.data_ptr() for out in outs]
            _cpu.dense_forward(kernels, x.data_ptr(), tokens, addresses, torch.get_num_threads())
        return outs

    def rms_norm(self, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """`x / sqrt(mean(x^2) + eps) * scale`."""
        x, scale = _floats(x), _floats(scale)
        out, columns, threads = torch.empty_like(x), x.shape[-1], torch.get_num_threads()
        _cpu.rms_norm(x.data_ptr(), scale.data_ptr(), x.numel() // columns, columns, eps, out.data_ptr(), threads)
        return out

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate the first half of each head against its second half."""
        x, cos, sin = _floats(x), _floats(cos), _floats(sin)
        out, threads = torch.empty_like(x), torch.get_num_threads()
        *lead, tokens, heads, head_dim = x.shape
        for part, to in zip(x.flatten(0, -4), out.flatten(0, -4), strict=True) if lead else [(x, out)]:
            addresses = part.data_ptr(), cos.data_ptr(), sin.data_ptr()
            _cpu.rope(*addresses, tokens, heads, head_dim // 2, to.data_ptr(), threads)
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
        """Blocks of keys with a running softmax."""
        *lead, tokens, heads, head_dim = q.shape
        keys, kv_heads = k.shape[-3:-1]
        if head_dim % HEAD_DIM_STEP or not tokens:
            return super().attention(q, k, v, sinks, window)
        q, sinks, k, v = _floats(q), _floats(sinks), _stored(k), _stored(v)
        if k.dtype != v.dtype:
            k, v = _floats(k), _floats(v)
        out, threads = torch.empty_like(q), torch.get_num_threads()
        if not lead:
            parts = [(q, k, v, out)]
        else:
            parts = list(zip(*(t.reshape(-1, *t.shape[-3:]) for t in (q, k, v, out)), strict=True))
        for pq, pk, pv, to in parts:
            _cpu.attention(
                pq.data_ptr(),
                *(pk.data_ptr(), pk.stride(0), pk.stride(1)),
                *(pv.data_ptr(), pv.stride(0), pv.stride(1)),
                k.dtype == torch.bfloat16,
                sinks.data_ptr(),
                tokens,
                keys,
                kv_heads,
                heads // kv_heads,
                head_dim,
                window or 0,
                to.data_ptr(),
                threads,
            )
        return out

    def moe(self, x: Tensor, router: Linear, experts: Experts, top_k: int, alpha: float, limit: float) -> Tensor:
        """Tokens grouped by expert; few read each row once, many meet it unpacked."""
        if not isinstance(experts, BoundExperts) or experts.kernel is None:
            return super().moe(x, router, experts, top_k, alpha, limit)
        x = _floats(x)
        logits, out = self.linear(x, router), torch.empty_like(x)
        tokens = x.numel() // x.shape[-1]
        # The many experts of a prompt are read while others are computed, and in the order in which they lie.
        if self._pager is not None and tokens <= _cpu.GEMV_TOKENS:
            self._pager.read(experts, logits.topk(top_k).indices.flatten().tolist())
        if tokens:
            threads = torch.get_num_threads()
            addresses = x.data_ptr(), logits.data_ptr()
            experts.kernel.forward(*addresses, tokens, top_k, alpha, limit, out.data_ptr(), threads)
        return out


def int8_bytes(config: ModelConfig) -> int:
    """Bytes of all dense layers but the routers in eight bits."""
    hidden, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    size = _cpu.int8_bytes
    attention = size(heads, hidden) + 2 * size(kv, hidden) + size(hidden, heads)
    return config.num_layers * attention + size(config.vocab_size, hidden)


def _is_known(layer: Linear) -> bool:
    """Whether the kernels take such a matrix."""
    weight = layer.weight
    if weight.dtype == torch.bfloat16 and weight.is_contiguous() and _is_vector(layer.bias):
        return True
    log.warning("a dense layer in %s takes the slow path", weight.dtype)
    return False


def _bind_int8(layers: Sequence[Linear], made: MadeWeights | None) -> list[Linear]:
    """Each as the kernels read it in eight bits, packed into `made` unless that is there already."""
    known = [layer for layer in layers if _is_known(layer)]
    sizes = [_cpu.int8_bytes(*layer.weight.shape) for layer in known]
    if made is None or made.data.numel() != sum(sizes):
        made = MadeWeights(sum(sizes))
    if made.is_filled and not all(map(_is_packed_from, known, made.parts(sizes))):
        made.discard()
    parts = made.parts(sizes)
    if not made.is_filled:
        for layer, packed in zip(known, parts, strict=True):
            _cpu.pack_int8(layer.weight, packed, torch.get_num_threads())
        made.is_filled = True
    bound = {id(layer): _bind_packed(layer, packed) for layer, packed in zip(known, parts, strict=True)}
    return [bound.get(id(layer), layer) for layer in layers]


def _is_packed_from(layer: Linear, packed: Tensor) -> bool:
    return _cpu.is_packed_from(layer.weight, packed)


def _bind_packed(layer: Linear, packed: Tensor) -> Linear:
    rows, columns = layer.weight.shape
    return BoundLinear(layer.weight, layer.bias, _cpu.dense_int8(packed, rows, columns, layer.bias))


def _bind_bf16(layer: Linear) -> Linear:
    if not _is_known(layer):
        return layer
    return BoundLinear(layer.weight, layer.bias, _cpu.dense_bf16(layer.weight, layer.bias))


def _layer(layer: LayerWeights, projections: Sequence[Linear]) -> LayerWeights:
    q, k, v, o = projections
    return replace(
        layer,
        attention_norm=layer.attention_norm.float(),
        mlp_norm=layer.mlp_norm.float(),
        sinks=layer.sinks.float(),
        q=q,
        k=k,
        v=v,
        o=o,
        # A choice of experts turns on small differences, and the router weighs little.
        router=_bind_bf16(layer.router),
        experts=_experts(layer.experts),
    )


def _experts(experts: Experts) -> Experts:
    up, down = experts.gate_up, experts.down
    if not (isinstance(up, Mxfp4Tensor) and isinstance(down, Mxfp4Tensor)):
        log.warning("experts that are not packed in MXFP4 take the slow path")
        return experts
    arrays = up.blocks, up.scales, experts.gate_up_bias, down.blocks, down.scales, experts.down_bias
    plain = all(array.is_contiguous() for array in arrays)
    if not (plain and _is_vector(experts.gate_up_bias) and _is_vector(experts.down_bias)):
        log.warning("experts that are not contiguous in memory take the slow path")
        return experts
    own = {field.name: getattr(experts, field.name) for field in fields(Experts)}
    return BoundExperts(**own, kernel=_cpu.experts(*arrays))


def _all_bound(weights: Weights) -> bool:
    """Whether nothing takes the slow path."""
    layers = weights.layers
    linears = [
        weights.unembedding,
        *(x for layer in layers for x in (layer.q, layer.k, layer.v, layer.o, layer.router)),
    ]
    return (
        all(isinstance(linear, BoundLinear) for linear in linears)
        and all(isinstance(layer.experts, BoundExperts) for layer in layers)
        and all(layer.q.weight.shape[0] // layer.sinks.numel() % HEAD_DIM_STEP == 0 for layer in layers)
    )


def _is_vector(bias: Tensor | None) -> bool:
    return bias is None or (bias.dtype in (torch.bfloat16, torch.float32) and bias.is_contiguous())


def _floats(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 and x.is_contiguous() else x.float().contiguous()


def _stored(x: Tensor) -> Tensor:
    """Keys or values as the kernel reads them: bfloat16 or float32, the dimensions of a head together."""
    if x.dtype not in (torch.bfloat16, torch.float32):
        x = x.float()
    return x if x.stride(-1) == 1 else x.contiguous()


def _names() -> str:
    return " or ".join(_cpu.isas())
