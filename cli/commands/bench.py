"""`gptoss bench`: how fast a model runs on this machine, or would run."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gptoss.cli.base.errors import MemoryShortageError, UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import counted, one_line
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.lazy_loading import import_torch
from gptoss.cli.startup.machine import available_memory
from gptoss.cli.startup.options import Invocation
from gptoss.cli.startup.remotes import find_remote
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.terminal.ticker import Ticker
from gptoss.model.errors import ContextFullError, ModelNotFoundError

if TYPE_CHECKING:
    import torch

    from gptoss.cli.startup.loaded import LoadedModel
    from gptoss.model.config import ModelConfig
    from gptoss.model.inference.engine import LocalEngine
    from gptoss.model.measure.benchmark import Measurement, Plan, Speed, Subject
    from gptoss.model.ops import Ops

_LABEL_WIDTH = 10
_SECONDS = 45.0
"""Time limit for all repetitions."""
_HELD_UP = 0.75
"""Share of the cores kept busy by the threads; below it, something else delayed them."""
_LAYER_CHOICES = (4, 2)
"""Numbers of layers to measure: even, as windows alternate."""
_COMFORTABLE_BYTES = 4_000_000_000
"""Bytes of random weights above which two layers have to do."""


class Synthetic(StrEnum):
    """Models whose shapes are known without their files."""

    GPT_OSS_20B = "20b"
    GPT_OSS_120B = "120b"


@dataclass(frozen=True)
class Run:
    """A measurement and its subject.

    Attributes:
        model: its name.
        num_layers: layers of the whole model.
        measured_layers: layers of random weights that were measured instead; None: the model itself was measured.
        plan: the size of the measurement.
        measurement: its result.
        device: where the model ran.
        load_s: seconds to load it, extrapolated if only some layers were measured.
        loading: how the weights were read; None: they are random.
        needed_bytes: memory that the whole model uses; None: it was measured itself.
    """

    model: str
    num_layers: int
    measured_layers: int | None
    plan: Plan
    measurement: Measurement
    device: torch.device
    load_s: float
    loading: str | None = None
    needed_bytes: int | None = None


def bench(
    invocation: Invocation,
    prompt_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Length of each prompt.")] = 256,
    gen_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens decoded after each prompt.")] = 32,
    repetitions: Annotated[
        int, typer.Option("-r", "--repetitions", min=1, metavar="N", help="Repetitions; fewer if they take too long.")
    ] = 5,
    synthetic: Annotated[
        Synthetic | None,
        typer.Option(help="Use random weights in this model's shapes; needs no download."),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="On a server: also N answers at once.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> ExitStatus:
    """Measure how fast a model runs on this machine.

    Prefill is the reading of a prompt, decoding the writing of an answer; between the tokens a plain loop reads memory,
    which bounds decoding. Takes about a minute. Of a model on a server: the time to the first token, and the speed.
    """
    if synthetic is None and find_remote(invocation.settings.model, invocation.folders) is not None:
        return _bench_server(invocation, prompt_tokens, gen_tokens, repetitions, parallel or 0, as_json=as_json)
    if parallel is not None:
        raise UsageError("--parallel is for models on a server (-m URL)")
    import_torch()
    from gptoss.model.measure.benchmark import Plan

    environment = invocation.environment
    plan = Plan(prompt_tokens, gen_tokens, repetitions, _SECONDS)
    status_line = StatusLine(environment.messages())
    try:
        if synthetic is None:
            run = _measure_model(invocation, plan, status_line)
        else:
            for name in ("model", "quantize"):
                if name in invocation.flags:
                    raise UsageError(f"--synthetic and --{name} exclude each other")
            run = _measure_synthetic(invocation, synthetic, plan, status_line)
    finally:
        status_line.clear()
    output = environment.output()
    if as_json:
        output.write(output.safe(json.dumps(_as_json(run), ensure_ascii=False)) + "\n")
    else:
        output.write("".join(f"{label:{_LABEL_WIDTH}} {one_line(value)}\n" for label, value in _as_text(run)))
    return ExitStatus.ANSWERED


def _bench_server(
    invocation: Invocation, prompt_tokens: int, gen_tokens: int, repetitions: int, parallel: int, *, as_json: bool
) -> ExitStatus:
    from gptoss.cli.commands.bench_server import measure_server

    environment = invocation.environment
    status_line = StatusLine(environment.messages())
    try:
        run = measure_server(invocation, status_line, prompt_tokens, max(2, gen_tokens), repetitions, parallel)
    finally:
        status_line.clear()
    output = environment.output()
    output.write(output.safe(run.as_json() + "\n" if as_json else run.as_text()))
    return ExitStatus.ANSWERED


def _measure_model(invocation: Invocation, plan: Plan, status_line: StatusLine) -> Run:
    """Measure a model of this machine.

    Raises:
        ModelError, MemoryShortageError: it is missing or cannot be used.
        UsageError: it cannot hold so many tokens.
    """
    # Imported before the clock is started: loading is measured, importing is not.
    import gptoss.cli.startup.loading  # noqa: F401
    from gptoss.cli.startup.opening import load
    from gptoss.model.measure.benchmark import WholeModel

    load_model, load_s = invocation.environment.load_model, 0.0

    def timed(request: LoadRequest) -> LoadedModel:
        nonlocal load_s
        begin = time.perf_counter()
        loaded = load_model(request)
        load_s = time.perf_counter() - begin
        return loaded

    timing = replace(
        invocation,
        environment=replace(invocation.environment, load_model=timed),
        settings=replace(invocation.settings, ctx=plan.context),
    )
    model = invocation.settings.model
    try:
        loaded = load(timing, model, status_line)
    except ModelNotFoundError as error:
        if model not in list(Synthetic):
            raise
        raise ModelNotFoundError(f"{error}; --synthetic {model} measures without it") from None
    except ContextFullError as error:
        wanted = f"--prompt-tokens {plan.prompt_tokens}, --gen-tokens {plan.gen_tokens}"
        raise UsageError(f"{wanted}: {error}") from None
    # A session needs less of an engine than is measured here.
    engine = cast("LocalEngine", loaded.engine)
    transformer = engine.transformer
    measurement = _measure(WholeModel(engine), plan, model, status_line)
    loading = None if loaded.plan is None else loaded.plan.loading
    return Run(model, transformer.config.num_layers, None, plan, measurement, transformer.device, load_s, loading)


def _measure_synthetic(invocation: Invocation, model: Synthetic, plan: Plan, status_line: StatusLine) -> Run:
    """Measure a few layers of random weights instead of a model.

    Raises:
        MemoryShortageError: not even they fit.
        DeviceError: there is no such device.
        UsageError: the model could not hold so many tokens.
    """
    from gptoss.cli.startup.loading import load_options
    from gptoss.model.checkpoints.published_configs import published_config
    from gptoss.model.loading.plan import plan_load
    from gptoss.model.loading.threads import use_threads
    from gptoss.model.measure.benchmark import few_layers
    from gptoss.model.measure.synthetic import SyntheticModel

    whole = published_config(model)
    if plan.context > whole.max_context_length:
        raise UsageError(f"{plan.context:,} tokens of prompt and answer: {model} can hold {whole.max_context_length:,}")
    loading = plan_load(SyntheticModel(whole), load_options(invocation.settings))
    if loading.fallback is not None:
        status_line.leave(f"gptoss: {loading.fallback}; falling back to the CPU", always=True)
    use_threads(loading.threads)
    num_layers = _layers_that_fit(model, loading.ops, plan)
    with Ticker(status_line, f"making {num_layers} layers of {model} at random"):
        subject, load_s = few_layers(whole, num_layers, loading.device, loading.ops, plan.context)
    measurement = _measure(subject, plan, model, status_line)
    needed = loading.need.whole
    return Run(model, whole.num_layers, num_layers, plan, measurement, loading.device, load_s, needed_bytes=needed)


def _layers_that_fit(model: Synthetic, ops: Ops, plan: Plan) -> int:
    """Choose the number of layers of random weights.

    Raises:
        MemoryShortageError: not even the smallest choice fits.
    """
    from gptoss.model.checkpoints.published_configs import published_config
    from gptoss.model.inference.context import PREFILL_CHUNK
    from gptoss.model.measure.synthetic import synthetic_bytes
    from gptoss.model.tensors.sizes import cache_bytes

    def need(config: ModelConfig) -> int:
        working = ops.working_bytes(config, min(plan.prompt_tokens, PREFILL_CHUNK), plan.context)
        return synthetic_bytes(config) + ops.made_bytes(config) + cache_bytes(config, plan.context) + working

    available = available_memory()
    most, fewest = (published_config(model, layers) for layers in _LAYER_CHOICES)
    if available is None or need(most) <= min(available / 2, _COMFORTABLE_BYTES):
        return most.num_layers
    if need(fewest) > available:
        raise MemoryShortageError(
            f"{fewest.num_layers} layers of {model} need {show_bytes(need(fewest))} of memory, but "
            f"{show_bytes(available)} are free: with fewer there is nothing to measure"
        )
    return fewest.num_layers


def _measure(subject: Subject, plan: Plan, model: str, status_line: StatusLine) -> Measurement:
    from gptoss.model.measure.benchmark import measure

    with Ticker(status_line, f"measuring {model}") as ticker:

        def notify(part: float) -> None:
            ticker.text = f"measuring {model}: {part:.0%}"

        return measure(subject, plan, notify)


def _as_text(run: Run) -> list[tuple[str, str]]:
    from gptoss.model.measure.benchmark import peak_device_bytes, peak_rss_bytes

    measured, plan = run.measurement, run.plan
    first = f"; the first prompt took {measured.first_prefill_s:.3g} s" if len(measured.prefill.runs) > 1 else ""
    memory = f"{show_bytes(peak_rss_bytes())} at most"
    if (on_device := peak_device_bytes(run.device)) is not None:
        memory += f", and {show_bytes(on_device)} of {run.device}"
    lines = [
        ("model", _what_ran(run)),
        ("backend", f"{measured.backend} on {run.device}; {_threads(measured)}"),
        ("load", f"{run.load_s:.2f} s" + ("" if run.loading is None else f": {run.loading}")),
        ("prefill", f"{_speed(measured.prefill)} of {counted(plan.prompt_tokens, 'token')}{first})"),
        ("decode", f"{_speed(measured.decode)} of {counted(_decoded_in_a_run(run), 'token')})"),
        (
            "bandwidth",
            f"{show_bytes(measured.bytes_per_token)} a token, {show_bytes(measured.decode_bytes_per_s)}/s: "
            f"{_percent(measured.share_of_read_loop)} of a plain read loop's {show_bytes(measured.read_bytes_per_s)}/s",
        ),
        ("memory", memory),
        ("kernels", _kernels(measured)),
    ]
    if len(measured.decode.runs) < plan.repetitions or measured.decoded_tokens < plan.repetitions * plan.gen_tokens:
        lines.append(("cut short", f"after {_SECONDS:.0f} s: {counted(measured.decoded_tokens, 'token')} were decoded"))
    if run.device.type == "cpu" and measured.cores_busy < _HELD_UP * measured.threads:
        lines.append(("held up", "by other programs or the disk: the threads did not run all the time"))
    return lines + _reckoning(run)


def _what_ran(run: Run) -> str:
    if run.measured_layers is None:
        return f"{run.model}, {counted(run.num_layers, 'layer')}"
    return f"{run.model}, random weights: {run.measured_layers} of its {run.num_layers} layers"


def _threads(measured: Measurement) -> str:
    return f"{counted(measured.threads, 'thread')}, {measured.cores_busy:.1f} cores busy while decoding"


def _kernels(measured: Measurement) -> str:
    """List the calls of kernels by level."""
    levels: dict[str, list[str]] = {}
    for name, calls in sorted(measured.kernel_calls.items()):
        level, _, operation = name.partition(".")
        levels.setdefault(level, []).append(f"{operation} {calls}")
    described = (f"{level} ({', '.join(operations)})" for level, operations in levels.items())
    return "; ".join(described) or "none that are compiled"


def _decoded_in_a_run(run: Run) -> int:
    measured = run.measurement
    return measured.decoded_tokens if len(measured.decode.runs) == 1 else run.plan.gen_tokens


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _speed(speed: Speed) -> str:
    if len(speed.runs) == 1:
        return f"{_number(speed.median)} tok/s (1 run"
    lowest, highest = _number(min(speed.runs)), _number(max(speed.runs))
    return f"{_number(speed.median)} tok/s ({lowest} to {highest} in {len(speed.runs)} runs"


def _reckoning(run: Run) -> list[tuple[str, str]]:
    """Explain how the figures were extrapolated from a few layers, and their limits."""
    if run.measured_layers is None or run.needed_bytes is None:
        return []
    factor = run.num_layers / run.measured_layers
    how = f"the time of the layers {factor:.3g} times, and once that of the unembedding and of sampling, measured apart"
    lines = [("estimated", f"{how}; loading by the bytes that it makes; memory is that of the measured layers")]
    available = available_memory()
    needs = f"{run.model} itself uses {show_bytes(run.needed_bytes)}"
    if run.device.type == "cpu" and available is not None and run.needed_bytes > available:
        needs += (
            f", but {show_bytes(available)} are free here: it would be read from the disk again and again, far slower"
        )
    return [*lines, ("needed", needs)]


def _as_json(run: Run) -> dict[str, Any]:
    from importlib.metadata import version

    from gptoss.model.measure.benchmark import peak_device_bytes, peak_rss_bytes

    measured, plan = run.measurement, run.plan
    return {
        "version": version("gptoss"),
        "model": run.model,
        "layers": run.num_layers,
        "measured_layers": run.num_layers if run.measured_layers is None else run.measured_layers,
        "synthetic": run.measured_layers is not None,
        "backend": measured.backend,
        "device": str(run.device),
        "threads": measured.threads,
        "cores_busy": measured.cores_busy,
        "kernel_calls": dict(measured.kernel_calls),
        "load_s": run.load_s,
        "loading": run.loading,
        "first_prefill_s": measured.first_prefill_s,
        "prompt_tokens": plan.prompt_tokens,
        "prefill_tokens_per_s": measured.prefill.median,
        "prefill_tokens_per_s_runs": list(measured.prefill.runs),
        "gen_tokens": plan.gen_tokens,
        "decoded_tokens": measured.decoded_tokens,
        "decode_tokens_per_s": measured.decode.median,
        "decode_tokens_per_s_runs": list(measured.decode.runs),
        "bytes_per_token": measured.bytes_per_token,
        "weight_bytes_per_token": measured.weight_bytes_per_token,
        "cache_bytes_per_token": measured.cache_bytes_per_token,
        "decode_bytes_per_s": measured.decode_bytes_per_s,
        "read_bytes_per_s": measured.read_bytes_per_s,
        "share_of_read_loop": measured.share_of_read_loop,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_device_bytes": peak_device_bytes(run.device),
        "needed_bytes": run.needed_bytes,
    }
