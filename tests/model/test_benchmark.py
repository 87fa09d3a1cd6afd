"""What is measured is what is computed, and random weights have the shapes of the model that they stand for."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from random_parts import sum_of_words

from gptoss.model import Checkpoint, LocalEngine, Transformer
from gptoss.model.checkpoints.published_configs import PUBLISHED, published_config
from gptoss.model.loading.weights import load_weights
from gptoss.model.measure import benchmark
from gptoss.model.measure.benchmark import (
    FewLayers,
    Plan,
    WholeModel,
    few_layers,
    head_bytes,
    layer_bytes,
    measure,
    weight_bytes_per_token,
)
from gptoss.model.measure.synthetic import synthetic_bytes, synthetic_weights
from gptoss.model.ops import ComputeOptions, select_ops
from gptoss.model.ops.reference import ReferenceOps

PLAN = Plan(prompt_tokens=20, gen_tokens=6, repetitions=3, seconds=60.0)


def cpu_ops(dense):
    pytest.importorskip("gptoss.model.kernels._cpu")
    return select_ops(options=ComputeOptions("cpu", dense))


class Recorded:
    """A subject that takes as long as it is told, by its own account, and notes what was asked of it."""

    weight_bytes_per_token = 1000

    def __init__(self, transformer, seconds_of_a_prompt=0.5):
        self.ops, self.config = transformer.ops, transformer.config
        self.seconds_of_a_prompt = seconds_of_a_prompt
        self.prompts = []
        self.steps = 0

    def prefill(self, ids):
        self.prompts.append(list(ids))
        return self.seconds_of_a_prompt

    def step(self):
        self.steps += 1
        return 0.25

    def read_target(self):
        return torch.ones(8)


def test_speeds_are_tokens_over_seconds(transformer):
    subject = Recorded(transformer)
    done = []
    measured = measure(subject, PLAN, done.append)
    assert measured.prefill.runs == (40.0, 40.0, 40.0)
    assert measured.decode.runs == (4.0, 4.0, 4.0)
    # Two keys/value heads of 16 in bfloat16; windows of 8 in two of four layers; 23 tokens before one in the middle.
    assert measured.cache_bytes_per_token == 2 * 2 * 2 * 16 * (2 * 8 + 2 * 23)
    assert measured.bytes_per_token == 1000 + measured.cache_bytes_per_token
    assert (measured.decode_bytes_per_s, measured.decoded_tokens) == (4.0 * measured.bytes_per_token, 18)
    assert measured.share_of_read_loop == measured.decode_bytes_per_s / measured.read_bytes_per_s
    assert subject.steps == 2 + 18
    assert [len(ids) for ids in subject.prompts] == [20] * 4
    assert len({ids[0] for ids in subject.prompts}) == 4  # an engine would reuse what two prompts share
    assert done == sorted(done)
    assert done[-1] == 1.0


def test_a_slow_model_is_measured_once(transformer):
    subject = Recorded(transformer, seconds_of_a_prompt=40.0)
    measured = measure(subject, replace(PLAN, seconds=0.0))
    assert measured.prefill.runs == (0.5,)
    assert len(subject.prompts) == 1
    assert measured.decoded_tokens == 2


def test_a_first_prompt_that_waited_for_the_disk_does_not_count(transformer, monkeypatch):
    subject = Recorded(transformer, seconds_of_a_prompt=40.0)
    faults = iter((0, 1000))
    monkeypatch.setattr(benchmark, "_major_faults", lambda: next(faults))
    measured = measure(subject, replace(PLAN, seconds=0.0))
    assert len(subject.prompts) == 2
    assert measured.prefill.runs == (0.5,)


def test_the_whole_model_is_the_engines(transformer):
    engine = LocalEngine(transformer, max_context=PLAN.context)
    generate, prompts = engine.generate, []
    engine.generate = lambda request: prompts.append(generate(request)) or prompts[-1]
    measured = measure(WholeModel(engine), PLAN)
    assert len(measured.prefill.runs) == len(measured.decode.runs) == 3
    assert [prompt.cached_tokens for prompt in prompts] == [0] * 4
    # The first token comes with the prompt.
    assert [prompt.generated_tokens for prompt in prompts] == [3, 7, 7, 7]


@pytest.mark.parametrize("dense", ["int8", "bf16"])
def test_bytes_a_token_are_what_the_kernels_have(tmp_path, make_checkpoint, dense):
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, "puzzle", experts=(4, 8), windows=(8, None)))
    ops = cpu_ops(dense)
    model = Transformer(checkpoint.config, load_weights(checkpoint), ops)
    experts = sum(2 * 3 * 64 * 32 * 17 // 32 for _ in (4, 8))  # two of them a layer, whatever there are
    routers = 2 * 64 * (4 + 8)
    attention = 2 * 2 * (64 + 32) * 64
    each = 34 / 32 if dense == "int8" else 2
    assert layer_bytes(model) == experts + routers + attention * each
    assert head_bytes(model) == 96 * 64 * each
    assert weight_bytes_per_token(model) == layer_bytes(model) + head_bytes(model)


def test_bytes_a_token_of_plain_torch(transformer):
    linear = 2 * 64 * (2 * 64 + 2 * 32 + 4)
    assert layer_bytes(transformer) == 4 * (linear + 2 * 3 * 64 * 32 * 17 // 32)


def test_kernels_that_ran_are_counted(make_transformer):
    ops = cpu_ops("int8")
    plain = make_transformer()
    model = Transformer(plain.config, plain.weights, ops)
    measured = measure(WholeModel(LocalEngine(model)), PLAN)
    attention = [calls for name, calls in measured.kernel_calls.items() if name.endswith(".attention")]
    # Each layer, for each prompt and each token: the warm-up before does not count.
    assert attention == [4 * 3 * (1 + 6)]
    assert "cpu" in measured.backend
    assert "int8" in measured.backend


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_read_loop_reads_every_byte(backend):
    ops = cpu_ops("bf16") if backend == "cpu" else ReferenceOps()
    # The CPU kernels read pieces of 1 MiB, of which a thread takes four at a time.
    for size in (0, 1, 7, 8, 1000, 5 << 20, (5 << 20) + 13):
        data = torch.randint(0, 256, (size,), dtype=torch.uint8)
        assert ops.read_once(data) == sum_of_words(data)
    numbers = torch.randn(3, 5).to(torch.bfloat16)
    assert ops.read_once(numbers) == sum_of_words(numbers)


def test_published_configs():
    sizes = {name: published_config(name).num_weights for name in PUBLISHED}
    # The model card, table 1: 20.9 and 116.8 billion weights.
    assert {name: round(size / 1e9, 1) for name, size in sizes.items()} == {"20b": 20.9, "120b": 116.8}
    assert [layer.sliding_window for layer in published_config("20b", 3).layers] == [128, None, 128]


@pytest.fixture(scope="module")
def small():
    """A published model's pattern of layers, in a small size."""
    sizes = {"hidden_size": 64, "intermediate_size": 32, "vocab_size": 300, "num_attention_heads": 4}
    return replace(published_config("20b"), num_key_value_heads=2, head_dim=16, **sizes)


def test_synthetic_weights_have_the_shapes_of_the_config(small):
    weights = synthetic_weights(small)
    tensors = [weights.embedding, weights.norm]
    for layer in weights.layers:
        tensors += [layer.attention_norm, layer.mlp_norm, layer.sinks]
        tensors += [
            t for linear in (layer.q, layer.k, layer.v, layer.o, layer.router) for t in (linear.weight, linear.bias)
        ]
        up, down = layer.experts.gate_up, layer.experts.down
        tensors += [up.blocks, up.scales, layer.experts.gate_up_bias, down.blocks, down.scales, layer.experts.down_bias]
        assert (up.shape, down.shape) == ((32, 64, 64), (32, 64, 32))
    assert sum(tensor.nbytes for tensor in tensors) == synthetic_bytes(small)
    spans = sorted((tensor.data_ptr(), tensor.nbytes) for tensor in tensors)
    assert all(begin + size <= after for (begin, size), (after, _) in pairwise(spans))
    logits = Transformer(small, weights, ReferenceOps())([1, 2, 3])
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


def test_random_routers_send_tokens_to_many_experts(small):
    weights = synthetic_weights(replace(small, layers=small.layers[:2]))
    router = weights.layers[1].router
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    logits = x @ router.weight.float().T + router.bias.float()
    assert len(torch.unique(logits.topk(4).indices)) > 24


def test_a_few_layers_stand_for_all(small, monkeypatch):
    part, _load_s = few_layers(small, 2, torch.device("cpu"), cpu_ops("int8"), PLAN.context)
    whole = Transformer(small, synthetic_weights(small), cpu_ops("int8"))
    assert part.weight_bytes_per_token == weight_bytes_per_token(whole)
    monkeypatch.setattr(FewLayers, "_layers", lambda self, ids: 0.001 * len(ids))
    monkeypatch.setattr(FewLayers, "_rest", lambda self: 0.004)
    part._token = 0
    assert part.prefill([1] * 300) == pytest.approx(12 * 0.3 + 0.004)
    assert part.step() == pytest.approx(12 * 0.001 + 0.004)


def test_a_few_layers_compute_what_is_timed(small):
    part, load_s = few_layers(small, 4, torch.device("cpu"), cpu_ops("int8"), PLAN.context)
    measured = measure(part, PLAN)
    counts = {name.partition(".")[2]: calls for name, calls in measured.kernel_calls.items()}
    assert counts["attention"] == 4 * 3 * (1 + 6)
    # Four matrices a layer for each token, and the unembedding for each, the prompts' last tokens included.
    assert counts["int8_gemv"] == 4 * 4 * 3 * 6 + 3 * (1 + 6)
    assert load_s > 0
