"""`gptoss` alone: what it is, what would run on this machine, what is there already, and what to type next."""

from __future__ import annotations

from importlib.metadata import version as installed_version

from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import one_line
from gptoss.cli.hub.inventory import InstalledModel, Place, installed_models
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.machine import Machine, look_at_machine
from gptoss.model.checkpoints.catalog import CATALOG, DEFAULT_MODEL, ModelSpec, find_spec
from gptoss.model.checkpoints.published_configs import PUBLISHED, published_config
from gptoss.model.tensors.sizes import token_bytes

_SHOWN = tuple(PUBLISHED)
_HANG = 4
_BESIDE_WEIGHTS = 1 << 30
"""Memory beside the weights: the program, and the KV cache of a short context."""


def welcome(environment: Environment, folders: Folders) -> ExitStatus:
    """Show the first screen."""
    models = installed_models(folders)
    output = environment.output()
    for line in _lines(models, look_at_machine(folders.hub_cache)):
        output.write_line(line, hang=_HANG)
    return ExitStatus.ANSWERED


def _lines(models: list[InstalledModel], machine: Machine) -> list[str]:
    memory = "" if machine.memory_bytes is None else f", {show_bytes(machine.memory_bytes)} of memory free"
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    lines = [
        f"gptoss {installed_version('gptoss')} runs OpenAI's gpt-oss models here: no server, no account.",
        "",
        f"This machine: {cores}{memory}, {show_bytes(machine.disk_bytes)} of disk",
    ]
    specs = [spec for spec in map(find_spec, _SHOWN) if spec is not None]
    lines += [f"  {spec.name:<5} {spec.size:>7}   {_prospect(spec, models, machine)}" for spec in specs]
    if machine.bandwidth is not None:
        how = f"the bytes of a token at {show_bytes(machine.bandwidth)}/s, as just measured"
        lines.append(f"  (an estimate: {how})")
    if machine.has_nvidia:
        lines.append("  There is an NVIDIA GPU too; how fast it would be is not estimated here.")
    return [*lines, "", *_next_lines(models, machine)]


def _prospect(spec: ModelSpec, models: list[InstalledModel], machine: Machine) -> str:
    """Return the estimate for a model on this machine."""
    is_here = any(model.name == spec.name and model.is_complete for model in models)
    if not is_here and spec.download_bytes > machine.disk_bytes:
        return "does not fit on the disk"
    if not _fits(spec, machine):
        return "does not fit into memory; read from the disk, very slow"
    if machine.bandwidth is None:
        return "fits into memory"
    speed = machine.bandwidth / token_bytes(published_config(spec.name))
    return f"fits into memory; up to about {speed:.2g} tokens a second on the CPU"


def _fits(spec: ModelSpec, machine: Machine) -> bool:
    return machine.memory_bytes is None or spec.download_bytes + _BESIDE_WEIGHTS <= machine.memory_bytes


def _next_lines(models: list[InstalledModel], machine: Machine) -> list[str]:
    here = [model for model in models if model.is_complete]
    names = ", ".join(one_line(model.name) + (" (built in)" if model.place is Place.BUILT_IN else "") for model in here)
    lines = [f"Here already: {names or 'no model'}"]
    begun = next((model for model in models if not model.is_complete and model.owner is None), None)
    real = [model.name for model in here if model.place is not Place.BUILT_IN]
    built_in = next((model.name for model in here if model.place is Place.BUILT_IN), None)
    default = next(spec for spec in CATALOG if spec.name == DEFAULT_MODEL)
    commands = []
    if DEFAULT_MODEL in real:
        commands.append(("gptoss chat", f"talk to {DEFAULT_MODEL}"))
    elif real:
        commands.append((f"gptoss chat -m {one_line(real[0])}", f"talk to {one_line(real[0])}"))
    elif begun is not None:
        commands.append((f"gptoss pull {one_line(begun.name)}", f"goes on: {show_bytes(begun.nbytes)} are there"))
    elif _fits(default, machine):
        commands.append((f"gptoss pull {DEFAULT_MODEL} && gptoss chat", f"fetch {default.size}, then talk to it"))
        commands.append((f"gptoss bench --synthetic {DEFAULT_MODEL}", "first measure how fast it would be"))
    if built_in is not None and not real:
        commands.append((f"gptoss chat -m {built_in}", "try the small built-in model at once"))
    commands.append(("gptoss --help", "all commands"))
    width = max(len(command) for command, _ in commands)
    return [*lines, "", *(f"  {command:<{width}}   {what}" for command, what in commands)]
