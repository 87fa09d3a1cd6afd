"""Every Triton kernel in Triton's interpreter, on the CPU, against the reference backend."""

import numpy as np
import pytest
import torch
from calls import new_calls
from random_parts import bf16, generator, normal, outliers, packed, random_experts, relative_error, sum_of_words

from gptoss.model.ops.reference import ReferenceOps
from gptoss.model.tensors.cache import CacheSlot
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import Experts, Linear

pytest.importorskip("triton", reason="Triton runs on Linux")
from gptoss.model.kernels.triton.launch import Launcher
from gptoss.model.ops.gpu import FEW_TOKENS, FEW_TOKENS_TO_EXPERTS, GpuOps
from gptoss.model.ops.gpu_attention import attend_one
from gptoss.model.ops.gpu_tiles import Tiles
from gptoss.model.ops.gpu_weights import EightBitLinear, group_by_expert, pack_rows, unpacked

REFERENCE = ReferenceOps()
ALPHA, LIMIT = 1.702, 7.0
# Few programs, as each takes the interpreter milliseconds; the tiles of a card are tested where their sizes matter.
WIDE = Tiles(dense_rows=32, pairs=8, router_rows=8, expert_rows=32)
# Where activations are rounded to bfloat16, as they are for many tokens.
ROUNDED = 6e-3


@pytest.fixture(autouse=True)
def quiet_interpreter():
    """NumPy computes what a card would, and need not say when that is no number."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def ops():
    return GpuOps(dense="bf16", tiles=WIDE)


def ran(ops: GpuOps, *names: str) -> None:
    """Just these kernels ran since the last look."""
    counts = new_calls(ops)
    assert set(counts) == set(names), counts


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 7), (33, 96), (40, 1000), (20, 2880)])
@pytest.mark.parametrize("tokens", [1, 3, 9])
def test_a_dense_layer(ops, rows, columns, tokens):
    layer, x = Linear(bf16(rows, columns, seed=1), bf16(rows, seed=2)), outliers(tokens, columns)
    error = relative_error(ops.linear(x, layer), REFERENCE.linear(x, layer))
    if tokens <= FEW_TOKENS:
        assert error < 2e-6
        ran(ops, "gemv")
    else:
        assert error < ROUNDED
        ran(ops)  # the library's product of matrices


@pytest.mark.parametrize("columns", [32, 2880])
@pytest.mark.parametrize("tokens", [1, 9])
def test_a_dense_layer_in_eight_bits(ops, columns, tokens):
    layer, x = Linear(bf16(40, columns, seed=1), bf16(40, seed=2)), outliers(tokens, columns)
    bound = EightBitLinear.of(*pack_rows(layer.weight), layer.bias)
    actual = ops.linear(x, bound)
    ran(ops, "gemv" if tokens == 1 else "unpack_8_bits")
    # 127 steps to the largest of 32 weights.
    assert relative_error(actual, REFERENCE.linear(x, layer)) < 0.02
    # And exactly what the packed weights say.
    meant = bound.weight.float().unflatten(1, (-1, 32)) * bound.scales.float()[..., None]
    expected = REFERENCE.linear(x, Linear(meant.flatten(1), layer.bias))
    assert relative_error(actual, expected) < (2e-6 if tokens == 1 else ROUNDED)


def test_eight_bits_hold_what_fits_them_and_zeros():
    integers = torch.randint(-127, 128, (9, 64), generator=generator(3)).float()
    integers[:, ::32] = 127
    powers = 2.0 ** torch.randint(-12, 3, (9, 2), generator=generator(4))
    weight = (integers * powers.repeat_interleave(32, dim=1)).to(torch.bfloat16)
    weight[4] = 0
    layer = EightBitLinear.of(*pack_rows(weight), None)
    assert torch.equal(layer.weight[:4].float(), integers[:4])
    assert relative_error(unpacked(Launcher(), layer, slice(0, 9)).float(), weight.float()) < 2e-3
    assert not unpacked(Launcher(), layer, slice(4, 5)).any()


def test_a_dense_layer_of_another_type_or_shape(ops):
    x = normal(2, 3, 128)[..., ::2]
    for layer in (Linear(normal(40, 64), None), Linear(normal(40, 64).half(), normal(40))):
        assert relative_error(ops.linear(x[:, :1], layer), REFERENCE.linear(x[:, :1], layer)) < 2e-6
        assert relative_error(ops.linear(x, layer), REFERENCE.linear(x, layer)) < ROUNDED
    assert ops.linear(x[:, :0], layer).shape == (2, 0, 40)


@pytest.mark.parametrize(("tokens", "columns"), [(1, 1), (3, 15), (2, 2880)])
def test_rms_norm(ops, tokens, columns):
    x, scale = outliers(tokens, columns), normal(columns, seed=1)
    assert relative_error(ops.rms_norm(x, scale, 1e-5), REFERENCE.rms_norm(x, scale, 1e-5)) < 1e-6
    ran(ops, "rms_norm")


@pytest.mark.parametrize("shape", [(1, 8, 64), (9, 2, 16), (2, 3, 5, 24)])
def test_rope(ops, shape):
    x, angle = normal(*shape), normal(shape[-3], shape[-1] // 2, seed=1)
    cos, sin = angle.cos(), angle.sin()
    assert relative_error(ops.rope(x, cos, sin), REFERENCE.rope(x, cos, sin)) < 1e-6
    ran(ops, "rope")


@pytest.mark.parametrize("window", [None, 1, 7, 128])
@pytest.mark.parametrize(("tokens", "keys"), [(1, 1), (1, 200), (5, 130), (33, 300)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention_of_many(ops, tokens, keys, window, dtype):
    for heads, kv_heads, head_dim in ((4, 2, 16), (8, 1, 64), (6, 2, 80)):
        q = normal(tokens, heads, head_dim)
        k = normal(keys, kv_heads, head_dim, seed=1).to(dtype)
        v = normal(keys, kv_heads, head_dim, seed=2).to(dtype)
        sinks = normal(heads, seed=3)
        expected = REFERENCE.attention(q, k, v, sinks, window)
        limit = ROUNDED if dtype == torch.bfloat16 else 2e-6
        assert relative_error(ops.attention(q, k, v, sinks, window), expected) < limit
        ran(ops, "attend_many")
    # As a cache that keeps each head's positions together hands them out.
    strided = (t.transpose(0, 1).contiguous().transpose(0, 1) for t in (k, v))
    assert relative_error(ops.attention(q, *strided, sinks, window), expected) < limit


def test_attention_over_a_batch(ops):
    q, k, v = normal(2, 5, 4, 16), normal(2, 9, 2, 16, seed=1), normal(2, 9, 2, 16, seed=2)
    sinks = normal(4, seed=3)
    expected = REFERENCE.attention(q, k, v, sinks, 6)
    assert relative_error(ops.attention(q, k, v, sinks, 6), expected) < 2e-6
    assert ops.attention(q[:, :0], k, v, sinks, 6).shape == (2, 0, 4, 16)


def test_attention_with_sinks_and_scores_far_apart(ops):
    q, k, v = normal(4, 8, 16, std=300.0), normal(90, 1, 16, std=3.0, seed=1), normal(90, 1, 16, seed=2)
    sinks = torch.tensor([-1e4, 1e4, 0.0, float("-inf"), 80.0, -80.0, 1.0, 5.0])
    assert relative_error(ops.attention(q, k, v, sinks, None), REFERENCE.attention(q, k, v, sinks, None)) < 2e-5


class _Cache:
    """Buffers that are longer than what is filled, the rest of them poisoned."""

    def __init__(self, k, v, capacity):
        self.keys, self.values = (
            torch.cat([t, torch.full((capacity - t.shape[0], *t.shape[1:]), float("nan"), dtype=t.dtype)])
            for t in (k, v)
        )

    def buffers(self, layer):
        return self.keys, self.values


def one_layer(make_transformer, heads, kv_heads, head_dim, window, hidden=64):
    from dataclasses import replace

    config = make_transformer().config
    layers = tuple(replace(layer, sliding_window=window) for layer in config.layers[:1])
    return replace(
        config,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        layers=layers,
    )


@pytest.mark.parametrize("window", [None, 1, 7, 128])
@pytest.mark.parametrize(("keys", "capacity"), [(1, 256), (63, 256), (300, 400), (700, 4096)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention_of_one_over_a_cache(ops, keys, capacity, window, dtype):
    for heads, kv_heads, head_dim in ((4, 2, 16), (8, 1, 64), (6, 2, 80)):
        q = normal(1, heads, head_dim, std=2.0)
        k = normal(keys, kv_heads, head_dim, seed=1).to(dtype)
        v = normal(keys, kv_heads, head_dim, seed=2).to(dtype)
        sinks = normal(heads, seed=3)
        sinks[0] = float("-inf")
        slot = CacheSlot(_Cache(k, v, capacity), torch.tensor([keys - 1]))
        actual = attend_one(ops._launch, WIDE, q, slot.buffers(0), slot.position, sinks, window)
        expected = REFERENCE.attention(q, k, v, sinks, window)
        assert relative_error(actual, expected.flatten(1)) < 2e-5
        split = min(window or capacity, capacity) > 256
        ran(ops, *(["attend_one", "combine"] if split else ["attend_one"]))
        if head_dim == 64 and keys > 64:
            k[keys - 2] = float("nan")
            poisoned = CacheSlot(_Cache(k, v, capacity), slot.position)
            is_seen = window is None or window > 1
            out = attend_one(ops._launch, WIDE, q, poisoned.buffers(0), slot.position, sinks, window)
            assert out.isnan().all() == is_seen
            new_calls(ops)


@pytest.mark.parametrize(
    ("hidden", "heads", "kv_heads", "head_dim"), [(64, 4, 2, 16), (96, 6, 2, 80), (96, 2, 1, 24), (2880, 2, 1, 16)]
)
@pytest.mark.parametrize("dense", ["bf16", "int8"])
def test_norm_projections_and_rope_of_one(make_transformer, hidden, heads, kv_heads, head_dim, dense):
    from gptoss.model.tensors.cache import KVCache

    ops = GpuOps(dense=dense, tiles=WIDE)
    config = one_layer(make_transformer, heads, kv_heads, head_dim, None, hidden)
    layer = make_transformer().weights.layers[0]
    from dataclasses import replace

    def linear(rows, seed):
        return Linear(bf16(rows, hidden, seed=seed), bf16(rows, seed=seed + 1))

    layer = replace(
        layer,
        attention_norm=normal(hidden, seed=9),
        q=linear(heads * head_dim, 1),
        k=linear(kv_heads * head_dim, 3),
        v=linear(kv_heads * head_dim, 5),
    )
    prepared = ops.prepare_layer(layer)
    x, angle = outliers(1, hidden), normal(1, head_dim // 2, seed=7)
    angles = angle.cos(), angle.sin()
    cache = KVCache(config, 16, dtype=torch.float32)
    cache.reserve(16)
    for buffer in cache.buffers(0):
        buffer.fill_(-5.0)
    new_calls(ops)
    q = ops._qkv(x, 0, config, prepared, angles, CacheSlot(cache, torch.tensor([11])))
    ran(ops, "norm_qkv_rope")
    h = REFERENCE.rms_norm(x, layer.attention_norm, config.rms_norm_eps)

    def expected(own):
        if isinstance(own, EightBitLinear):
            own = Linear(
                (own.weight.float().unflatten(1, (-1, 32)) * own.scales.float()[..., None]).flatten(1), own.bias
            )
        return REFERENCE.linear(h, own).view(1, -1, head_dim)

    keys, values = cache.buffers(0)
    assert relative_error(q, REFERENCE.rope(expected(prepared.q), *angles)) < 2e-6
    assert relative_error(keys[11:12], REFERENCE.rope(expected(prepared.k), *angles)) < 2e-6
    assert relative_error(values[11:12], expected(prepared.v)) < 2e-6
    for buffer in (keys, values):
        assert (buffer[:11] == -5).all()
        assert (buffer[12:] == -5).all()


@pytest.mark.parametrize("tokens", [1, 3, 9, 64])
@pytest.mark.parametrize(("hidden", "width"), [(64, 32), (96, 160)])
def test_the_mixture_of_experts(ops, tokens, hidden, width):
    experts, router = random_experts(8, hidden, width), Linear(bf16(8, hidden, seed=5), bf16(8, seed=6))
    x = normal(tokens, hidden, seed=tokens)
    actual = ops.moe(x, router, experts, 3, ALPHA, LIMIT)
    few = tokens <= FEW_TOKENS_TO_EXPERTS
    ran(ops, *(("experts_up", "experts_down") if few else ("grouped_up", "grouped_down")))
    assert relative_error(actual, REFERENCE.moe(x, router, experts, 3, ALPHA, LIMIT)) < (2e-6 if few else ROUNDED)


@pytest.mark.parametrize("tokens", [1, 20])
def test_the_mixture_at_the_width_of_the_models(tokens):
    """Few rows of it: 2880 is no multiple of any tile."""
    ops = GpuOps(dense="bf16", tiles=Tiles(expert_rows=64))
    for hidden, width in ((2880, 32), (32, 2880)):
        experts, router = random_experts(4, hidden, width), Linear(bf16(4, hidden, std=0.02), bf16(4))
        x = outliers(tokens, hidden)
        expected = REFERENCE.moe(x, router, experts, 2, ALPHA, LIMIT)
        limit = 5e-6 if tokens == 1 else ROUNDED
        assert relative_error(ops.moe(x, router, experts, 2, ALPHA, LIMIT), expected) < limit


def test_the_mixture_with_one_expert_or_all_of_them(ops):
    for count, top_k in ((1, 1), (5, 5), (3, 1)):
        experts, router = random_experts(count, 64, 32), Linear(bf16(count, 64), bf16(count))
        for tokens in (2, 11):
            x = normal(tokens, 64)
            expected = REFERENCE.moe(x, router, experts, top_k, ALPHA, LIMIT)
            assert relative_error(ops.moe(x, router, experts, top_k, ALPHA, LIMIT), expected) < ROUNDED
    assert ops.moe(normal(2, 0, 64), router, experts, 1, ALPHA, LIMIT).shape == (2, 0, 64)


def test_norm_and_router_of_one(make_transformer):
    """The whole second half of a layer: norm, router, experts, and the residual stream."""
    from dataclasses import replace

    reference = make_transformer()
    config = replace(reference.config, layers=reference.config.layers[:1])
    ops = GpuOps(dense="bf16", tiles=WIDE)
    layer = ops.prepare_layer(reference.weights.layers[0])
    cache = reference.new_cache(16, torch.float32)
    cache.reserve(1)
    x, angle = outliers(1, 64), normal(1, 8)
    angles = angle.cos(), angle.sin()
    new_calls(ops)
    actual = ops.decode_layer(x, 0, config, layer, angles, CacheSlot(cache, torch.tensor([0])))
    ran(ops, "norm_qkv_rope", "attend_one", "gemv", "norm_router", "experts_up", "experts_down")
    from gptoss.model.architecture.layers import layer_forward

    expected = layer_forward(x, 0, config, reference.weights.layers[0], angles, None, REFERENCE)
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("tokens", [1, 12])
def test_every_code_and_every_scale(ops, tokens):
    """One row of all codes for each scale that leaves the sums finite, each row held to its own size."""
    scales = torch.arange(240, dtype=torch.uint8)
    codes = torch.arange(16, dtype=torch.uint8)
    blocks = (codes | (codes.flip(0) << 4)).expand(1, 256, 1, 16).contiguous()
    down = Mxfp4Tensor(blocks, torch.cat((scales, scales[:16]))[None, :, None].contiguous())
    experts = Experts(packed(1, 64, 256), torch.zeros(1, 64), down, torch.zeros(1, 256))
    router = Linear(torch.zeros(1, 256, dtype=torch.bfloat16))
    x = normal(tokens, 256)
    expected = REFERENCE.moe(x, router, experts, 1, ALPHA, LIMIT).double()
    actual = ops.moe(x, router, experts, 1, ALPHA, LIMIT).double()
    assert expected.isfinite().all()
    errors = (actual - expected).norm(dim=0) / expected.norm(dim=0)
    if tokens == 1:
        assert errors.max() < 2e-5
    else:
        # The smallest scales make subnormal bfloat16, which the interpreter does not widen rightly.
        assert errors[4:240].max() < ROUNDED


@pytest.mark.parametrize("tokens", [1, 12])
def test_a_scale_that_is_not_a_number_is_not_hidden(ops, tokens):
    experts, router = random_experts(2, 64, 32), Linear(bf16(2, 64))
    for matrix in (experts.gate_up, experts.down):
        before = matrix.scales[:, 3, 0].clone()
        matrix.scales[:, 3, 0] = 255
        out = ops.moe(normal(tokens, 64), router, experts, 1, ALPHA, LIMIT)
        assert not out.isfinite().all(dim=-1).any()
        matrix.scales[:, 3, 0] = before


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("tokens", [1, 12])
def test_activations_that_are_no_numbers_are_not_hidden(ops, tokens, poison):
    x = normal(tokens, 64)
    x[-1, 5] = poison
    layer = Linear(bf16(48, 64))
    for bound in (layer, EightBitLinear.of(*pack_rows(layer.weight), None)):
        out = ops.linear(x, bound)
        assert not out[-1].isfinite().any()
        assert out[:-1].isfinite().all()
    experts, router = random_experts(4, 64, 32), Linear(bf16(4, 64))
    out = ops.moe(x, router, experts, 2, ALPHA, LIMIT)
    assert not out[-1].isfinite().any()
    assert out[:-1].isfinite().all()
    assert not ops.rms_norm(x, torch.ones(64), 1e-5)[-1].isfinite().all()


@pytest.mark.parametrize(("slots", "experts", "block"), [(1, 1, 16), (40, 4, 16), (100, 3, 32), (7, 12, 16)])
def test_slots_are_cut_into_tiles_of_one_expert(slots, experts, block):
    chosen = torch.randint(0, experts, (slots, 1), generator=generator(slots))
    tile_expert, tile_begin, offsets, order = (t.tolist() for t in group_by_expert(chosen, experts, block))
    seen = []
    for expert, begin in zip(tile_expert, tile_begin, strict=True):
        if expert == experts:
            continue
        mine = order[begin : min(begin + block, offsets[expert + 1])]
        assert mine
        assert {int(chosen[slot, 0]) for slot in mine} == {expert}
        seen += mine
    assert sorted(seen) == list(range(slots))


@pytest.mark.parametrize("size", [0, 1, 8, 65_537, 200_001])
def test_the_read_loop_reads_every_byte(ops, size):
    data = torch.randint(0, 256, (size,), generator=generator(size), dtype=torch.uint8)
    assert ops.read_once(data) == sum_of_words(data)
    ran(ops, *(["read"] if size >= 8 else []))


def test_backends_count_for_themselves(ops):
    other = GpuOps(dense="int8")
    ops.rms_norm(normal(1, 8), torch.ones(8), 1e-5)
    assert (ops.counts(), other.counts()) == ({"rms_norm": 1}, {})
