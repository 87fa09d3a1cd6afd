"""The GPU backend: Triton kernels for NVIDIA cards of compute capability 8.0 and later.

Experts in MXFP4 stay packed and are unpacked in the kernels. Dense layers are used as they are ("bf16") or packed at
load as 8-bit integers with one bfloat16 scale per 32 columns of a row ("int8"). For few tokens everything is computed
in float32; for many, activations are rounded to bfloat16 and multiplied on tensor cores. Experts in host memory are
computed there, by another backend. Experts that are not packed fall back to the reference backend, and a warning says
so. Not differentiable.
"""

from __future__ import annotations

import logging
from dataclasses import fields, replace

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.kernels.triton import bandwidth, dense, experts as expert_kernels
from gptoss.model.kernels.triton.launch import Launcher
from gptoss.model.ops.gpu_attention import attend_many, attend_one
from gptoss.model.ops.gpu_device import require_device
from gptoss.model.ops.gpu_experts import few_tokens, many_tokens
from gptoss.model.ops.gpu_sampling import draw
from gptoss.model.ops.gpu_tiles import Tiles, cdiv, power_of_two
from gptoss.model.ops.gpu_weights import (
    EightBitLinear,
    FusedLayer,
    int8_bytes,
    joined,
    pack_rows,
    packed_experts,
    parts,
    scales_of,
    unpacked,
)
from gptoss.model.ops.graphs import Recorder, recorder
from gptoss.model.ops.interface import Drawing
from gptoss.model.ops.options import Dense
from gptoss.model.ops.reference import ReferenceOps, split_words
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.tensors.cache import CacheSlot
from gptoss.model.tensors.mxfp4 import BLOCK_SIZE
from gptoss.model.tensors.weights import Experts, HostExperts, LayerWeights, Linear, Weights

log = logging.getLogger(__name__)

FEW_TOKENS = 4
"""Up to this many tokens, each reads a dense layer for itself; more go through a matrix product."""
FEW_TOKENS_TO_EXPERTS = 8
"""Up to this many tokens, each reads its experts for itself; more are grouped by expert."""
PREFILL_CHUNK = 2048
"""Prompt tokens to compute at a time."""
_READ_WORDS = 1 << 13
"""64-bit words that one program of the read loop reads."""


class GpuOps(ReferenceOps):
    """The kernels; see :class:`gptoss.model.ops.interface.Ops` for shapes.

    Args:
        dense: form of the dense layers.
        tiles: sizes of the programs.
        host: computes the experts that stay in host memory.
        launch: starts the kernels; by default on the card of the tensors, or in Triton's interpreter.
    """

    name = "gpu"
    prefill_chunk = PREFILL_CHUNK

    def __init__(
        self,
        dense: Dense | None = None,
        tiles: Tiles | None = None,
        host: ReferenceOps | None = None,
        launch: Launcher | None = None,
    ) -> None:
        self.dense: Dense = dense or "bf16"
        self.tiles = tiles or Tiles()
        self.host = host or ReferenceOps()
        self._launch = launch or Launcher()
        self.recorder: Recorder = recorder(torch.device("cpu"))
        self.is_whole = True
        self._device = torch.device("cpu")
        self._host_memory: Tensor | None = None

    @property
    def threads(self) -> int:
        """Threads of the backend for experts in host memory."""
        return self.host.threads

    @property
    def description(self) -> str:
        """The card, and the form of the dense layers."""
        where = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "Triton's interpreter"
        return f"{self.name} ({where}, dense layers in {self.dense})"

    @property
    def identity(self) -> str:
        """The card, the form of the dense layers, the versions of torch and triton, and the backend on the host."""
        versions = f"torch {torch.__version__}, triton {triton.__version__}"
        return f"{self.description}, {versions}, on the host {self.host.identity}"

    def prepare(self, weights: Weights, made: MadeWeights | None = None) -> Weights:  # noqa: ARG002 - as the interface
        """Join the projections of each layer, pack dense layers if `dense` asks for it, bind experts in host memory."""
        self._device = weights.embedding.device
        require_device(self._device)
        self.recorder = recorder(self._device)
        layers = tuple(self.prepare_layer(layer) for layer in weights.layers)
        self.is_whole = all(
            isinstance(layer.experts, HostExperts) or packed_experts(layer.experts) is not None for layer in layers
        )
        prepared = replace(
            weights,
            layers=layers,
            norm=weights.norm.float(),
            unembedding=self._linear(weights.unembedding),
        )
        log.info("gpu kernels: %s", self.description)
        return prepared

    def made_bytes(self, config: ModelConfig) -> int:
        """Return the 8-bit layers, if `dense` asks for them."""
        return int8_bytes(config) if self.dense == "int8" else 0

    def working_bytes(self, config: ModelConfig, tokens: int, context: int) -> int:  # noqa: ARG002 - as the interface
        """Activations and logits; the scores of attention stay in registers."""
        sent = max(layer.experts_per_token for layer in config.layers)
        heads = (2 * config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        # In float32 and beside it in bfloat16: the residual stream and its temporaries, attention, a slot per expert.
        each = 24 * config.hidden_size + 6 * heads + sent * (4 * config.hidden_size + 2 * config.intermediate_size)
        return tokens * each + 16 * config.vocab_size

    def bytes_read(self, layer: Linear) -> int:
        """Weights and, in eight bits, scales."""
        scales, has_scales = scales_of(layer)
        return int(layer.weight.nbytes) + (int(scales.nbytes) if has_scales else 0)

    def bytes_a_token(self, weights: Weights, config: ModelConfig) -> int:
        """Return bytes of weights on the device that one token reads: the dense layers and its experts."""
        total = self.bytes_read(weights.unembedding)
        for layer, shape in zip(weights.layers, config.layers, strict=True):
            total += sum(self.bytes_read(part) for part in (layer.q, layer.k, layer.v, layer.o, layer.router))
            if not isinstance(layer.experts, HostExperts):
                held = layer.experts.gate_up.nbytes + layer.experts.down.nbytes
                total += held * shape.experts_per_token // shape.num_experts
        return total

    def read_once(self, data: Tensor) -> int:
        """Return a kernel of plain loads; reading the sum waits for it."""
        words, rest = split_words(data)
        return (int(self.block_sums(words).sum()) + rest) % (1 << 64)

    def block_sums(self, words: Tensor) -> Tensor:
        """Start the read loop on int64 words (count,); the sums of blocks of them, int64 modulo 2^64."""
        sums = torch.empty(cdiv(words.numel(), _READ_WORDS), dtype=torch.int64, device=words.device)
        if words.numel():
            self._launch(bandwidth.read, (sums.numel(),), words, sums, words.numel(), BLOCK=_READ_WORDS, num_warps=8)
        return sums

    def counts(self) -> dict[str, int]:
        """Count the starts of kernels, by name; a recorded graph counts when it is recorded, not when replayed."""
        return self._launch.counts()

    def draw(self, drawing: Drawing, logits: Tensor, *, filtered: bool) -> None:
        """Sample from `logits` (vocabulary,) into `drawing.result`; top-k and top-p are applied only if `filtered`."""
        draw(self._launch, drawing, logits, filtered=filtered)

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        """`x @ weight.T + bias`: for few tokens each reads the rows for itself; for many a matrix product."""
        return self._project(x, layer, None)

    def rms_norm(self, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """`x / sqrt(mean(x^2) + eps) * scale`."""
        x, out, columns = _floats(x), torch.empty(x.shape, device=x.device), x.shape[-1]
        if x.numel():
            block = power_of_two(columns)
            self._launch(
                dense.rms_norm,
                (x.numel() // columns,),
                x,
                scale,
                out,
                eps,
                K=columns,
                BLOCK_K=block,
                num_warps=self.tiles.warps,
            )
        return out

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate the first half of each head against its second half."""
        x, cos, sin = _floats(x), _floats(cos), _floats(sin)
        out = torch.empty_like(x)
        tokens, heads, head_dim = x.shape[-3:]
        block_d = power_of_two(head_dim // 2)
        block_h = min(power_of_two(heads), max(1, 2048 // block_d))
        for part, to in zip(*(t.flatten(0, -4) if x.dim() > 3 else t[None] for t in (x, out)), strict=True):
            if tokens:
                self._launch(
                    dense.rope,
                    (tokens, cdiv(heads, block_h)),
                    part,
                    cos,
                    sin,
                    to,
                    HEADS=heads,
                    HALF=head_dim // 2,
                    BLOCK_H=block_h,
                    BLOCK_D=block_d,
                )
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
        """Tiles of queries against tiles of keys, with a running softmax."""
        return attend_many(self._launch, self.tiles, _floats(q), k, v, sinks, window)

    def moe(self, x: Tensor, router: Linear, experts: Experts, top_k: int, alpha: float, limit: float) -> Tensor:
        """Few tokens each read their own experts; many are grouped by expert."""
        if isinstance(experts, HostExperts):
            return self._moe_on_host(x, experts, top_k, alpha, limit)
        packed = packed_experts(experts)
        if packed is None:
            return super().moe(x, router, experts, top_k, alpha, limit)
        shape = x.shape
        x = _floats(x).reshape(-1, shape[-1])
        # Always in float32: small differences decide which experts are chosen.
        logits = F.linear(x, router.weight.float(), None if router.bias is None else router.bias.float())
        if not x.shape[0]:
            return x.reshape(shape)
        if x.shape[0] <= FEW_TOKENS_TO_EXPERTS:
            # As `norm_router` leaves it: times LIFT, by code.
            lifted = (x * 2.0**63).view(x.shape[0], -1, 8).transpose(1, 2).contiguous()
            ones = torch.ones(x.shape[0], device=x.device)
            out = few_tokens(self._launch, self.tiles, lifted, ones, logits, experts, packed, top_k, alpha, limit, None)
        else:
            out = many_tokens(self._launch, x, logits, experts, packed, top_k, alpha, limit)
        return out.view(shape)

    def decode_layer(
        self,
        x: Tensor,
        index: int,
        config: ModelConfig,
        weights: LayerWeights,
        angles: tuple[Tensor, Tensor],
        slot: CacheSlot,
    ) -> Tensor:
        """Return one layer for one token whose position only the device knows; see :class:`~.interface.StepOps`."""
        window = config.layers[index].sliding_window
        q = self._qkv(x, index, config, weights, angles, slot)
        h = attend_one(self._launch, self.tiles, q, slot.buffers(index), slot.position, weights.sinks, window)
        x = self._project(h, weights.o, x)
        shape, experts = config.layers[index], weights.experts
        top_k, alpha, limit = shape.experts_per_token, config.swiglu_alpha, config.swiglu_limit
        packed = None if isinstance(experts, HostExperts) else packed_experts(experts)
        if packed is None:
            h = self.rms_norm(x, weights.mlp_norm, config.rms_norm_eps)
            return x + self.moe(h, weights.router, experts, top_k, alpha, limit)
        lifted, factors = torch.empty_like(x), x.new_empty(1)
        logits = x.new_empty(1, shape.num_experts)
        router = weights.router
        self._launch(
            expert_kernels.norm_router,
            (cdiv(shape.num_experts, self.tiles.router_rows), 1),
            *(x, weights.mlp_norm, config.rms_norm_eps, router.weight, router.bias),
            *(logits, lifted, factors, shape.num_experts),
            K=x.shape[-1],
            BLOCK_R=self.tiles.router_rows,
            BLOCK_G=self._groups(x.shape[-1]),
            num_warps=self.tiles.warps,
        )
        return few_tokens(self._launch, self.tiles, lifted, factors, logits, experts, packed, top_k, alpha, limit, x)

    def _qkv(
        self,
        x: Tensor,
        index: int,
        config: ModelConfig,
        weights: LayerWeights,
        angles: tuple[Tensor, Tensor],
        slot: CacheSlot,
    ) -> Tensor:
        """Return queries (1, heads, head_dim), rotated; keys and values are stored in their slot of the cache."""
        assert isinstance(weights, FusedLayer)
        assert weights.qkv is not None
        heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        q = x.new_empty(1, heads, head_dim)
        keys, values = slot.buffers(index)
        scales, eight_bits = scales_of(weights.qkv)
        pairs = min(self.tiles.pairs, power_of_two(head_dim // 2))
        self._launch(
            dense.norm_qkv_rope,
            ((heads + 2 * kv_heads) * cdiv(head_dim // 2, pairs),),
            *(x, weights.attention_norm, config.rms_norm_eps, weights.qkv.weight, scales, weights.qkv.bias),
            *(*angles, slot.position, q, keys, values),
            K=x.shape[-1],
            HEADS=heads,
            KV_HEADS=kv_heads,
            HEAD_DIM=head_dim,
            EIGHT_BITS=eight_bits,
            BLOCK_R=pairs,
            BLOCK_G=self._groups(x.shape[-1]),
            num_warps=self.tiles.warps,
        )
        return q

    def _project(self, x: Tensor, layer: Linear, add: Tensor | None) -> Tensor:
        """`linear`, plus `add` (..., out) if there is one."""
        *lead, columns = x.shape
        rows = layer.weight.shape[0]
        x = _floats(x).view(-1, columns)
        tokens = x.shape[0]
        if tokens > FEW_TOKENS:
            out = self._product(x, layer)
            return (out if add is None else out + add.view(tokens, rows)).view(*lead, rows)
        out = x.new_empty(tokens, rows)
        if tokens:
            scales, eight_bits = scales_of(layer)
            block = self.tiles.dense_rows if rows < 1 << 16 else self.tiles.unembedding_rows
            bias = layer.weight if layer.bias is None else layer.bias
            self._launch(
                dense.gemv,
                (cdiv(rows, block), tokens),
                *(x, layer.weight, scales, bias, x if add is None else add, out, rows),
                K=columns,
                EIGHT_BITS=eight_bits,
                HAS_BIAS=layer.bias is not None,
                HAS_ADD=add is not None,
                BLOCK_R=block,
                BLOCK_G=self._groups(columns),
                num_warps=self.tiles.warps,
            )
        return out.view(*lead, rows)

    def _product(self, x: Tensor, layer: Linear) -> Tensor:
        """Return a matrix product by torch's library: x (tokens, in) converted to the weights' type, float32 sums."""
        weight, pieces = layer.weight, []
        # A large matrix a piece at a time: bounds the memory of unpacked weights and of the result in bfloat16.
        for first in range(0, weight.shape[0], 1 << 15):
            rows = slice(first, first + (1 << 15))
            piece = unpacked(self._launch, layer, rows) if isinstance(layer, EightBitLinear) else weight[rows]
            bias = None if layer.bias is None else layer.bias[rows].to(piece.dtype)
            pieces.append(F.linear(x.to(piece.dtype), piece, bias).float())
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)

    def _moe_on_host(self, x: Tensor, experts: HostExperts, top_k: int, alpha: float, limit: float) -> Tensor:
        """Copy activations to the host, compute there, copy the result back; cuts a recording in two."""
        assert experts.router is not None
        assert experts.bound is not None
        router, bound, out = experts.router, experts.bound, torch.empty_like(x)
        there, back = self._host_buffers(x)

        def compute() -> None:
            there.copy_(x, non_blocking=True)
            if x.device.type == "cuda":
                torch.cuda.current_stream(x.device).synchronize()
            back.copy_(self.host.moe(there, router, bound, top_k, alpha, limit))
            out.copy_(back, non_blocking=True)

        self.recorder.on_host(compute)
        return out

    def _host_buffers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two pinned host buffers of the shape of `x`, for activations and results.

        All layers share them. They are never allocated while a step is recorded, because it has run before.
        """
        if self._host_memory is None or self._host_memory.shape[1] < x.numel():
            with torch.inference_mode(False):  # the buffers outlive the caller's mode
                self._host_memory = torch.empty(2, x.numel(), pin_memory=x.device.type == "cuda")
        there, back = (part[: x.numel()].view(x.shape) for part in self._host_memory)
        return there, back

    def _groups(self, columns: int) -> int:
        return min(self.tiles.dense_groups, power_of_two(cdiv(columns, 32)))

    def prepare_layer(self, layer: LayerWeights) -> LayerWeights:
        """Convert one layer as `prepare` does."""
        if isinstance(layer, FusedLayer):
            return layer
        qkv = self._linear(joined(layer.q, layer.k, layer.v))
        q, k, v = parts(qkv, [each.weight.shape[0] for each in (layer.q, layer.k, layer.v)])
        experts = layer.experts
        if isinstance(experts, HostExperts):
            router, bound = self.host.bind_moe(_on_cpu(layer.router), experts)
            experts = replace(experts, bound=bound, router=router)
        elif packed_experts(experts) is None:
            log.warning("experts that are not packed in MXFP4 take the slow path")
        own = {field.name: getattr(layer, field.name) for field in fields(LayerWeights)} | {
            "attention_norm": layer.attention_norm.float(),
            "mlp_norm": layer.mlp_norm.float(),
            "sinks": layer.sinks.float(),
            "q": q,
            "k": k,
            "v": v,
            "o": self._linear(layer.o),
            "experts": experts,
        }
        return FusedLayer(**own, qkv=qkv)

    def _linear(self, layer: Linear) -> Linear:
        weight = layer.weight.contiguous()
        if self.dense != "int8" or weight.shape[1] % BLOCK_SIZE:
            return Linear(weight, layer.bias)
        return EightBitLinear.of(*pack_rows(weight), layer.bias)


def _on_cpu(layer: Linear) -> Linear:
    return Linear(layer.weight.cpu(), None if layer.bias is None else layer.bias.cpu())


def _floats(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 and x.is_contiguous() else x.float().contiguous()
