"""Figures of the model on a GPU, in one call meant to end within ten minutes: correctness, speed, memory, start.

Builds full-size models of random weights on the device (for the start alone a file is written and read), holds
compiled kernels against plain torch in float32, and measures. Imports `gptoss.model` only.

    python benchmarks/gpu_check.py                 on the GPU: 20b, and 120b where it fits
    python benchmarks/gpu_check.py --dry-run       the same way with tiny models on the CPU, in Triton's interpreter

Prints each figure as it comes, for people, and a last line of JSON for programs; exits with 1 where the device
disagrees with plain torch, or a figure cannot be taken.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

if "--dry-run" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    os.environ["PYTHONWARNINGS"] = "ignore"

import torch
from torch import Tensor

from gptoss.model import (
    Checkpoint,
    LoadOptions,
    LocalEngine,
    LogitMask,
    Request,
    Sampler,
    SamplingParams,
    Transformer,
    Weights,
)
from gptoss.model.checkpoints.published_configs import PUBLISHED, published_config
from gptoss.model.config import LayerConfig, ModelConfig
from gptoss.model.loading.load import load
from gptoss.model.measure.synthetic import STD, random_layers
from gptoss.model.ops import ComputeOptions, Ops, select_ops
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.sizes import layer_expert_bytes
from gptoss.model.tensors.weights import Experts, HostExperts, Linear

# Of the relative error of logits. One token is computed in float32, in another order of summation; where many are
# computed at a time, activations are rounded to bfloat16, and random weights send some tokens to other experts for it,
# so what is held to a bound is the median over the positions.
ONE_TOKEN_TOLERANCE = 1e-3
MANY_TOKENS_TOLERANCE = 0.05
# Eight bits with a scale for 32 weights lose some thousandths a matrix.
EIGHT_BITS_TOLERANCE = 0.05
# Of the tokens that the device draws, those that the host would not: the two may round a draw at an edge otherwise.
OTHERWISE_DRAWN_TOLERANCE = 0.02


@dataclass(frozen=True)
class Plan:
    """What is built and measured.

    Attributes:
        config: of the model.
        checked_layers: layers that are held against plain torch.
        checked_tokens: tokens for which they are, one by one.
        prompts: lengths of the prompts whose prefill is measured, the first of which is decoded from.
        contexts: positions at which decoding is measured too, the cache filled with random keys and values.
        generated_tokens: in each measurement of decoding.
        repetitions: of what is measured, the first of which does not count.
        draws: tokens sampled in each way, to be compared with the host's sampling.
    """

    config: ModelConfig
    checked_layers: int
    checked_tokens: int
    prompts: tuple[int, ...]
    contexts: tuple[int, ...]
    generated_tokens: int
    repetitions: int
    draws: int

    @property
    def longest(self) -> int:
        """Positions that a cache must hold."""
        return max(*self.prompts, *self.contexts) + 2 * self.generated_tokens + 16


def tiny() -> ModelConfig:
    """Return the same architecture, small enough for any machine."""
    return replace(
        published_config("20b"),
        hidden_size=64,
        intermediate_size=32,
        vocab_size=256,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        layers=tuple(LayerConfig(4, 2, 16 if i % 2 == 0 else None) for i in range(2)),
    )


def random_weights(config: ModelConfig, device: torch.device, seed: int = 0) -> Weights:
    """Weights of plausible scale, made on the device."""
    g = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)

    def normal(*shape: int, std: float = STD, mean: float = 0.0) -> Tensor:
        return torch.empty(*shape, dtype=torch.bfloat16, device=device).normal_(mean, std, generator=g)

    def mxfp4(experts: int, rows: int, columns: int) -> Mxfp4Tensor:
        def codes(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, dtype=torch.uint8, device=device, generator=g)

        return Mxfp4Tensor(
            codes(0, 256, experts, rows, columns // 32, 16), codes(119, 122, experts, rows, columns // 32)
        )

    return Weights(
        embedding=normal(config.vocab_size, config.hidden_size, std=1.0),
        layers=random_layers(config, normal, mxfp4),
        norm=normal(config.hidden_size, std=0.05, mean=1.0),
        unembedding=Linear(normal(config.vocab_size, config.hidden_size)),
    )


def moved(part: Any, device: str) -> Any:
    """Return the same weights, or any part of them, on another device."""
    if isinstance(part, Tensor):
        return part.to(device)
    if isinstance(part, tuple):
        return tuple(moved(p, device) for p in part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{f.name: moved(getattr(part, f.name), device) for f in fields(part)})
    return part


class Figures:
    """The findings, printed as they come."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.failed: list[str] = []

    def tell(self, name: str, value: object) -> None:
        """Keep and print a figure."""
        self.values[name] = value
        print(f"{name:>44}  {value:.6g}" if isinstance(value, float) else f"{name:>44}  {value}", flush=True)

    def hold(self, name: str, error: float, tolerance: float) -> None:
        """Record an error, which must not exceed its tolerance."""
        self.tell(name, error)
        if not error <= tolerance:
            self.failed.append(f"{name}: {error:.3g} > {tolerance:g}")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run one part; its failure does not end the others."""
        begin = time.perf_counter()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is printed
            traceback.print_exc()
            self.failed.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
        give_back()
        self.tell(f"{name}, seconds in all", time.perf_counter() - begin)


def give_back() -> None:
    """Free the memory of what is used no more: a model and its recorded steps refer to each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_ops(dense: str, dry: bool) -> Ops:
    """Return the GPU backend, with dense layers kept in this way."""
    from gptoss.model.ops.gpu import GpuOps
    from gptoss.model.ops.gpu_tiles import Tiles

    host = select_ops("cpu")
    wide = Tiles(dense_rows=64, pairs=16, router_rows=8, expert_rows=64)
    return GpuOps(dense=dense, host=host, tiles=wide if dry else None)  # type: ignore[arg-type]


def agreement(figures: Figures, name: str, plan: Plan, weights: Weights, dry: bool) -> None:
    """Compare the device's logits with plain float32 on the CPU, and the tokens that it draws against the host's."""
    config = replace(plan.config, layers=plan.config.layers[: plan.checked_layers])
    ids = [(37 * i + 11) % config.vocab_size for i in range(40)]
    with torch.inference_mode():
        right = Transformer(config, moved(weights, "cpu"), select_ops("cpu", ComputeOptions("reference")))(ids)

        def hold(what: str, logits: Tensor, tolerance: float) -> None:
            expected = right[: len(logits)]
            errors = (logits.cpu() - expected).norm(dim=-1) / expected.norm(dim=-1)
            figures.hold(f"{name}, error {what}", float(errors.median()), tolerance)

        model = Transformer(config, weights, device_ops("bf16", dry))
        hold("of single tokens", one_by_one(model, ids[: plan.checked_tokens], torch.float32), ONE_TOKEN_TOLERANCE)
        hold("of many tokens", model(ids), MANY_TOKENS_TOLERANCE)
        # As it is used: keys and values in bfloat16, which other kernels read.
        hold("with a bfloat16 cache", one_by_one(model, ids[: plan.checked_tokens]), MANY_TOKENS_TOLERANCE)
        hold("of many with it", model(ids, model.new_cache(64)), MANY_TOKENS_TOLERANCE)
        share = drawn_otherwise(model, ids[0], plan.draws)
        figures.hold(f"{name}, share of tokens drawn otherwise", share, OTHERWISE_DRAWN_TOLERANCE)
        del model
        give_back()
        small = Transformer(config, weights, device_ops("int8", dry))
        hold("in eight bits", one_by_one(small, ids[: plan.checked_tokens]), EIGHT_BITS_TOLERANCE)
        hold("of many in eight bits", small(ids), EIGHT_BITS_TOLERANCE)
        del small
        give_back()
        split = Transformer(config, first_experts_on_host(weights), device_ops("bf16", dry))
        hold("with experts on the host", one_by_one(split, ids[: plan.checked_tokens]), MANY_TOKENS_TOLERANCE)


def one_by_one(model: Transformer, ids: list[int], dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Logits of each token, computed alone; twice from the cache's beginning: recorded, and repeated."""
    cache = model.new_cache(64, dtype)
    for _ in range(2):
        cache.rewind(0)
        logits = torch.cat([model([token], cache, "last") for token in ids])
    return logits


def drawn_otherwise(model: Transformer, token: int, draws: int) -> float:
    """Return the share of tokens that a step draws on the device and `Sampler` would not from the same logits."""
    ways = (
        SamplingParams(temperature=0),
        SamplingParams(temperature=1),
        SamplingParams(temperature=0.7, top_k=40, top_p=0.9, min_p=0.01),
    )
    g = torch.Generator().manual_seed(3)
    words = -(-model.config.vocab_size // 32)
    some = LogitMask(torch.randint(-(2**31), 2**31, (words,), generator=g).to(torch.int32))
    cache = model.new_cache(64)
    step = model.step(cache)
    assert step is not None

    def differs(params: SamplingParams, mask: LogitMask | None) -> bool:
        cache.rewind(0)
        expected = Sampler(params).sample(step.logits(token).cpu(), mask)
        cache.rewind(0)
        found = Sampler(params).sample_on_device(lambda p, number: step.draw(token, p, number, mask), mask is not None)
        return found.id != expected.id

    found = [differs(replace(way, seed=seed), mask) for mask in (None, some) for way in ways for seed in range(draws)]
    return sum(found) / len(found)


def first_experts_on_host(weights: Weights) -> Weights:
    """Return the same weights, but the first layer's experts in host memory."""
    first, *others = weights.layers
    experts = moved(first.experts, "cpu")
    host = HostExperts(**{field.name: getattr(experts, field.name) for field in fields(Experts)})
    return replace(weights, layers=(replace(first, experts=host), *others))


def speed(figures: Figures, name: str, plan: Plan, weights: Weights, ops: Ops) -> None:
    """Tokens a second of prompts and answers, and the share of the bandwidth of a plain copy."""
    device = weights.embedding.device
    transformer = Transformer(plan.config, weights, ops)
    engine = LocalEngine(transformer, max_context=plan.longest)
    g = torch.Generator().manual_seed(1)

    def prompt(length: int) -> list[int]:
        return torch.randint(0, plan.config.vocab_size, (length,), generator=g).tolist()

    def decode(generation: Any) -> float:
        """Tokens a second, the median: sampling waits for the device, so each step has ended when its token comes."""
        steps = []
        begin = time.perf_counter()
        for _ in generation:
            steps.append(time.perf_counter() - begin)
            begin = time.perf_counter()
        return 1 / statistics.median(steps)

    params = SamplingParams(seed=0, max_tokens=plan.generated_tokens)
    for length in plan.prompts:
        # The first call compiles and loads what it needs.
        seconds = []
        for _ in range(plan.repetitions):
            generation = engine.generate(Request(tuple(prompt(length)), params))
            next(generation)
            seconds.append(generation.timing.prefill_s)
        figures.tell(f"{name}, prefill of {length}, first call, s", seconds[0])
        figures.tell(f"{name}, prefill of {length}, tok/s", length / min(seconds[1:]))
        if length == plan.prompts[0]:
            decode(generation)
            generation = engine.generate(Request(tuple(prompt(length)), params))
            next(generation)
            figures.tell(f"{name}, decode after {length}, tok/s", decode(generation))
            cut = replace(params, top_p=0.9, top_k=50)
            for turn in range(2):
                generation = engine.generate(Request(tuple(prompt(length)), cut))
                next(generation)
                rate = decode(generation)
                if turn:
                    figures.tell(f"{name}, decode with top-k and top-p, tok/s", rate)
    if device.type == "cuda":
        figures.tell(f"{name}, peak of the device's memory, GB", torch.cuda.max_memory_allocated() / 1e9)
    reads = ops.bytes_a_token(transformer.weights, plan.config)  # type: ignore[attr-defined]
    short = figures.values[f"{name}, decode after {plan.prompts[0]}, tok/s"]
    figures.tell(f"{name}, weights read a token, GB", reads / 1e9)
    figures.tell(f"{name}, share of the copy's bandwidth", short * reads / figures.values["copy, bytes/s"])  # type: ignore[operator]
    del engine, generation
    give_back()
    with torch.inference_mode():
        for context in plan.contexts:
            cache = transformer.new_cache(context + plan.generated_tokens + 16)
            cache.reserve(context + plan.generated_tokens + 16)
            for layer in range(len(plan.config.layers)):
                for buffer in cache.buffers(layer):
                    buffer.normal_()
            cache.advance(context)
            step = transformer.step(cache)
            assert step is not None
            seconds = []
            for turn in range(plan.generated_tokens + plan.repetitions):
                begin = time.perf_counter()
                step.draw(turn, params, 0.5, None)
                seconds.append(time.perf_counter() - begin)
            figures.tell(f"{name}, decode after {context}, tok/s", 1 / statistics.median(seconds[plan.repetitions :]))


def bandwidth(figures: Figures, ops: Ops, device: torch.device) -> None:
    """Measure a plain copy and a plain read of much memory."""
    size = 1 << 30 if device.type == "cuda" else 1 << 20
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))

    def best(run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(10):
            begin = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    figures.tell("copy, bytes/s", 2 * size / best(lambda: target.copy_(source)))
    figures.tell("read, bytes/s", size / best(lambda: ops.read_once(source)))  # type: ignore[attr-defined]


def start(figures: Figures, config: ModelConfig, dense: str, dry: bool) -> None:
    """From a file in the page cache to the first token, under a cap of memory too."""
    device = torch.device("cpu" if dry else "cuda")
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), config, random_weights(config, device))
        give_back()
        ids = list(range(64))
        options = LoadOptions(device=device.type, max_context=4096)
        for is_warm in (False, True):
            begin = time.perf_counter()
            loaded = load(Checkpoint.open(folder), options, ops=device_ops(dense, dry))
            ready = time.perf_counter()
            next(loaded.engine.generate(Request(tuple(ids), SamplingParams(seed=0))))
            if is_warm:
                figures.tell("load of a checkpoint, s", ready - begin)
                figures.tell("load to first token of 64, s", time.perf_counter() - begin)
            assert loaded.plan.placement is not None
            needed = loaded.plan.placement.device_bytes
            del loaded
            give_back()
        figures.tell("the model's own account of its memory, GB", needed / 1e9)
        # A card of which less is free: the experts of a third of the layers stay in host memory.
        third = sum(layer_expert_bytes(config, i, packed=True) for i in range(max(1, len(config.layers) // 3)))
        free = needed - third
        capped = load(Checkpoint.open(folder), replace(options, device_bytes=free), ops=device_ops(dense, dry))
        figures.tell("under a cap of memory", str(capped.plan.placement))
        generation = capped.engine.generate(Request(tuple(ids), SamplingParams(seed=0, max_tokens=4 if dry else 24)))
        next(generation)
        begin = time.perf_counter()
        tokens = sum(1 for _ in generation)
        figures.tell("decode under the cap, tok/s", tokens / (time.perf_counter() - begin))


def write_checkpoint(folder: Path, config: ModelConfig, weights: Weights) -> None:
    """Write a checkpoint of the hub's layout, in one file."""
    from safetensors.torch import save_file

    tensors = {
        "model.embed_tokens.weight": weights.embedding,
        "lm_head.weight": weights.unembedding.weight,
        "model.norm.weight": weights.norm,
    }
    for i, layer in enumerate(weights.layers):
        p = f"model.layers.{i}."
        for name in ("q", "k", "v", "o"):
            own = getattr(layer, name)
            tensors |= {f"{p}self_attn.{name}_proj.weight": own.weight, f"{p}self_attn.{name}_proj.bias": own.bias}
        tensors |= {
            p + "self_attn.sinks": layer.sinks,
            p + "input_layernorm.weight": layer.attention_norm,
            p + "post_attention_layernorm.weight": layer.mlp_norm,
            p + "mlp.router.weight": layer.router.weight,
            p + "mlp.router.bias": layer.router.bias,
        }
        for name in ("gate_up", "down"):
            e, matrix = f"{p}mlp.experts.{name}_proj", getattr(layer.experts, name)
            tensors |= {e + "_blocks": matrix.blocks, e + "_scales": matrix.scales}
            tensors[e + "_bias"] = getattr(layer.experts, f"{name}_bias")
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, folder / "model.safetensors")
    rope = config.rope
    written = {
        "model_type": "gpt_oss",
        "architectures": ["GptOssForCausalLM"],
        "num_hidden_layers": len(config.layers),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "swiglu_limit": config.swiglu_limit,
        "num_local_experts": config.layers[0].num_experts,
        "num_experts_per_tok": config.layers[0].experts_per_token,
        "max_position_embeddings": config.max_context_length,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "hidden_act": "silu",
        "sliding_window": config.layers[0].sliding_window,
        "layer_types": ["sliding_attention" if c.sliding_window else "full_attention" for c in config.layers],
        "rope_theta": rope.theta,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": rope.factor,
            "original_max_position_embeddings": rope.initial_context_length,
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "truncate": rope.truncate,
        },
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    }
    (folder / "config.json").write_text(json.dumps(written))


def model_parts(figures: Figures, name: str, plan: Plan, device: torch.device, dry: bool) -> None:
    """One model: right, then fast, with dense layers as they are and in eight bits."""
    with figures.part(f"{name} right"):
        few = replace(plan.config, layers=plan.config.layers[: plan.checked_layers])
        agreement(figures, name, plan, random_weights(few, device), dry)
    for dense in ("bf16", "int8"):
        with figures.part(f"{name} {dense} fast"):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            speed(figures, f"{name} {dense}", plan, random_weights(plan.config, device), device_ops(dense, dry))


def main() -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tiny models in the interpreter: all but the card")
    # The interpreter takes a second for a token: in a dry run, as little as goes through everything.
    dry = "--dry-run" in sys.argv
    sizes = {"models": "20b", "prompts": "10", "contexts": "20", "gen_tokens": 2} if dry else {}
    parser.add_argument("--models", default="20b,120b", help="which, by commas [20b,120b]")
    parser.add_argument("--prompts", default="1024,8192", help="lengths of prompts, by commas [1024,8192]")
    parser.add_argument("--contexts", default="8192,32768", help="positions at which to decode too [8192,32768]")
    parser.add_argument("--gen-tokens", type=int, default=64, help="tokens of an answer [64]")
    parser.add_argument("--no-start", action="store_true", help="write and load no checkpoint")
    parser.set_defaults(**sizes)
    arguments = parser.parse_args()
    if not dry and not torch.cuda.is_available():
        print("gpu_check: torch sees no GPU here; --dry-run goes the same way on the CPU", file=sys.stderr)
        return 1
    if dry:
        import numpy as np

        np.seterr(all="ignore")
    device = torch.device("cpu" if dry else "cuda")
    figures = Figures()
    figures.tell("device", "Triton's interpreter (dry run)" if dry else torch.cuda.get_device_name())
    figures.tell("torch", torch.__version__)
    import triton

    figures.tell("triton", triton.__version__)
    figures.tell("date", time.strftime("%Y-%m-%d"))
    ops = device_ops("bf16", dry)
    figures.tell("backend", ops.name)
    with figures.part("bandwidth"):
        bandwidth(figures, ops, device)
    prompts, contexts = (tuple(map(int, text.split(","))) for text in (arguments.prompts, arguments.contexts))
    configs = {name: published_config(name) for name in PUBLISHED}
    for name in arguments.models.split(","):
        config = tiny() if dry else configs[name]
        if not dry and name == "120b" and torch.cuda.mem_get_info()[0] < 75 << 30:
            figures.tell("120b", "not measured: it needs a card of 80 GB")
            continue
        checked, repetitions, draws = (3, 2, 1) if dry else (16, 3, 16)
        plan = Plan(config, 2, checked, prompts, contexts, arguments.gen_tokens, repetitions, draws)
        model_parts(figures, name, plan, device, dry)
        if name == "20b" and not arguments.no_start:
            with figures.part("start"):
                start(figures, config, "bf16", dry)
    print(json.dumps({**figures.values, "failed": figures.failed}))
    for failure in figures.failed:
        print(f"gpu_check: {failure}", file=sys.stderr)
    return 1 if figures.failed else 0


if __name__ == "__main__":
    sys.exit(main())
