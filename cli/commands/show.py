"""`gptoss show`: what a model on this machine is, without running it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.settings import Folders, Settings, load_settings
from gptoss.cli.base.text import one_line
from gptoss.cli.startup import completions
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.lazy_loading import import_torch
from gptoss.cli.startup.options import HomeOption
from gptoss.model.checkpoints.catalog import locate
from gptoss.model.errors import ModelError

if TYPE_CHECKING:
    from gptoss.model.checkpoints.adapter import Adapter
    from gptoss.model.checkpoints.checkpoint import Checkpoint
    from gptoss.model.checkpoints.describe import Description
    from gptoss.model.loading.plan import LoadPlan

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name, a hub repository, a folder, or a GGUF file.", autocompletion=completions.models
    ),
]

_LABEL_WIDTH = 12


def show(
    context: typer.Context,
    model: ModelArgument,
    ctx: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Context length for the memory estimate. [default: the longest]"),
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option("--adapter", metavar="DIR", help="Show what a LoRA adapter changes, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    home: HomeOption = None,
) -> ExitStatus:
    """Show what a model is: layers, precisions, size, memory, licence; and how it would run here."""
    environment: Environment = context.obj
    folders = Folders.locate(environment.variables, home)
    settings = load_settings({"ctx": ctx, "adapters": adapter}, environment.variables, folders.config)
    folder = locate(model, folders.models, folders.hub_cache, folders.others)
    import_torch()
    from gptoss.cli.startup.encodings import load_encoding
    from gptoss.model.checkpoints.adapter import Adapter
    from gptoss.model.checkpoints.checkpoint import Checkpoint
    from gptoss.model.checkpoints.describe import describe

    checkpoint = Checkpoint.open(folder)
    longest = checkpoint.config.max_context_length
    if ctx is not None and ctx > longest:
        raise UsageError(f"--ctx {ctx}: this model can hold {longest:,} tokens")
    description = describe(checkpoint)
    adapters = [Adapter.open(each, checkpoint.config) for each in settings.adapter_folders]
    tokenizer = load_encoding(folder, checkpoint.config.vocab_size).name
    here = _how_it_would_run(checkpoint, settings)
    output = environment.output()
    if as_json:
        result = _as_json(model, description, tokenizer, ctx or longest, here)
        result["adapters"] = [_adapter_as_json(each) for each in adapters]
        output.write(output.safe(json.dumps(result, ensure_ascii=False)) + "\n")
    else:
        for label, value in _as_text(model, description, tokenizer, ctx or longest, here):
            output.write(f"{label:{_LABEL_WIDTH}} {one_line(value)}\n")
        for each in adapters:
            output.write(f"{'adapter':{_LABEL_WIDTH}} {one_line(str(each.folder))}: {one_line(str(each))}\n")
    return ExitStatus.ANSWERED


def _how_it_would_run(checkpoint: Checkpoint, settings: Settings) -> LoadPlan | ModelError:
    """Return the plan for loading it, or why it cannot be loaded."""
    from gptoss.cli.startup.loading import load_options
    from gptoss.model.loading.plan import plan_load

    try:
        return plan_load(checkpoint, load_options(settings))
    except ModelError as error:
        return error


def _as_text(
    model: str, description: Description, tokenizer: str, ctx: int, here: LoadPlan | ModelError
) -> list[tuple[str, str]]:
    config = description.config
    rope = config.rope
    yarn = f", YaRN: {rope.factor:g} times {rope.initial_context_length}" if rope.factor > 1 else ""
    cache = description.cache_bytes(ctx)
    whole = description.weight_bytes + cache
    parts = (f"{name} {'+'.join(part.precisions)} {_size(part.nbytes)}" for name, part in description.parts.items())
    return [
        ("model", model),
        ("folder", str(description.folder)),
        ("layout", description.layout + (" (puzzle)" if config.architecture == "gpt_oss_puzzle" else "")),
        (
            "weights",
            f"{config.num_weights / 1e9:.3g} billion" if config.num_weights >= 1e9 else f"{config.num_weights:,}",
        ),
        ("layers", str(config.num_layers)),
        ("experts", _by_layer([f"{each.num_experts}, {each.experts_per_token} a token" for each in config.layers])),
        (
            "attention",
            f"{config.num_attention_heads} heads, {config.num_key_value_heads} key/value heads, of {config.head_dim}",
        ),
        ("windows", _by_layer([str(each.sliding_window or "none") for each in config.layers])),
        ("context", f"{config.max_context_length:,} tokens{yarn}"),
        ("tokenizer", f"{tokenizer}; {config.vocab_size:,} tokens in the model"),
        ("precision", ", ".join(parts)),
        ("size", f"{_size(description.file_bytes)} in {_count(description.num_files, 'file')}"),
        (
            "memory",
            f"{_size(whole)} at {ctx:,} tokens: {_size(description.weight_bytes)} of weights, {_size(cache)} of cache",
        ),
        ("here", f"cannot run: {here}" if isinstance(here, ModelError) else str(here)),
        ("licence", description.licence or "not stated"),
        *(("note", note) for note in description.notes),
    ]


def _as_json(
    model: str, description: Description, tokenizer: str, ctx: int, here: LoadPlan | ModelError
) -> dict[str, Any]:
    config = description.config
    return {
        "model": model,
        "folder": str(description.folder),
        "layout": description.layout,
        "notes": list(description.notes),
        "architecture": config.architecture,
        "weights": config.num_weights,
        "layers": [
            {"experts": each.num_experts, "experts_per_token": each.experts_per_token, "window": each.sliding_window}
            for each in config.layers
        ],
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "max_context": config.max_context_length,
        "tokenizer": tokenizer,
        "parts": {
            name: {"precision": list(part.precisions), "bytes": part.nbytes} for name, part in description.parts.items()
        },
        "files": description.num_files,
        "file_bytes": description.file_bytes,
        "memory": {
            "context": ctx,
            "weight_bytes": description.weight_bytes,
            "cache_bytes": description.cache_bytes(ctx),
        },
        "here": {"error": str(here)} if isinstance(here, ModelError) else _plan_as_json(here),
        "licence": description.licence,
    }


def _adapter_as_json(adapter: Adapter) -> dict[str, Any]:
    return {
        "folder": str(adapter.folder),
        "base": adapter.base,
        "ranks": list(adapter.ranks),
        "targets": list(adapter.targets),
        "bytes": adapter.nbytes,
    }


def _plan_as_json(plan: LoadPlan) -> dict[str, Any]:
    return {
        "device": str(plan.device),
        "backend": plan.ops.name,
        "threads": plan.threads,
        "reading": plan.reading,
        "packs": plan.packs,
        "made_bytes": plan.need.made,
        "host_layers": None if plan.placement is None else plan.placement.host_layers,
        "fallback": plan.fallback,
    }


def _by_layer(values: Sequence[str]) -> str:
    """Group layers by value; a value of all layers stands alone."""
    kinds = list(dict.fromkeys(values))
    if len(kinds) == 1:
        return kinds[0]
    places = {kind: [layer for layer, value in enumerate(values) if value == kind] for kind in kinds}
    return "; ".join(f"{kind} in {'layers' if len(at) > 1 else 'layer'} {_ranges(at)}" for kind, at in places.items())


def _ranges(numbers: Sequence[int]) -> str:
    """Abbreviate rising numbers: `0, 2 ... 34` if all steps are equal, else runs such as `0-3, 7`."""
    steps = {after - before for before, after in pairwise(numbers)}
    if len(numbers) > 3 and len(steps) == 1 and steps != {1}:
        return f"{numbers[0]}, {numbers[1]} ... {numbers[-1]}"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _size(nbytes: int) -> str:
    """Format bytes in decimal units: `13.8 GB`."""
    for unit, bound in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if nbytes >= bound:
            value = nbytes / bound
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{nbytes} bytes"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
