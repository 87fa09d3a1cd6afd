"""Whole models on the GPU backend, in Triton's interpreter: logits, steps, generation, experts in host memory."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from calls import new_calls
from generating import generate
from loaded import load_options, loaded, loaded_transformer

from gptoss.model import DeviceError, Forced, LocalEngine, LogitMask, SamplingParams
from gptoss.model.architecture.transformer import Transformer
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.loading.placement import Placement
from gptoss.model.loading.plan import plan_load
from gptoss.model.loading.upload import Uploader
from gptoss.model.ops.reference import ReferenceOps
from gptoss.model.tensors.weights import HostExperts, Linear, Weights

pytest.importorskip("triton", reason="Triton runs on Linux")
from gptoss.model.ops.gpu import GpuOps
from gptoss.model.ops.gpu_tiles import Tiles
from gptoss.model.ops.gpu_weights import pack_rows

WIDE = Tiles(dense_rows=64, pairs=8, router_rows=8, expert_rows=64)
STEP = {"norm_qkv_rope", "attend_one", "gemv", "norm_router", "experts_up", "experts_down", "rms_norm"}
DRAW = {"survey", "weigh", "pick"}
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(autouse=True)
def quiet_interpreter():
    with np.errstate(all="ignore"):
        yield


def wide(dense="bf16", **options) -> GpuOps:
    return GpuOps(dense=dense, tiles=WIDE, **options)


def prompt(n, seed=1):
    return torch.randint(0, 300, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def relative_error(actual, expected):
    assert actual.shape == expected.shape
    return float((actual - expected).norm() / expected.norm())


def usual_error(actual, expected):
    """Of most positions: where two experts are nearly as likely, rounding sends a token elsewhere."""
    assert actual.shape == expected.shape
    return float(((actual - expected).norm(dim=-1) / expected.norm(dim=-1)).median())


@pytest.fixture
def reference(make_transformer):
    return make_transformer(num_layers=2)


def in_eight_bits(weights: Weights) -> Weights:
    """The weights that remain where dense layers are kept in eight bits, but for the router's."""

    def rounded(layer):
        packed, scales = pack_rows(layer.weight)
        return Linear((packed.float().unflatten(1, (-1, 32)) * scales.float()[..., None]).flatten(1), layer.bias)

    layers = tuple(
        replace(layer, q=rounded(layer.q), k=rounded(layer.k), v=rounded(layer.v), o=rounded(layer.o))
        for layer in weights.layers
    )
    return replace(weights, layers=layers, unembedding=rounded(weights.unembedding))


@pytest.mark.parametrize("dense", ["bf16", "int8"])
def test_a_whole_model_with_its_cache(reference, dense):
    model = Transformer(reference.config, reference.weights, wide(dense))
    if dense == "int8":
        reference = Transformer(reference.config, in_eight_bits(reference.weights), ReferenceOps())
    ids = prompt(30)
    expected = reference(ids)
    # Many tokens are rounded to bfloat16 before each product.
    assert usual_error(model(ids), expected) < 0.03
    new_calls(model.ops)
    cache = model.new_cache(dtype=torch.float32)
    last = [model([token], cache, "last") for token in ids[:8]]
    assert set(new_calls(model.ops)) == STEP
    # One token is not rounded.
    assert relative_error(torch.cat(last), expected[:8]) < 1e-3
    parts = [model(ids[8:20], cache), model(ids[20:21], cache, "last"), model(ids[21:], cache)]
    assert usual_error(torch.cat(parts), expected[8:]) < 0.03
    assert model([5], cache, "none").shape == (0, 300)
    assert cache.length == 31


def test_the_tiles_of_a_card_compute_the_same(make_transformer):
    reference = make_transformer(num_layers=1)
    model = Transformer(reference.config, reference.weights, GpuOps(dense="bf16"))
    ours, theirs = model.new_cache(dtype=torch.float32), reference.new_cache(dtype=torch.float32)
    for token in (5, 6):
        actual, expected = model([token], ours, "last"), reference([token], theirs, "last")
    assert relative_error(actual, expected) < 1e-4


def test_steps_go_on_where_the_cache_was_rewound_or_grew(make_transformer, monkeypatch):
    reference = make_transformer(num_layers=1)
    monkeypatch.setattr("gptoss.model.tensors.cache._FIRST_CAPACITY", 4)
    model = Transformer(reference.config, reference.weights, wide())
    cache = model.new_cache(dtype=torch.float32)
    ids = prompt(6)
    first = [model([token], cache, "last") for token in ids]
    assert cache.capacity == 8
    cache.rewind(3)
    again = [model([token], cache, "last") for token in ids[3:]]
    assert all(torch.equal(a, b) for a, b in zip(first[3:], again, strict=True))
    other = model.new_cache(dtype=torch.float32)
    assert torch.equal(model(ids[:1], other, "last"), first[0])
    assert (cache.length, other.length) == (6, 1)


@pytest.fixture
def engine(make_transformer):
    reference = make_transformer(num_layers=1)
    transformer = Transformer(reference.config, reference.weights, wide())
    return LocalEngine(transformer, max_context=64, cache_dtype=torch.float32)


def greedy_by_hand(transformer, ids, n):
    cache = transformer.new_cache(dtype=torch.float32)
    logits = transformer(ids, cache, "last")
    said = []
    for _ in range(n):
        said.append(int(logits.argmax()))
        logits = transformer([said[-1]], cache, "last")
    return said


def test_generation_samples_on_the_device_and_reuses_the_prefix(engine):
    tokens = list(generate(engine, prompt(12), GREEDY.override(max_tokens=5)))
    assert engine.transformer.ops.counts()["pick"] == 4, "all but the first, whose logits the prompt leaves"
    assert [t.id for t in tokens] == greedy_by_hand(engine.transformer, prompt(12), 5)
    for token in tokens[1:]:
        assert token.logprob < 0
    follow_up = generate(engine, prompt(12) + [t.id for t in tokens] + [7], GREEDY.override(max_tokens=1))
    assert follow_up.cached_tokens == 16
    next(follow_up)


def test_a_seed_gives_the_tokens_that_the_host_would_sample(engine):
    params = SamplingParams(seed=3, max_tokens=5, top_p=0.9, top_k=50)
    on_device = [t.id for t in generate(engine, prompt(6), params)]
    told = list(generate(engine, prompt(6), params.override(top_logprobs=2)))
    assert [t.id for t in told] == on_device
    assert all(len(t.top) == 2 for t in told)


class Script:
    """A constraint that plays a list of holds."""

    def __init__(self, *holds):
        self.holds = list(holds)

    def next(self):
        return self.holds.pop(0) if self.holds else None

    def accept(self, token_id):
        return False


def test_a_constraint_masks_and_forces_on_the_device(engine):
    free = [t.id for t in generate(engine, prompt(8), GREEDY.override(max_tokens=6))]
    script = Script(None, LogitMask.allowing([10, 299], 300), Forced((5, 6)))
    tokens = list(generate(engine, prompt(8), GREEDY.override(max_tokens=6), constraint=script))
    assert tokens[0].id == free[0]
    assert tokens[1].id in (10, 299)
    assert [t.id for t in tokens[2:4]] == [5, 6]
    assert [t.forced for t in tokens] == [False, False, True, True, False, False]
    by_hand = greedy_by_hand(engine.transformer, prompt(8) + [t.id for t in tokens[:4]], 2)
    assert [t.id for t in tokens[4:]] == by_hand, "the mask has been taken off"


@pytest.mark.parametrize("layout", ["original", "hub_mxfp4"])
def test_a_checkpoint_is_copied_to_the_device_piece_by_piece(tmp_path, make_checkpoint, layout, monkeypatch):
    monkeypatch.setattr("gptoss.model.loading.load.Uploader", small_buffers)
    folder = make_checkpoint(tmp_path, layout)
    parts = []
    on_device = loaded(folder, wide(), progress=parts.append)
    model = on_device.engine.transformer
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    qkv = model.weights.layers[0].qkv.weight
    assert qkv.data_ptr() == model.weights.layers[0].q.weight.data_ptr(), "the three lie in one piece of memory"
    expected = loaded_transformer(folder)
    cache, theirs = model.new_cache(), expected.new_cache()
    assert relative_error(model([3], cache, "last"), expected([3], theirs, "last")) < 1e-3
    assert on_device.plan.placement.host_layers == 0


def placed(folder, dense="bf16", **options) -> Placement:
    """What would lie where."""
    return plan_load(Checkpoint.open(folder), load_options(**options), wide(dense)).placement


def small_buffers(*arguments):
    return Uploader(*arguments, buffer_bytes=1000)


def test_experts_that_do_not_fit_stay_on_the_host(tmp_path, make_checkpoint, caplog):
    folder = make_checkpoint(tmp_path, experts=(4, 4, 4), windows=(8, None, 8))
    expected = loaded_transformer(folder)
    everything = placed(folder, device_bytes=1 << 40)
    assert everything.host_layers == 0
    needed = everything.device_bytes
    caplog.set_level(logging.INFO)
    some = loaded(folder, wide(), device_bytes=needed - 1)
    model = some.engine.transformer
    assert some.plan.placement.host_layers == 1
    assert "experts of 1 of 3 layers" in caplog.text
    kinds = [isinstance(layer.experts, HostExperts) for layer in model.weights.layers]
    assert kinds == [True, False, False]
    for host_layers in (1, 3):
        model = loaded_transformer(folder, wide(), cpu_experts=host_layers)
        ids, cache, theirs = prompt(3), model.new_cache(), expected.new_cache()
        ids = [i % 96 for i in ids]
        new_calls(model.ops)
        for token in ids:
            actual, right = model([token], cache, "last"), expected([token], theirs, "last")
        assert new_calls(model.ops).get("experts_up", 0) == (3 - host_layers) * len(ids)
        assert relative_error(actual, right) < 2e-3
        assert usual_error(model(ids * 2, cache), expected(ids * 2, theirs)) < 0.03


def test_a_card_that_is_too_small_is_told_of(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    with pytest.raises(DeviceError, match=r"0\.001 GB free, .*--ctx, or --device cpu"):
        placed(folder, device_bytes=1_000_000)
    least = placed(folder, cpu_experts=99).device_bytes
    with pytest.raises(DeviceError, match="use --cpu-experts 2, or leave"):
        placed(folder, device_bytes=least, cpu_experts=1)


def test_less_room_is_needed_with_less_context_and_with_eight_bits(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, vocabulary=4000)

    def needed(context, dense="bf16"):
        return placed(folder, dense, max_context=context).device_bytes

    assert needed(64) < needed(512) == needed(None)
    assert needed(64, "int8") < needed(64)


def test_experts_that_are_not_packed_take_the_slow_path_and_say_so(make_transformer, caplog):
    reference = make_transformer(packed=False, num_layers=1)
    model = Transformer(reference.config, reference.weights, wide())
    assert "slow path" in caplog.text
    cache, theirs = model.new_cache(), reference.new_cache()
    assert model.step(cache) is None
    assert relative_error(model([3], cache, "last"), reference([3], theirs, "last")) < 0.01


def test_a_file_is_copied_whatever_its_order(tmp_path):
    uploader = Uploader(torch.device("cpu"), 100, buffer_bytes=64)
    source = torch.arange(1000).view(10, 100)
    for tensor in (source, source.T, source[3:5], source[:0], torch.zeros(())):
        assert torch.equal(uploader.copy(tensor), tensor)
    uploader.finish()


class FakeGraph:
    """Notes what is done with it."""

    def __init__(self, log):
        self.log = log

    def capture_begin(self, pool=None, capture_error_mode=None):
        self.log.append(f"begin {pool}")

    def capture_end(self):
        self.log.append("end")

    def replay(self):
        self.log.append("replay")

    def pool(self):
        return "pool"


def test_a_recording_is_cut_where_the_host_computes():
    from contextlib import nullcontext

    from gptoss.model.ops.graphs import CudaGraphs

    log: list[str] = []
    graphs = CudaGraphs(torch.device("cuda"), lambda: FakeGraph(log), nullcontext)

    def step():
        log.append("device")
        graphs.on_host(lambda: log.append("host"))
        log.append("device")

    again = graphs.record(step)
    run, recorded = ["device", "host", "device"], ["begin None", "device", "end", "begin pool", "device", "end"]
    assert log == run + recorded
    log.clear()
    again()
    assert log == ["replay", "host", "replay"]

    def broken():
        if log[-1].startswith("begin"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        graphs.record(broken)
    assert log[-2:] == ["begin None", "end"]
    log.clear()
    graphs.on_host(lambda: log.append("host"))
    assert log == ["host"], "nothing is being recorded any more"


def test_a_step_is_recorded_anew_where_only_some_layers_grew(make_transformer):
    reference = make_transformer(num_layers=2)
    model = Transformer(reference.config, reference.weights, wide())
    recorded = []

    class Counting:
        def record(self, step):
            recorded.append(None)
            step()
            return step

    cache = model.new_cache(dtype=torch.float32)
    model.ops.recorder = Counting()
    for token in (5, 6):
        model([token], cache, "last")
    assert len(recorded) == 1
    # As a prompt leaves it that is broken off after its first layer.
    shape = (300, *cache.buffers(0)[0].shape[1:])
    cache.append(0, torch.zeros(shape), torch.zeros(shape))
    assert cache.length == 2
    model([7], cache, "last")
    assert len(recorded) == 2


def test_a_cache_without_memory_for_both_keeps_neither(make_transformer, monkeypatch):
    cache = make_transformer(num_layers=1).new_cache()
    cache.reserve(8)
    held, take, taken = cache.buffers(0), torch.Tensor.new_empty, []

    def once(*arguments, **options):
        taken.append(None)
        if len(taken) == 2:
            raise torch.OutOfMemoryError
        return take(*arguments, **options)

    monkeypatch.setattr(torch.Tensor, "new_empty", once)
    with pytest.raises(torch.OutOfMemoryError):
        cache.reserve(cache.capacity + 1)
    assert all(now is before for now, before in zip(cache.buffers(0), held, strict=True))
