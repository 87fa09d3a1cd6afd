"""The reference backend: plain torch in float32, on any device, differentiable, as exact as float32.

Weights stay in the checkpoint's types. They are converted to float32 when used, a piece at a time, so that there is
never a second copy of a large matrix. The number of threads is torch's own, which is one for the whole process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.storage.made_weights import MadeWeights
from gptoss.model.tensors.weights import ExpertMatrix, Experts, Linear, QuantizedLinear, Weights

# Elements of a matrix that are converted to float32 at a time (64 MB): bounds the memory of the unembedding.
_WIDENED_ELEMENTS = 1 << 24
# Attention scores that are computed at a time (256 MB): bounds the memory of a long prefill.
_SCORE_ELEMENTS = 1 << 26


class ReferenceOps:
    """Plain torch; see :class:`gptoss.model.ops.interface.Ops` for shapes."""

    name = "reference"
    identical_tokens = 1

    @property
    def threads(self) -> int:
        """Torch's number, of the whole process."""
        return torch.get_num_threads()

    @property
    def description(self) -> str:
        """Plain torch."""
        return f"{self.name} (plain torch, weights as they are)"

    def made_bytes(self, config: ModelConfig) -> int:  # noqa: ARG002 - as the interface
        """No packed copies."""
        return 0

    def working_bytes(self, config: ModelConfig, tokens: int, context: int) -> int:
        """Activations, a piece of a matrix or an expert in float32, and scores: as they are, with sinks, softmaxed."""
        expert = 2 * 2 * config.intermediate_size * config.hidden_size
        piece = min(_WIDENED_ELEMENTS, config.vocab_size * config.hidden_size)
        scores = min(_SCORE_ELEMENTS, config.num_attention_heads * tokens * context)
        return activation_bytes(config, tokens) + 4 * (3 * scores + max(piece, expert))

    def bytes_read(self, layer: Linear) -> int:
        """Return all of the matrix."""
        return int(layer.weight.nbytes)

    def read_once(self, data: Tensor) -> int:
        """Torch's sum; reading its value waits for the device."""
        words, rest = split_words(data)
        return (int(words.sum()) + rest) % (1 << 64)

    def counts(self) -> dict[str, int]:
        """No compiled kernels."""
        return {}

    @property
    def identity(self) -> str:
        """The backend and torch's version."""
        return f"{self.name}, torch {torch.__version__}"

    def prepare(self, weights: Weights, made: MadeWeights | None = None) -> Weights:  # noqa: ARG002 - as the interface
        """Return the weights as they are."""
        return weights

    def bind_moe(self, router: Linear, experts: Experts) -> tuple[Linear, Experts]:
        """Prepare a router and its experts for `moe`, when another backend computes the rest of the model."""
        return router, experts

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        """`x @ weight.T + bias`."""
        if isinstance(layer, QuantizedLinear):
            out = _quantized_matmul(x, layer)
        else:
            out = _matmul(x, layer.weight, layer.bias)
        return out if layer.low_rank is None else out + layer.low_rank.product(x)

    def linears(self, x: Tensor, layers: Sequence[Linear]) -> list[Tensor]:
        """Return one after the other."""
        return [self.linear(x, layer) for layer in layers]

    def rms_norm(self, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """`x / sqrt(mean(x^2) + eps) * scale`."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * scale.float()

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate the first half of each head against its second half."""
        first, second = x.chunk(2, dim=-1)
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None) -> Tensor:
        """Blocks of queries, each against the keys that it sees."""
        tokens, heads, keys = q.shape[-3], q.shape[-2], k.shape[-3]
        start = keys - tokens
        block = max(1, _SCORE_ELEMENTS // (heads * keys * max(1, q[..., 0, 0, 0].numel())))
        outputs = []
        for begin in range(0, tokens, block):
            end = min(begin + block, tokens)
            first = 0 if window is None else max(0, start + begin - window + 1)
            seen = slice(first, start + end)
            query_position = torch.arange(start + begin, start + end, device=q.device)
            outputs.append(
                _attend(
                    q[..., begin:end, :, :],
                    k[..., seen, :, :],
                    v[..., seen, :, :],
                    sinks,
                    window,
                    query_position,
                    first,
                )
            )
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-3)

    def moe(self, x: Tensor, router: Linear, experts: Experts, top_k: int, alpha: float, limit: float) -> Tensor:
        """Return one expert after the other, on the tokens that chose it."""
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        chosen_logits, chosen = torch.topk(self.linear(x, router), top_k, dim=-1)
        share = torch.softmax(chosen_logits, dim=-1)
        out = torch.zeros_like(x)
        for expert in torch.unique(chosen).tolist():
            token, slot = torch.where(chosen == expert)
            h = _matmul(x[token], _expert_matrix(experts.gate_up, expert), experts.gate_up_bias[expert])
            if experts.gate_up_low_rank is not None:
                h = h + experts.gate_up_low_rank[expert].product(x[token])
            h = swiglu(h, alpha, limit)
            y = _matmul(h, _expert_matrix(experts.down, expert), experts.down_bias[expert])
            if experts.down_low_rank is not None:
                y = y + experts.down_low_rank[expert].product(h)
            out = out.index_add(0, token, y * share[token, slot, None])
        return out.reshape(shape)


def split_words(data: Tensor) -> tuple[Tensor, int]:
    """Return the whole 64-bit words of contiguous data as an int64 view, and the zero-padded rest as a number."""
    flat = data.reshape(-1).view(torch.uint8)
    end = flat.numel() // 8 * 8
    rest = bytes(flat[end:].tolist()).ljust(8, b"\0")
    return flat[:end].view(torch.int64), int.from_bytes(rest, sys.byteorder)


def activation_bytes(config: ModelConfig, tokens: int) -> int:
    """Bytes of the float32 activations of `tokens`: residual stream, attention, and the chosen experts of each."""
    attention = (2 * config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    sent = max(layer.experts_per_token for layer in config.layers)
    experts = sent * (3 * config.intermediate_size + 2 * config.hidden_size)
    return 4 * (tokens * (4 * config.hidden_size + attention + experts) + 4 * config.vocab_size)


def swiglu(x: Tensor, alpha: float, limit: float) -> Tensor:
    """Compute the clamped SwiGLU (model card 2.3), gate and up interleaved: (..., 2 * width) -> (..., width)."""
    gate, up = x[..., 0::2], x[..., 1::2]
    gate = gate.clamp(max=limit)
    up = up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def _matmul(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.float()
    if weight.dtype == torch.float32 or weight.numel() <= _WIDENED_ELEMENTS:
        return F.linear(x, weight.float(), bias)
    rows = max(1, _WIDENED_ELEMENTS // weight.shape[1])
    out = torch.cat([F.linear(x, piece.float()) for piece in torch.split(weight, rows)], dim=-1)
    return out if bias is None else out + bias


def _quantized_matmul(x: Tensor, layer: QuantizedLinear) -> Tensor:
    matrix = layer.blocks
    rows = max(1, _WIDENED_ELEMENTS // matrix.shape[1])
    pieces = [matrix[begin : begin + rows] for begin in range(0, matrix.shape[0], rows)]
    out = torch.cat([F.linear(x, piece.dequantize()) for piece in pieces], dim=-1)
    return out if layer.bias is None else out + layer.bias.float()


def _expert_matrix(matrix: ExpertMatrix, expert: int) -> Tensor:
    chosen = matrix[expert]
    return chosen if isinstance(chosen, Tensor) else chosen.dequantize()


def _attend(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int | None, query_position: Tensor, first_key: int
) -> Tensor:
    *lead, tokens, heads, head_dim = q.shape
    keys, kv_heads = k.shape[-3], k.shape[-2]
    grouped = q.reshape(*lead, tokens, kv_heads, heads // kv_heads, head_dim)
    scores = torch.einsum("...tgqd,...sgd->...gqts", grouped, k.float()) * head_dim**-0.5
    distance = query_position[:, None] - torch.arange(first_key, first_key + keys, device=q.device)
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    scores = scores.masked_fill(hidden, float("-inf"))
    sink = sinks.float().reshape(kv_heads, heads // kv_heads, 1, 1).expand(*scores.shape[:-1], 1)
    weights = torch.softmax(torch.cat((scores, sink), dim=-1), dim=-1)[..., :-1]
    out = torch.einsum("...gqts,...sgd->...tgqd", weights, v.float())
    return out.reshape(*lead, tokens, heads, head_dim)
