"""The CPU backend: C++ kernels for AVX-512, AVX2 and any other machine, chosen at run time.

Experts in MXFP4 are read from the mapped checkpoint, safetensors or GGUF. Dense layers are used as they are ("bf16",
computed in float32) or packed at load as 8-bit integers with one bfloat16 scale per 32 columns of a row ("int8"), where
the integers of Q8_0 are kept. Products with MXFP4 or 8-bit weights take activations as 16-bit integers with one float32
scale per 32. What the kernels do not cover (other types or layouts of weights, head sizes that are no multiple of 16)
falls back to the reference backend; for weights a warning says so. Not differentiable.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.errors import DeviceError, quote

# After torch, so that both use the same OpenMP library.
from gptoss.model.kernels import _cpu
from gptoss.model.ops.options import Dense
from gptoss.model.ops.reference import ReferenceOps, activation_bytes
from gptoss.model.storage.expert_pager import ExpertPager
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.tensors.int8_panels import is_packed_from_q8_0, pack_q8_0
from gptoss.model.tensors.joined_mxfp4 import JoinedMxfp4
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear, QuantizedLinear, Weights

log = logging.getLogger(__name__)

HEAD_DIM_STEP = 16
"""The attention kernel takes head sizes that are a multiple of this."""


@dataclass(frozen=True)
class BoundLinear(Linear):
    """A dense layer whose weights the kernels can read; `kernel` refers to their memory and keeps it alive."""

    kernel: _cpu.Dense | None = None


@dataclass(frozen=True)
class BoundExperts(Experts):
    """Experts whose weights the kernels can read; `kernel` refers to their memory and keeps it alive."""

    kernel: _cpu.Experts | None = None


class CpuOps(ReferenceOps):
    """The kernels; see :class:`gptoss.model.ops.interface.Ops` for shapes.

    The level, the number of threads and the counts belong to the instance; instances do not affect each other. Two
    things are shared all the same: the fallbacks are plain torch and run on torch's global number of threads, and the
    C library is set to keep up to 256 MB of freed memory for the whole process.

    Args:
        dense: form of the dense layers.
        isa: instruction-set level of the kernels; by default the machine's best.
        threads: threads that the kernels run on, whichever thread calls them; by default torch's number now.
        pager: reads the chosen experts, for a model that does not fit into memory.

    Raises:
        DeviceError: this machine does not run that level.
    """

    name = "cpu"

    def __init__(
        self,
        dense: Dense | None = None,
        isa: str | None = None,
        threads: int | None = None,
        pager: ExpertPager | None = None,
    ) -> None:
        self.dense: Dense = dense or "int8"
        self._pager = pager
        levels = _cpu.isas()
        if isa is not None and isa not in levels:
            raise DeviceError(f"this machine has no instruction set {quote(isa)}: choose one of {', '.join(levels)}")
        self._kernels = _cpu.Kernels(isa or levels[0], torch.get_num_threads() if threads is None else threads)
        _cpu.keep_freed_memory()
        log.info("cpu kernels: %s, dense layers in %s, %d threads", self.isa, self.dense, self.threads)

    @property
    def isa(self) -> str:
        """Instruction-set level of the kernels."""
        return self._kernels.isa

    @property
    def threads(self) -> int:
        """Threads that the kernels run on."""
        return self._kernels.threads

    @property
    def description(self) -> str:
        """The level, and the form of the dense layers."""
        return f"{self.name} ({self.isa}, dense layers in {self.dense})"

    @property
    def identity(self) -> str:
        """The level, the form of the dense layers, and the build of the kernels.

        Not the number of threads: results are bit for bit the same for any.
        """
        built = Path(_cpu.__file__).stat()
        return f"{super().identity}, {self.isa}, {self.dense}, built {built.st_size} {built.st_mtime_ns}"

    def made_bytes(self, config: ModelConfig) -> int:
        """Return the 8-bit layers, if `dense` asks for them."""
        return int8_bytes(config) if self.dense == "int8" else 0

    def working_bytes(self, config: ModelConfig, tokens: int, context: int) -> int:  # noqa: ARG002 - as the interface
        """Activations; the scores of attention stay in the caches."""
        return activation_bytes(config, tokens)

    def bytes_read(self, layer: Linear) -> int:
        """Return bytes of the form that the kernels read."""
        if not isinstance(layer, BoundLinear) or layer.kernel is None:
            return super().bytes_read(layer)
        return layer.kernel.bytes

    def read_once(self, data: Tensor) -> int:
        """Return a loop of the vector loads that the kernels use, on the kernels' threads."""
        return self._kernels.read_once(data.reshape(-1).view(torch.uint8))

    def counts(self) -> dict[str, int]:
        """Return calls by "level.operation"; of the experts, one for each expert in each call."""
        return self._kernels.counts()

    def prepare(self, weights: Weights, made: MadeWeights | None = None) -> Weights:
        """Bind every matrix that the kernels can read; the others stay as they are."""
        if weights.embedding.device.type != "cpu":
            raise DeviceError(f"the backend {self.name!r} runs on the CPU, but the weights are on another device")
        dense = [weights.unembedding, *(x for layer in weights.layers for x in (layer.q, layer.k, layer.v, layer.o))]
        dense = [layer if self.dense == "int8" and _is_q8_0(layer) else _in_bfloat16(layer) for layer in dense]
        bound = _bind_int8(self._kernels, dense, made) if self.dense == "int8" else list(map(_bind_bf16, dense))
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
        """Bind both."""
        return _bind_bf16(_in_bfloat16(router)), _experts(experts)

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        """`x @ weight.T + bias`."""
        return self.linears(x, (layer,))[0]

    def linears(self, x: Tensor, layers: Sequence[Linear]) -> list[Tensor]:
        """Return all layers in one parallel region, so that the threads are woken once."""
        kernels = [layer.kernel for layer in layers if _is_bound(layer) and layer.kernel is not None]
        if len(kernels) < len(layers):
            return [self.linear(x, each) if _is_bound(each) else super(CpuOps, self).linear(x, each) for each in layers]
        x = _floats(x)
        outs = [x.new_empty(*x.shape[:-1], layer.weight.shape[0]) for layer in layers]
        tokens = x.numel() // x.shape[-1]
        if tokens:
            self._kernels.dense_forward(kernels, x.data_ptr(), tokens, [out.data_ptr() for out in outs])
        for layer, out in zip(layers, outs, strict=True):
            if layer.low_rank is not None:
                out += layer.low_rank.product(x)
        return outs

    def rms_norm(self, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """`x / sqrt(mean(x^2) + eps) * scale`."""
        x, scale = _floats(x), _floats(scale)
        out, columns = torch.empty_like(x), x.shape[-1]
        self._kernels.rms_norm(x.data_ptr(), scale.data_ptr(), x.numel() // columns, columns, eps, out.data_ptr())
        return out

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate the first half of each head against its second half."""
        x, cos, sin = _floats(x), _floats(cos), _floats(sin)
        out = torch.empty_like(x)
        *lead, tokens, heads, head_dim = x.shape
        for part, to in zip(x.flatten(0, -4), out.flatten(0, -4), strict=True) if lead else [(x, out)]:
            addresses = part.data_ptr(), cos.data_ptr(), sin.data_ptr()
            self._kernels.rope(*addresses, tokens, heads, head_dim // 2, to.data_ptr())
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
        """Blocks of keys with a running softmax; one call per sequence of the batch."""
        *lead, tokens, heads, head_dim = q.shape
        keys, kv_heads = k.shape[-3:-1]
        if head_dim % HEAD_DIM_STEP or not tokens:
            return super().attention(q, k, v, sinks, window)
        q, sinks, k, v = _floats(q), _floats(sinks), _stored(k), _stored(v)
        if k.dtype != v.dtype:
            k, v = _floats(k), _floats(v)
        out = torch.empty_like(q)
        if not lead:
            parts = [(q, k, v, out)]
        else:
            parts = list(zip(*(t.reshape(-1, *t.shape[-3:]) for t in (q, k, v, out)), strict=True))
        for pq, pk, pv, to in parts:
            self._kernels.attention(
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
            )
        return out

    def moe(self, x: Tensor, router: Linear, experts: Experts, top_k: int, alpha: float, limit: float) -> Tensor:
        """Return tokens grouped by expert; for many tokens the weights are unpacked once and used by all."""
        if not isinstance(experts, BoundExperts) or experts.kernel is None:
            return super().moe(x, router, experts, top_k, alpha, limit)
        x = _floats(x)
        logits, out = self.linear(x, router), torch.empty_like(x)
        tokens = x.numel() // x.shape[-1]
        # Not for a prompt, whose many experts are read in file order while others are computed.
        if self._pager is not None and tokens <= _cpu.GEMV_TOKENS:
            self._pager.read(experts, logits.topk(top_k).indices.flatten().tolist())
        if tokens:
            addresses = x.data_ptr(), logits.data_ptr()
            self._kernels.experts_forward(experts.kernel, *addresses, tokens, top_k, alpha, limit, out.data_ptr())
        return out


def int8_bytes(config: ModelConfig) -> int:
    """Return bytes of all dense layers but the routers, packed in eight bits."""
    hidden, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    size = _cpu.int8_bytes
    attention = size(heads, hidden) + 2 * size(kv, hidden) + size(hidden, heads)
    return config.num_layers * attention + size(config.vocab_size, hidden)


def _in_bfloat16(layer: Linear) -> Linear:
    """Return a layer with weights that the kernels can read, if they have the same values in bfloat16."""
    if isinstance(layer, QuantizedLinear):
        return Linear(layer.blocks.dequantize(torch.bfloat16), layer.bias, low_rank=layer.low_rank)
    weight = layer.weight
    if weight.dtype in (torch.float32, torch.float16):
        # GGUF files have the routers in float32, and other layers in float16, of models that were made in bfloat16.
        narrow = weight.to(torch.bfloat16)
        if torch.equal(narrow.to(weight.dtype), weight):
            return Linear(narrow, layer.bias, low_rank=layer.low_rank)
    return layer


def _is_known(layer: Linear) -> bool:
    """Whether the kernels can read the layer: contiguous bfloat16; a warning if not."""
    weight = layer.weight
    if weight.dtype == torch.bfloat16 and weight.is_contiguous() and _is_vector(layer.bias):
        return True
    log.warning("a dense layer in %s takes the slow path", weight.dtype)
    return False


def _bind_int8(kernels: _cpu.Kernels, layers: Sequence[Linear], made: MadeWeights | None) -> list[Linear]:
    """Bind the layers in eight bits, packed into `made` one after the other unless an earlier run has filled it.

    Layers that the kernels cannot read are returned as they are.
    """
    known = [layer for layer in layers if _is_q8_0(layer) or _is_known(layer)]
    sizes = [_cpu.int8_bytes(*_shape(layer)) for layer in known]
    if made is None or made.data.numel() != sum(sizes):
        made = MadeWeights(sum(sizes))
    if made.is_filled and not all(map(partial(_is_packed_from, kernels), known, made.parts(sizes))):
        made.discard()
    parts = made.parts(sizes)
    if not made.is_filled:
        for layer, packed in zip(known, parts, strict=True):
            if isinstance(layer, QuantizedLinear):
                pack_q8_0(layer.blocks, packed)
            else:
                kernels.pack_int8(layer.weight, packed)
        made.is_filled = True
    bound = {id(layer): _bind_packed(layer, packed) for layer, packed in zip(known, parts, strict=True)}
    return [bound.get(id(layer), layer) for layer in layers]


def _is_bound(layer: Linear) -> TypeGuard[BoundLinear]:
    return isinstance(layer, BoundLinear) and layer.kernel is not None


def _is_packed_from(kernels: _cpu.Kernels, layer: Linear, packed: Tensor) -> bool:
    if isinstance(layer, QuantizedLinear):
        return is_packed_from_q8_0(layer.blocks, packed)
    return kernels.is_packed_from(layer.weight, packed)


def _is_q8_0(layer: Linear) -> bool:
    """Whether the integers of a layer can be used as they are."""
    return isinstance(layer, QuantizedLinear) and layer.kind == "Q8_0" and _is_vector(layer.bias)


def _shape(layer: Linear) -> tuple[int, int]:
    rows, columns = layer.blocks.shape if isinstance(layer, QuantizedLinear) else layer.weight.shape
    return rows, columns


def _bind_packed(layer: Linear, packed: Tensor) -> Linear:
    rows, columns = _shape(layer)
    kernel = _cpu.dense_int8(packed, rows, columns, layer.bias)
    return BoundLinear(layer.weight, layer.bias, kernel, low_rank=layer.low_rank)


def _bind_bf16(layer: Linear) -> Linear:
    if not _is_known(layer):
        return layer
    kernel = _cpu.dense_bf16(layer.weight, layer.bias)
    return BoundLinear(layer.weight, layer.bias, kernel, low_rank=layer.low_rank)


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
        # Never in eight bits: small differences decide which experts are chosen, and the router is small.
        router=_bind_bf16(_in_bfloat16(layer.router)),
        experts=_experts(layer.experts),
    )


def _experts(experts: Experts) -> Experts:
    up, down = experts.gate_up, experts.down
    biases = experts.gate_up_bias, experts.down_bias
    if isinstance(up, JoinedMxfp4) and isinstance(down, JoinedMxfp4):
        arrays = [*up.parts, *down.parts]
    elif isinstance(up, Mxfp4Tensor) and isinstance(down, Mxfp4Tensor):
        arrays = [up.blocks, up.scales, down.blocks, down.scales]
    else:
        log.warning("experts that are not packed in MXFP4 take the slow path")
        return experts
    if not (all(array.is_contiguous() for array in arrays) and all(map(_is_vector, biases))):
        log.warning("experts that are not contiguous in memory take the slow path")
        return experts
    if isinstance(up, JoinedMxfp4) and isinstance(down, JoinedMxfp4):
        kernel = _cpu.joined_experts(list(up.parts), up.halves, biases[0], list(down.parts), down.halves, biases[1])
    else:
        kernel = _cpu.experts(arrays[0], arrays[1], biases[0], arrays[2], arrays[3], biases[1])
    gate_up_low_rank, down_low_rank = experts.gate_up_low_rank, experts.down_low_rank
    if gate_up_low_rank is not None:
        kernel.adapt_gate_up(gate_up_low_rank.down, gate_up_low_rank.up)
    if down_low_rank is not None:
        kernel.adapt_down(down_low_rank.down, down_low_rank.up)
    return BoundExperts(**{field.name: getattr(experts, field.name) for field in fields(Experts)}, kernel=kernel)


def _all_bound(weights: Weights) -> bool:
    """Whether nothing falls back to the reference backend."""
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
    """Keys or values (..., keys, kv_heads, head_dim) in bfloat16 or float32, with the last dimension contiguous."""
    if x.dtype not in (torch.bfloat16, torch.float32):
        x = x.float()
    return x if x.stride(-1) == 1 else x.contiguous()
