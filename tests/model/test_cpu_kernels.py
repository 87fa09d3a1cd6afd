"""The CPU backend against the reference backend, at every level that this machine runs."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from calls import new_calls
from random_parts import bf16, generator, normal, outliers, packed, random_experts, relative_error, sum_of_words

from gptoss.model.errors import DeviceError
from gptoss.model.ops import ComputeOptions, select_ops
from gptoss.model.ops.reference import ReferenceOps
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import Experts, Linear, Weights

_cpu = pytest.importorskip("gptoss.model.kernels._cpu", reason="built without a compiler", exc_type=ImportError)
cpu_ops = pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)

REFERENCE = ReferenceOps()
LEVELS = ("avx512", "avx2", "portable")
ALPHA, LIMIT = 1.702, 7.0


@pytest.fixture(params=LEVELS)
def level(request):
    """One level after the other."""
    if request.param not in _cpu.isas():
        pytest.skip(f"this machine does not run {request.param}")
    return request.param


@pytest.fixture
def ops(level):
    return cpu_ops.CpuOps(dense="bf16", isa=level)


def bind(layer: Linear, dense: str) -> Linear:
    """A layer as a backend prepares it that keeps dense layers so; all levels pack alike."""
    kernels = _cpu.Kernels("portable", 1)
    return cpu_ops._bind_int8(kernels, [layer], None)[0] if dense == "int8" else cpu_ops._bind_bf16(layer)


def ran(ops) -> dict[str, int]:
    """What the backend has called since the last look, by operation; it counts under its own level."""
    counts = new_calls(ops)
    assert all(name.startswith(f"{ops.isa}.") for name in counts), counts
    return {name.removeprefix(f"{ops.isa}."): n for name, n in counts.items()}


# Rows and columns around every width that a kernel knows: vectors, panels of 32, pieces of 8 groups, chunks of 16.
SHAPES = [(1, 1), (5, 7), (16, 32), (31, 33), (33, 96), (64, 288), (100, 544), (130, 1000)]
TOKENS = [1, 2, 3, 4, 5, 6, 7, 13, 40]


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("dense", ["bf16", "int8"])
def test_a_dense_layer(level, dense, rows, columns):
    ops = cpu_ops.CpuOps(dense=dense, isa=level)
    layer = Linear(bf16(rows, columns, seed=1), bf16(rows, seed=2))
    bound = bind(layer, dense)
    for tokens in TOKENS:
        x = outliers(tokens, columns, seed=tokens)
        error = relative_error(ops.linear(x, bound), REFERENCE.linear(x, layer))
        # int8: 127 steps to the largest of 32 weights.
        assert error < (2e-6 if dense == "bf16" else 0.02), (tokens, error)
        kind = "gemv" if tokens <= _cpu.GEMV_TOKENS else "gemm"
        assert ran(ops)[f"{dense}_{kind}"] == 1


@pytest.mark.parametrize("tokens", [1, 3, 9])
def test_eight_bit_weights_are_what_their_scales_say(level, tokens):
    """Weights that eight bits hold exactly: what is left is the rounding of the activations to 16 bits."""
    ops = cpu_ops.CpuOps(dense="int8", isa=level)
    integers = torch.randint(-127, 128, (70, 320), generator=generator(3)).float()
    integers[:, ::32] = 127
    powers = 2.0 ** torch.randint(-12, 3, (70, 10), generator=generator(4))
    layer = Linear((integers * powers.repeat_interleave(32, dim=1)).to(torch.bfloat16))
    x = outliers(tokens, 320)
    assert relative_error(ops.linear(x, bind(layer, "int8")), REFERENCE.linear(x, layer)) < 1e-4


def test_a_dense_layer_takes_any_leading_shape_and_stride(ops):
    layer = Linear(bf16(40, 64), None)
    bound = bind(layer, "bf16")
    x = normal(2, 3, 128)[..., ::2]
    assert relative_error(ops.linear(x, bound), REFERENCE.linear(x, layer)) < 2e-6
    assert ops.linear(x[:, :0], bound).shape == (2, 0, 40)


@pytest.mark.parametrize("tokens", [1, 2, 5, 17, 64])
@pytest.mark.parametrize(("hidden", "width"), [(64, 32), (96, 160), (544, 288)])
def test_the_mixture_of_experts(ops, level, tokens, hidden, width):
    experts, router = random_experts(8, hidden, width), Linear(bf16(8, hidden, seed=5), bf16(8, seed=6))
    x = normal(tokens, hidden, seed=tokens)
    bound = cpu_ops._experts(experts)
    bound_router = bind(router, "bf16")
    ran(ops)
    actual = ops.moe(x, bound_router, bound, 3, ALPHA, LIMIT)
    expected = REFERENCE.moe(x, router, experts, 3, ALPHA, LIMIT)
    assert relative_error(actual, expected) < 2e-4
    counts = ran(ops)
    used = torch.bincount(torch.topk(REFERENCE.linear(x, router), 3).indices.flatten(), minlength=8)
    few = used <= _cpu.GEMV_TOKENS
    assert counts.get("mxfp4_gemv", 0) == int(((used > 0) & few).sum())
    assert counts.get("mxfp4_gemm", 0) == int((~few).sum())


@pytest.mark.parametrize("tokens", [1, 8])
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
    actual = ops.moe(x, bind(router, "bf16"), cpu_ops._experts(experts), 1, ALPHA, LIMIT).double()
    assert expected.isfinite().all()
    assert ((actual - expected).norm(dim=0) / expected.norm(dim=0)).max() < 2e-4


@pytest.mark.parametrize("tokens", [1, 8])
def test_a_scale_that_is_not_a_number_is_not_hidden(ops, tokens):
    experts, router = random_experts(2, 64, 32), Linear(bf16(2, 64))
    for matrix in (experts.gate_up, experts.down):
        before = matrix.scales[:, 3, 0].clone()
        matrix.scales[:, 3, 0] = 255
        out = ops.moe(normal(tokens, 64), bind(router, "bf16"), cpu_ops._experts(experts), 1, ALPHA, LIMIT)
        assert not out.isfinite().all(dim=-1).any()
        matrix.scales[:, 3, 0] = before


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("dense", ["bf16", "int8"])
@pytest.mark.parametrize("tokens", [1, 8])
def test_activations_that_are_no_numbers_are_not_hidden(level, dense, tokens, poison):
    ops = cpu_ops.CpuOps(dense=dense, isa=level)
    x = normal(tokens, 64)
    x[-1, 5] = poison
    out = ops.linear(x, bind(Linear(bf16(48, 64)), dense))
    assert not out[-1].isfinite().any()
    assert out[:-1].isfinite().all()


@pytest.mark.parametrize(("columns", "tokens"), [(1, 1), (15, 3), (64, 9), (2880, 2)])
def test_rms_norm(ops, level, columns, tokens):
    x, scale = outliers(tokens, columns), normal(columns, seed=1)
    assert relative_error(ops.rms_norm(x, scale, 1e-5), REFERENCE.rms_norm(x, scale, 1e-5)) < 1e-6
    assert ran(ops) == {"rms_norm": 1}


@pytest.mark.parametrize("shape", [(1, 8, 64), (9, 2, 16), (2, 3, 5, 24)])
def test_rope(ops, level, shape):
    x, angle = normal(*shape), normal(shape[-3], shape[-1] // 2, seed=1)
    cos, sin = angle.cos(), angle.sin()
    assert relative_error(ops.rope(x, cos, sin), REFERENCE.rope(x, cos, sin)) < 1e-6
    assert set(ran(ops)) == {"rope"}


@pytest.mark.parametrize("window", [None, 1, 7, 64, 128, 300])
@pytest.mark.parametrize(
    ("tokens", "keys"),
    # Few tokens go through the keys in parts of 256.
    [(1, 1), (1, 63), (1, 200), (1, 257), (2, 512), (4, 1100), (3, 3), (5, 130), (70, 70), (33, 300)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention(ops, level, tokens, keys, window, dtype):
    for heads, kv_heads, head_dim in ((4, 2, 16), (8, 1, 64), (6, 2, 80)):
        q = normal(tokens, heads, head_dim, std=2.0)
        k = normal(keys, kv_heads, head_dim, std=2.0, seed=1).to(dtype)
        v = normal(keys, kv_heads, head_dim, seed=2).to(dtype)
        sinks = normal(heads, seed=3)
        expected = REFERENCE.attention(q, k, v, sinks, window)
        assert relative_error(ops.attention(q, k, v, sinks, window), expected) < 2e-6
        # As a cache that keeps each head's positions together hands them out.
        strided = (t.transpose(0, 1).contiguous().transpose(0, 1) for t in (k, v))
        assert relative_error(ops.attention(q, *strided, sinks, window), expected) < 2e-6
        assert ran(ops) == {"attention": 2}


def test_attention_over_a_batch_and_with_odd_heads(ops, level):
    q, k, v = normal(2, 5, 4, 16), normal(2, 9, 2, 16, seed=1), normal(2, 9, 2, 16, seed=2)
    sinks = normal(4, seed=3)
    expected = REFERENCE.attention(q, k, v, sinks, 6)
    assert relative_error(ops.attention(q, k, v, sinks, 6), expected) < 2e-6
    assert ran(ops) == {"attention": 2}
    odd = [t[..., :10] for t in (q, k, v)]
    assert torch.equal(ops.attention(*odd, sinks, None), REFERENCE.attention(*odd, sinks, None))
    assert ran(ops) == {}


@pytest.mark.parametrize("keys", [90, 700])
def test_attention_with_sinks_and_scores_far_apart(ops, keys):
    q, k, v = normal(4, 8, 16, std=300.0), normal(keys, 1, 16, std=3.0, seed=1), normal(keys, 1, 16, seed=2)
    sinks = torch.tensor([-1e4, 1e4, 0.0, float("-inf"), 80.0, -80.0, 1.0, 5.0])
    assert relative_error(ops.attention(q, k, v, sinks, None), REFERENCE.attention(q, k, v, sinks, None)) < 2e-5


def test_weights_without_a_kernel_take_the_reference_path_and_say_so(ops, level, caplog):
    float32 = Linear(normal(8, 64))
    transposed = Linear(bf16(64, 8).T)
    for layer in (float32, transposed):
        bound = bind(layer, "int8")
        x = normal(3, 64)
        assert torch.equal(ops.linear(x, bound), REFERENCE.linear(x, layer))
    plain = Experts(bf16(4, 64, 64).transpose(1, 2), bf16(4, 64), bf16(4, 32, 64, seed=1).transpose(1, 2), bf16(4, 64))
    strided = Experts(*(m[:, ::2] for m in (packed(4, 128, 64), bf16(4, 128), packed(4, 128, 32), bf16(4, 128))))
    router, x = Linear(bf16(4, 64)), normal(3, 64)
    expected = REFERENCE.moe(x, router, plain, 2, ALPHA, LIMIT)
    assert torch.equal(ops.moe(x, router, cpu_ops._experts(plain), 2, ALPHA, LIMIT), expected)
    assert cpu_ops._experts(strided) is strided
    assert caplog.text.count("slow path") == 4
    assert ran(ops) == {}


@pytest.mark.parametrize("dense", ["bf16", "int8"])
def test_a_whole_model_with_its_cache(level, dense, make_transformer):
    from gptoss.model.architecture.transformer import Transformer

    reference = make_transformer()
    model = Transformer(reference.config, reference.weights, cpu_ops.CpuOps(dense=dense, isa=level))
    if dense == "int8":
        reference = Transformer(reference.config, in_eight_bits(reference.weights), REFERENCE)
    ids = torch.randint(0, 300, (60,), generator=generator(7)).tolist()
    expected = reference(ids)
    whole = model(ids)
    cache = model.new_cache(dtype=torch.float32)
    parts = torch.cat(
        [model(ids[:30], cache), model(ids[30:35], cache), model([ids[35]], cache), model(ids[36:], cache)]
    )
    assert relative_error(whole, expected) < 3e-3
    assert relative_error(parts, whole) < 1e-3


@pytest.mark.parametrize("dense", ["bf16", "int8"])
@pytest.mark.parametrize("before", [3, 60, 254, 400])
def test_few_tokens_together_are_to_the_bit_what_each_is_alone(level, dense, before, make_transformer):
    """Before and behind the end of a window; speculation stands on it."""
    from gptoss.model.architecture.transformer import Transformer

    reference = make_transformer()
    model = Transformer(reference.config, reference.weights, cpu_ops.CpuOps(dense=dense, isa=level))
    ids = torch.randint(0, 300, (before + 4,), generator=generator(8)).tolist()
    assert model.ops.identical_tokens == 4
    cache = model.new_cache()
    model(ids[:before], cache, "none")
    together = model(ids[before:], cache)
    cache.rewind(before)
    assert torch.equal(together, torch.cat([model([token], cache) for token in ids[before:]]))


def test_nothing_is_foreseen_where_a_part_takes_the_slow_path(make_transformer):
    from gptoss.model.architecture.transformer import Transformer

    reference = make_transformer()
    weights = replace(reference.weights, unembedding=Linear(reference.weights.unembedding.weight.float() * 1.001))
    assert Transformer(reference.config, weights, cpu_ops.CpuOps()).ops.identical_tokens == 1


def in_eight_bits(weights: Weights) -> Weights:
    """The weights that remain where dense layers are kept in eight bits, but for the router's."""

    def rounded(layer: Linear) -> Linear:
        groups = layer.weight.float().unflatten(1, (-1, 32))
        step = groups.abs().amax(-1, keepdim=True) / 127
        above = ((step.view(torch.int32) + 0xFFFF) >> 16 << 16).view(torch.float32)
        return Linear((torch.round(groups / above) * above).flatten(1), layer.bias)

    layers = tuple(
        replace(layer, q=rounded(layer.q), k=rounded(layer.k), v=rounded(layer.v), o=rounded(layer.o))
        for layer in weights.layers
    )
    return replace(weights, layers=layers, unembedding=rounded(weights.unembedding))


def some_of_everything(ops) -> list[torch.Tensor]:
    """Results of every kernel, for one token and for many."""
    experts, router = cpu_ops._experts(random_experts(8, 96, 64)), bind(Linear(bf16(8, 96)), "bf16")
    dense = [bind(Linear(bf16(200, 96)), form) for form in ("int8", "bf16")]
    keys, values, sinks = normal(600, 2, 16, seed=1), normal(600, 2, 16, seed=2), normal(4)
    results = []
    for tokens in (1, 20):
        x, q, angle = outliers(tokens, 96), normal(tokens, 4, 16), normal(tokens, 8)
        results += [ops.moe(x, router, experts, 2, ALPHA, LIMIT), *(ops.linear(x, layer) for layer in dense)]
        results += [ops.attention(q, keys, values, sinks, None), ops.rms_norm(x, normal(96, seed=3), 1e-5)]
        results.append(ops.rope(q, angle.cos(), angle.sin()))
    return results


def are_equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_the_same_for_any_number_of_threads(level):
    one, two, three = (some_of_everything(cpu_ops.CpuOps(isa=level, threads=n)) for n in (1, 2, 3))
    assert are_equal(one, two)
    assert are_equal(one, three)


def test_instances_of_different_levels_and_threads_do_not_affect_each_other():
    best = _cpu.isas()[0]
    if best == "portable":
        pytest.skip("this machine runs one level only")
    alone = [some_of_everything(cpu_ops.CpuOps(isa=isa)) for isa in (best, "portable")]
    assert not are_equal(*alone), "levels add in different orders, so results tell them apart"
    first = cpu_ops.CpuOps(isa=best, threads=1)
    before = first.description, first.identity
    second = cpu_ops.CpuOps(dense="bf16", isa="portable", threads=2)
    assert (first.description, first.identity) == before
    assert (first.isa, first.threads, second.isa, second.threads) == (best, 1, "portable", 2)
    assert first.identity != second.identity
    assert cpu_ops.CpuOps(isa=first.isa, dense="bf16").identity != cpu_ops.CpuOps(isa=first.isa, dense="int8").identity
    assert "built" in first.identity
    assert torch.__version__ in first.identity
    ran(first), ran(second)
    for _ in range(2):
        assert are_equal(some_of_everything(first), alone[0])
        counts = ran(first)
        assert set(counts) > {"attention", "mxfp4_gemv", "mxfp4_gemm"}
        assert ran(second) == {}
        assert are_equal(some_of_everything(second), alone[1])
        assert (ran(first), ran(second)) == ({}, counts)


def test_an_instance_computes_the_same_in_several_threads_at_once():
    ops = cpu_ops.CpuOps(threads=2)
    expected = some_of_everything(ops)
    with ThreadPoolExecutor(3) as pool:
        for result in pool.map(lambda _: [some_of_everything(ops) for _ in range(5)], range(3)):
            assert all(are_equal(each, expected) for each in result)


THREADS = """
import os
from concurrent.futures import ThreadPoolExecutor
import torch
from gptoss.model.ops.cpu import CpuOps

def workers_of(ops):
    # The threads that OpenMP starts for the calling thread; they wait for its next call.
    before = len(os.listdir("/proc/self/task"))
    ops.read_once(data)
    return len(os.listdir("/proc/self/task")) - before

torch.set_num_threads(2)
data = torch.frombuffer(bytearray(32 << 20), dtype=torch.uint8)
counts, pools = [workers_of(CpuOps(threads=3))], []
for number in (1, 4, 2):
    pools.append(ThreadPoolExecutor(1))
    pools[-1].submit(int).result()  # starts the Python thread before threads are counted
    counts.append(pools[-1].submit(workers_of, CpuOps(threads=number)).result())
print(*counts)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux does")
def test_kernels_run_on_the_threads_of_their_instance_whichever_thread_calls():
    """OpenMP's own number is that of OMP_NUM_THREADS in each Python thread, and torch's is another one."""
    environment = os.environ | {"OMP_NUM_THREADS": "6"}
    done = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["2", "0", "3", "1"]


def test_the_options_reach_the_backend():
    """Also the threads, whatever torch's own number is: loading sets that too, and would hide a lost option."""
    threads = torch.get_num_threads() + 1
    ops = select_ops(options=ComputeOptions("cpu", "bf16", "portable", threads))
    assert (ops.name, ops.dense, ops.isa, ops.threads) == ("cpu", "bf16", "portable", threads)


def test_what_the_machine_cannot_do_is_refused():
    with pytest.raises(DeviceError, match=r"instruction set 'abacus': choose one of .*portable$"):
        select_ops(options=ComputeOptions("cpu", isa="abacus"))
    with pytest.raises(ValueError, match="abacus"):
        _cpu.Kernels("abacus", 1)
    with pytest.raises(ValueError, match="thread"):
        _cpu.Kernels("portable", 0)


def test_shapes_that_do_not_go_together_are_refused():
    up, down = packed(2, 64, 64), packed(2, 64, 32)
    bias = bf16(2, 64)
    _cpu.experts(up.blocks, up.scales, bias, down.blocks, down.scales, bias)
    with pytest.raises(ValueError, match="fit"):
        _cpu.experts(up.blocks, up.scales, bias, up.blocks, up.scales, bias)
    with pytest.raises(ValueError, match="bias"):
        _cpu.experts(up.blocks, up.scales, bias[:1].contiguous(), down.blocks, down.scales, bias)
    with pytest.raises(ValueError, match="scales"):
        _cpu.experts(up.blocks, down.scales, bias, down.blocks, down.scales, bias)
    with pytest.raises(TypeError):
        _cpu.dense_bf16(normal(4, 4), None)


def test_packed_layers_of_another_size_are_refused():
    weight, memory = bf16(40, 64), torch.zeros(_cpu.int8_bytes(40, 64) + 64, dtype=torch.uint8)
    kernels = _cpu.Kernels("portable", 1)
    for part in (memory, memory[:-128], memory[1:-63]):  # too long, too short, not aligned
        with pytest.raises(ValueError, match="packed layer"):
            kernels.pack_int8(weight, part)
        with pytest.raises(ValueError, match="packed layer"):
            kernels.is_packed_from(weight, part)
        with pytest.raises(ValueError, match="packed layer"):
            _cpu.dense_int8(part, 40, 64, None)


@pytest.mark.parametrize("shape", [(40, 64), (32, 96), (1, 31), (200, 33)])
def test_what_was_packed_from_other_weights_is_known(level, shape):
    weight, memory = bf16(*shape), torch.zeros(_cpu.int8_bytes(*shape), dtype=torch.uint8)
    kernels = _cpu.Kernels(level, 2)
    assert not kernels.is_packed_from(weight, memory)
    kernels.pack_int8(weight, memory)
    assert kernels.is_packed_from(weight, memory)
    assert not kernels.is_packed_from(weight.neg(), memory)
    assert not kernels.is_packed_from(weight * 2, memory), "the scales"
    assert kernels.counts() == {f"{level}.int8_pack": 1}


def test_every_level_packs_alike():
    weight = bf16(200, 352)
    weight[3, :32] = 0
    results = []
    for each in _cpu.isas():
        results.append(torch.zeros(_cpu.int8_bytes(200, 352), dtype=torch.uint8))
        _cpu.Kernels(each, 1).pack_int8(weight, results[-1])
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_read_loop_reads_every_byte(level, threads):
    """Its checksum changes with each byte, wherever a kernel's vectors, pieces and shares of threads end."""
    ops = cpu_ops.CpuOps(isa=level, threads=threads)
    for size in (0, 1, 9, 511, 513, 5 << 20, (9 << 20) + 525):
        data = torch.randint(0, 256, (size,), generator=generator(size), dtype=torch.uint8)
        expected = sum_of_words(data)
        assert ops.read_once(data) == expected
        for place in {place % size for place in (0, 1 << 20, (1 << 22) - 1, size // 2, size - 1)} if size else ():
            data[place] ^= 255
            assert ops.read_once(data) != expected
            data[place] ^= 255


@pytest.mark.usefixtures("automatic_backend")
def test_the_kernels_are_what_runs_where_they_were_built():
    assert select_ops().name == "cpu"
    assert select_ops(options=ComputeOptions("reference")).name == "reference"
