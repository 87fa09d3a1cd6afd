"""Measures prefill and decode, and the bandwidth of a plain read loop between decoded tokens.

Decoding reads each weight that a token uses about once, so its share of the read loop's bandwidth shows how much is
left to gain. Knows no terminal; returns numbers.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.config import ModelConfig
from gptoss.model.inference.context import PREFILL_CHUNK
from gptoss.model.inference.engine import LocalEngine
from gptoss.model.inference.generation import LocalGeneration
from gptoss.model.inference.sampler import Sampler
from gptoss.model.interface import Request, SamplingParams
from gptoss.model.measure.synthetic import synthetic_weights
from gptoss.model.ops import Ops
from gptoss.model.tensors.cache import KVCache
from gptoss.model.tensors.sizes import cache_bytes_read
from gptoss.model.tensors.weights import Experts

Progress = Callable[[float], None]

READ_EVERY = 4
"""Tokens between two runs of the read loop."""
_WARM_UP_TOKENS = 2
_FEW_FAULTS = 50
"""Page faults served by the disk; more than this means that weights were not in memory yet."""
_SMALLEST_READ = 64 << 20
"""Fewest bytes that the read loop reads: well beyond most caches."""


@dataclass(frozen=True)
class Plan:
    """The size of a measurement.

    Attributes:
        prompt_tokens: tokens of each prompt, at least one.
        gen_tokens: tokens decoded after each prompt, at least one.
        repetitions: of both.
        seconds: after this, no repetition begins, and decoding is cut short.
    """

    prompt_tokens: int
    gen_tokens: int
    repetitions: int
    seconds: float

    @property
    def context(self) -> int:
        """Context length that it needs."""
        return self.prompt_tokens + self.gen_tokens + _WARM_UP_TOKENS + 1


@dataclass(frozen=True)
class Speed:
    """Tokens a second of each repetition."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.runs)


@dataclass(frozen=True)
class Measurement:
    """The result of a measurement.

    Attributes:
        prefill, decode: tokens a second.
        first_prefill_s: seconds of the first prompt, which also reads the weights into memory.
        decoded_tokens: total tokens that `decode` is measured on.
        backend: description of the backend.
        threads: that torch and the kernels may use on the CPU.
        weight_bytes_per_token: of weights that a decoded token reads.
        cache_bytes_per_token: of keys and values, at half of the decoded tokens.
        read_bytes_per_s: of the plain read loop, the median of its runs.
        cores_busy: CPU time over wall time while decoding.
        kernel_calls: of compiled kernels, by name.
    """

    prefill: Speed
    decode: Speed
    first_prefill_s: float
    decoded_tokens: int
    backend: str
    threads: int
    weight_bytes_per_token: int
    cache_bytes_per_token: int
    read_bytes_per_s: float
    cores_busy: float
    kernel_calls: Mapping[str, int]

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a decoded token reads."""
        return self.weight_bytes_per_token + self.cache_bytes_per_token

    @property
    def decode_bytes_per_s(self) -> float:
        """Bytes that decoding reads a second."""
        return self.decode.median * self.bytes_per_token

    @property
    def share_of_read_loop(self) -> float:
        """Decoding's share of the read loop's bandwidth."""
        return self.decode_bytes_per_s / self.read_bytes_per_s


class Subject(Protocol):
    """The subject of a measurement: times a prompt, then one token after the other."""

    ops: Ops
    config: ModelConfig
    weight_bytes_per_token: int

    def prefill(self, ids: Sequence[int]) -> float:
        """Compute a prompt and the logits of its last token; return the seconds."""
        ...

    def step(self) -> float:
        """Compute the next token; return the seconds."""
        ...

    def read_target(self) -> Tensor:
        """Return weights that every token reads completely."""
        ...


class WholeModel:
    """A model with its engine's own prefill, decoding and sampling."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._generation: LocalGeneration | None = None
        self.ops = engine.transformer.ops
        self.config = engine.transformer.config
        self.weight_bytes_per_token = weight_bytes_per_token(engine.transformer)

    def prefill(self, ids: Sequence[int]) -> float:
        """Return the engine's own timing."""
        self._generation = self._engine.generate(Request(tuple(ids), SamplingParams(seed=0), ignore_stop=True))
        next(self._generation)
        return self._generation.timing.prefill_s

    def step(self) -> float:
        """Return one token of the generation; sampling it waits for the device."""
        assert self._generation is not None
        begin = time.perf_counter()
        next(self._generation)
        return time.perf_counter() - begin

    def read_target(self) -> Tensor:
        """Return the unembedding."""
        return self._engine.transformer.weights.unembedding.weight


class FewLayers:
    """A few layers of a model and its unembedding, timed apart and extrapolated to the whole model.

    The layers' time is scaled by the number of layers; the rest of a token (last norm, unembedding, sampling) counts
    once.

    Args:
        transformer: the few layers, with the same pattern of windows as the whole.
        whole: the config of the whole model.
        context: tokens of prompt and answer at most.
    """

    def __init__(self, transformer: Transformer, whole: ModelConfig, context: int) -> None:
        self._transformer = transformer
        self._factor = whole.num_layers / transformer.config.num_layers
        self._cache: KVCache = transformer.new_cache(context)
        self._sampler = Sampler(SamplingParams(seed=0))
        self._hidden = torch.randn(1, whole.hidden_size, device=transformer.device)
        self.ops = transformer.ops
        self.config = whole
        layers = layer_bytes(transformer)
        self.weight_bytes_per_token = round(layers * self._factor) + head_bytes(transformer)

    def prefill(self, ids: Sequence[int]) -> float:
        """Return all chunks through the layers, and one token's rest."""
        self._cache.rewind(0)
        layers = 0.0
        for begin in range(0, len(ids), PREFILL_CHUNK):
            layers += self._layers(ids[begin : begin + PREFILL_CHUNK])
        return layers * self._factor + self._rest()

    def step(self) -> float:
        """Return a token through the layers, and its rest."""
        return self._layers([self._token]) * self._factor + self._rest()

    def read_target(self) -> Tensor:
        """Return the unembedding."""
        return self._transformer.weights.unembedding.weight

    @torch.inference_mode()
    def _layers(self, ids: Sequence[int]) -> float:
        begin = time.perf_counter()
        self._transformer(ids, self._cache, "none")
        _wait_for(self._transformer.device)
        return time.perf_counter() - begin

    @torch.inference_mode()
    def _rest(self) -> float:
        begin = time.perf_counter()
        weights = self._transformer.weights
        x = self.ops.rms_norm(self._hidden, weights.norm, self.config.rms_norm_eps)
        token = self._sampler.sample(self.ops.linear(x, weights.unembedding).flatten())
        self._token = token.id
        return time.perf_counter() - begin


def few_layers(
    whole: ModelConfig, num_layers: int, device: torch.device, ops: Ops, context: int
) -> tuple[FewLayers, float]:
    """Make random weights for the first layers of a model.

    Returns:
        The subject, and the seconds that loading the whole would take, extrapolated by the bytes repacked at load.
    """
    config = replace(whole, layers=whole.layers[:num_layers])
    weights = synthetic_weights(config, device)
    begin = time.perf_counter()
    transformer = Transformer(config, weights, ops)
    seconds = time.perf_counter() - begin
    if made := ops.made_bytes(config):
        seconds *= ops.made_bytes(whole) / made
    return FewLayers(transformer, whole, context), seconds


def measure(subject: Subject, plan: Plan, progress: Progress | None = None) -> Measurement:
    """Measure prefill and decode in turn, after one prompt that does not count.

    If the first prompt takes more than half of the plan's seconds, and not because of the disk, it counts and is the
    only one.

    Args:
        subject: what to measure.
        plan: how much to measure.
        progress: called with the part that is done, up to 1.

    Raises:
        ContextFullError: the model cannot hold the plan's context.
    """
    clock = _Clock(plan, progress)
    ids = _Prompts(subject.config.vocab_size, plan.prompt_tokens)
    faults, calls_before = _major_faults(), subject.ops.counts()
    first = subject.prefill(next(ids))
    from_disk = _major_faults() - faults > _FEW_FAULTS
    clock.advance(plan.prompt_tokens)
    prefills = [first] if first > plan.seconds / 2 and not from_disk else []
    for _ in range(min(_WARM_UP_TOKENS, plan.gen_tokens)):
        subject.step()
    data = _large_enough(subject.read_target())
    if not prefills:
        calls_before = subject.ops.counts()
    clock.start()
    decodes: list[list[float]] = []
    reads: list[float] = []
    busy = wall = 0.0
    for repetition in range(plan.repetitions):
        if repetition and clock.is_over():
            break
        # If the first prompt counts, decoding goes on from it.
        if len(prefills) == repetition:
            prefills.append(subject.prefill(next(ids)))
        clock.advance(plan.prompt_tokens)
        steps: list[float] = []
        for index in range(plan.gen_tokens):
            cpu, begin = time.process_time(), time.perf_counter()
            steps.append(subject.step())
            busy, wall = busy + time.process_time() - cpu, wall + time.perf_counter() - begin
            if index % READ_EVERY == 0:
                begin = time.perf_counter()
                subject.ops.read_once(data)
                reads.append(data.nbytes / (time.perf_counter() - begin))
            clock.advance(1)
            if index and clock.is_over():
                break
        decodes.append(steps)
    calls = {name: count - calls_before.get(name, 0) for name, count in subject.ops.counts().items()}
    return Measurement(
        prefill=Speed(tuple(plan.prompt_tokens / seconds for seconds in prefills)),
        decode=Speed(tuple(len(steps) / sum(steps) for steps in decodes)),
        first_prefill_s=first,
        decoded_tokens=sum(map(len, decodes)),
        backend=subject.ops.description,
        threads=subject.ops.threads,
        weight_bytes_per_token=subject.weight_bytes_per_token,
        cache_bytes_per_token=cache_bytes_read(subject.config, plan.prompt_tokens + plan.gen_tokens // 2),
        read_bytes_per_s=statistics.median(reads),
        cores_busy=busy / wall,
        kernel_calls={name: count for name, count in calls.items() if count},
    )


def weight_bytes_per_token(transformer: Transformer) -> int:
    """Return the bytes of weights that one token reads: the dense layers in the backend's form, and its experts."""
    return layer_bytes(transformer) + head_bytes(transformer)


def layer_bytes(transformer: Transformer) -> int:
    """Return the part of `weight_bytes_per_token` in the layers."""
    total = 0
    for layer, config in zip(transformer.weights.layers, transformer.config.layers, strict=True):
        total += sum(map(transformer.ops.bytes_read, (layer.q, layer.k, layer.v, layer.o, layer.router)))
        total += _nbytes(layer.experts) * config.experts_per_token // config.num_experts
    return total


def head_bytes(transformer: Transformer) -> int:
    """Return the part of `weight_bytes_per_token` in the unembedding."""
    return transformer.ops.bytes_read(transformer.weights.unembedding)


def peak_rss_bytes() -> int:
    """Return the peak memory of this process so far, including pages of mapped files."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _major_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def peak_device_bytes(device: torch.device) -> int | None:
    """Return torch's peak memory on a GPU so far; None: not a GPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _nbytes(experts: Experts) -> int:
    return int(experts.gate_up.nbytes + experts.down.nbytes)


def _large_enough(data: Tensor) -> Tensor:
    """Return `data`, or other memory that is larger than any cache."""
    if data.nbytes >= _SMALLEST_READ:
        return data
    return torch.full((_SMALLEST_READ,), 1, dtype=torch.uint8, device=data.device)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class _Prompts(Iterator[list[int]]):
    """Random prompts without common prefixes, which the engine would not compute again."""

    def __init__(self, vocab_size: int, length: int) -> None:
        self._vocab_size = vocab_size
        self._length = length
        self._number = 0
        self._generator = torch.Generator().manual_seed(0)

    def __next__(self) -> list[int]:
        ids: list[int] = torch.randint(self._vocab_size, (self._length,), generator=self._generator).tolist()
        ids[0] = self._number % self._vocab_size
        self._number += 1
        return ids


class _Clock:
    """Progress, and whether the time is over."""

    def __init__(self, plan: Plan, progress: Progress | None) -> None:
        self._progress = progress
        self._seconds = plan.seconds
        self._total = plan.prompt_tokens + plan.repetitions * (plan.prompt_tokens + plan.gen_tokens)
        self._done = 0
        self.start()

    def start(self) -> None:
        self._began = time.monotonic()

    def is_over(self) -> bool:
        return time.monotonic() - self._began > self._seconds

    def advance(self, tokens: int) -> None:
        self._done += tokens
        if self._progress is not None:
            self._progress(self._done / self._total)
