"""`gptoss cache`: prompt prefixes and repacked weights on the disk."""

from __future__ import annotations

import datetime
import json
from typing import Annotated

import typer

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.settings import Folders, load_settings
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import one_line
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.groups import command_group
from gptoss.cli.startup.options import HomeOption

app = command_group("Prompt prefixes and repacked weights on the disk.")


@app.command()
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    home: HomeOption = None,
) -> ExitStatus:
    """Show how much is kept of each model: tokens of prompts, weights in 8 bits, size of all, last use."""
    from gptoss.model.storage.disk_cache import kept_models

    environment: Environment = context.obj
    folders = Folders.locate(environment.variables, home)
    output, models = environment.output(), kept_models(folders.computed)
    for model in models:
        used = datetime.datetime.fromtimestamp(model.used, datetime.UTC)
        if as_json:
            row = {
                "model": model.name,
                "tokens": model.positions,
                "weight_bytes": model.made_bytes,
                "bytes": model.nbytes,
                "last_used": used.isoformat(timespec="seconds"),
                "folder": str(model.folder),
            }
            output.write(output.safe(json.dumps(row, ensure_ascii=False)) + "\n")
        else:
            day = used.astimezone().date().isoformat()
            kept = f"{model.positions:,} tokens"
            if model.made_bytes:
                kept += f", weights in 8 bits ({show_bytes(model.made_bytes)})"
            output.write(f"{one_line(model.name) or '?'}  {kept}  {show_bytes(model.nbytes)}  used {day}\n")
    if not as_json:
        limit = load_settings({}, environment.variables, folders.config).cache_gb * 1e9
        used_bytes = sum(model.nbytes for model in models)
        output.write(
            f"{show_bytes(used_bytes)} of {show_bytes(limit)} (cache_gb) in {one_line(str(folders.computed))}\n"
        )
    return ExitStatus.ANSWERED


@app.command()
def clear(context: typer.Context, home: HomeOption = None) -> ExitStatus:
    """Remove all of it; it is computed again when it is needed."""
    environment: Environment = context.obj
    removed = clear_cache(Folders.locate(environment.variables, home))
    environment.messages().write(f"removed {show_bytes(removed)}\n")
    return ExitStatus.ANSWERED


@app.command()
def path(context: typer.Context, home: HomeOption = None) -> ExitStatus:
    """Print where it is, or would be."""
    environment: Environment = context.obj
    environment.output().write(f"{one_line(str(Folders.locate(environment.variables, home).computed))}\n")
    return ExitStatus.ANSWERED


def clear_cache(folders: Folders, *, prefixes_alone: bool = False) -> int:
    """Remove all of it, or only the keys and values of prompts; how many bytes that were.

    Raises:
        InputError: that is not possible.
    """
    from gptoss.model.storage.disk_cache import clear as clear_files

    try:
        return clear_files(folders.computed, prefixes_alone=prefixes_alone)
    except OSError as error:
        raise InputError(f"cannot clear {one_line(str(error.filename))}: {error.strerror}") from None
