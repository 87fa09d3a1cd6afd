"""Figures of the model on a GPU, in one call: correctness against the CPU, speed, memory.

Builds a full-size gpt-oss-20b of random weights on the device (nothing is read from disk), holds a few of its layers
against the same layers on the CPU in float32, then measures prefill and decode. Imports `gptoss.model` only.

    python benchmarks/gpu_check.py                 on the GPU
    python benchmarks/gpu_check.py --dry-run       the same way with a tiny model on the CPU

Prints a table for people and a last line of JSON for programs; exits with 1 if the device disagrees with the CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gptoss.model import Engine, SamplingParams, Transformer, Weights
from gptoss.model.config import LayerConfig, ModelConfig, RopeConfig
from gptoss.model.mxfp4 import Mxfp4Tensor
from gptoss.model.ops import Ops, select_ops
from gptoss.model.weights import Experts, LayerWeights, Linear

# Of the relative error of the logits: both sides compute in float32, in a different order of summation.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Plan:
    """What is built and measured."""

    config: ModelConfig
    checked_layers: int
    prompt_tokens: int
    generated_tokens: int


def gpt_oss_20b() -> ModelConfig:
    """The published 20b."""
    return ModelConfig(
        hidden_size=2880,
        intermediate_size=2880,
        vocab_size=201088,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=64,
        rope=RopeConfig(theta=150000.0, factor=32.0, initial_context_length=4096),
        max_context_length=131072,
        layers=tuple(LayerConfig(32, 4, 128 if i % 2 == 0 else None) for i in range(24)),
    )


def gpt_oss_120b() -> ModelConfig:
    """The published 120b."""
    return replace(gpt_oss_20b(), layers=tuple(LayerConfig(128, 4, 128 if i % 2 == 0 else None) for i in range(36)))


def tiny() -> ModelConfig:
    """The same architecture, small enough for any machine."""
    return replace(
        gpt_oss_20b(),
        hidden_size=64,
        intermediate_size=96,
        vocab_size=512,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        layers=tuple(LayerConfig(8, 2, 16 if i % 2 == 0 else None) for i in range(4)),
    )


def random_weights(config: ModelConfig, device: torch.device, seed: int = 0) -> Weights:
    """Weights of plausible scale, made on the device."""
    g = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)

    def normal(*shape: int, std: float = 0.02, mean: float = 0.0) -> Tensor:
        return torch.empty(*shape, dtype=torch.bfloat16, device=device).normal_(mean, std, generator=g)

    def linear(rows: int, columns: int) -> Linear:
        return Linear(normal(rows, columns), normal(rows))

    def mxfp4(experts: int, rows: int, columns: int) -> Mxfp4Tensor:
        def codes(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, dtype=torch.uint8, device=device, generator=g)

        return Mxfp4Tensor(
            codes(0, 256, experts, rows, columns // 32, 16), codes(119, 122, experts, rows, columns // 32)
        )

    def layer(shape: LayerConfig) -> LayerWeights:
        hidden, width, experts = config.hidden_size, config.intermediate_size, shape.num_experts
        q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        return LayerWeights(
            attention_norm=normal(hidden, std=0.05, mean=1.0),
            q=linear(q, hidden),
            k=linear(kv, hidden),
            v=linear(kv, hidden),
            o=linear(hidden, q),
            sinks=normal(config.num_attention_heads, std=1.0),
            mlp_norm=normal(hidden, std=0.05, mean=1.0),
            router=linear(experts, hidden),
            experts=Experts(
                gate_up=mxfp4(experts, 2 * width, hidden),
                gate_up_bias=normal(experts, 2 * width),
                down=mxfp4(experts, hidden, width),
                down_bias=normal(experts, hidden),
            ),
        )

    return Weights(
        embedding=normal(config.vocab_size, config.hidden_size, std=1.0),
        layers=tuple(layer(shape) for shape in config.layers),
        norm=normal(config.hidden_size, std=0.05, mean=1.0),
        unembedding=Linear(normal(config.vocab_size, config.hidden_size)),
    )


def moved(part: Any, device: str) -> Any:
    """The same weights, or any part of them, on another device."""
    if isinstance(part, Tensor):
        return part.to(device)
    if isinstance(part, tuple):
        return tuple(moved(p, device) for p in part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{f.name: moved(getattr(part, f.name), device) for f in fields(part)})
    return part


def disagreement(plan: Plan, weights: Weights, ops: Ops, ids: list[int]) -> float:
    """Relative error of the device's logits against plain float32 on the CPU, over the first layers of the model."""
    config = replace(plan.config, layers=plan.config.layers[: plan.checked_layers])
    here = replace(weights, layers=weights.layers[: plan.checked_layers])
    with torch.inference_mode():
        on_device = Transformer(config, here, ops)(ids).cpu()
        on_cpu = Transformer(config, moved(here, "cpu"), select_ops("reference"))(ids)
    return float((on_device - on_cpu).norm() / on_cpu.norm())


def measure(plan: Plan, weights: Weights, ops: Ops) -> dict[str, float]:
    """Tokens per second of one prompt and its answer; the median over the answer's tokens."""
    engine = Engine(Transformer(plan.config, weights, ops), max_context=plan.prompt_tokens + plan.generated_tokens + 1)
    ids = torch.randint(0, plan.config.vocab_size, (plan.prompt_tokens,)).tolist()
    params = SamplingParams(seed=0, max_tokens=plan.generated_tokens)
    next(engine.generate(ids[:8], params))  # the first call loads the device's libraries
    generation = engine.generate(ids, params)
    next(generation)
    steps = []
    begin = time.perf_counter()
    for _ in generation:  # sampling reads the logits, so each step has ended on the device when its token comes
        steps.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    return {
        "prefill_tokens_per_s": (plan.prompt_tokens - generation.cached_tokens) / generation.timing.prefill_s,
        "decode_tokens_per_s": 1 / statistics.median(steps),
    }


def main() -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the CPU: everything but the card")
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--gen-tokens", type=int, default=32)
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        print("gpu_check: torch sees no GPU here; --dry-run goes the same way on the CPU", file=sys.stderr)
        return 1
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    config = tiny() if arguments.dry_run else gpt_oss_20b()
    plan = Plan(config, min(4, len(config.layers)), arguments.prompt_tokens, arguments.gen_tokens)

    # The dry run goes the plain way too: kernels for the CPU are not what it is about.
    ops = select_ops("reference") if arguments.dry_run else select_ops(device=device)
    begin = time.perf_counter()
    weights = random_weights(config, device)
    result: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu (dry run)",
        "torch": torch.__version__,
        "backend": ops.name,
        "build_s": time.perf_counter() - begin,
    }
    error = disagreement(plan, weights, ops, list(range(40)))
    result |= {"relative_error_against_cpu": error, **measure(plan, weights, ops)}
    if device.type == "cuda":
        result["peak_device_bytes"] = torch.cuda.max_memory_allocated()

    for name, value in result.items():
        print(f"{name:>28}  {value:.6g}" if isinstance(value, float) else f"{name:>28}  {value}")
    print(json.dumps(result))
    if not error <= TOLERANCE:
        print(f"gpu_check: the device disagrees with the CPU: {error:.3g} > {TOLERANCE:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
