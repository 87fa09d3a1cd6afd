"""`gptoss list` and `gptoss rm`: the models on this machine."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import one_line
from gptoss.cli.line.confirm import confirm
from gptoss.cli.startup import completions
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.options import HomeOption
from gptoss.model.checkpoints.catalog import hub_reference
from gptoss.model.errors import ModelNotFoundError, quote

if TYPE_CHECKING:
    from gptoss.cli.hub.inventory import InstalledModel

_HEADINGS = ("NAME", "SIZE", "LAYOUT", "LAST USED", "WHERE")


def list_models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    home: HomeOption = None,
) -> ExitStatus:
    """List the models on this machine."""
    from gptoss.cli.hub.inventory import installed_models

    environment: Environment = context.obj
    models = installed_models(Folders.locate(environment.variables, home))
    output = environment.output()
    if as_json:
        for model in models:
            output.write(output.safe(json.dumps(_as_json(model), ensure_ascii=False)) + "\n")
        return ExitStatus.ANSWERED
    rows = [_HEADINGS, *(_row(model) for model in models)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
    for row in rows:
        fields = [f"{field:<{width}}" for field, width in zip(row[:-1], widths, strict=True)]
        output.write("  ".join([*fields, row[-1]]).rstrip() + "\n")
    return ExitStatus.ANSWERED


def rm(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name, a hub repository, a folder, or a GGUF file.",
            autocompletion=completions.models,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> ExitStatus:
    """Remove a model from this machine."""
    from gptoss.cli.hub.inventory import installed_models
    from gptoss.cli.hub.last_use import forget_use
    from gptoss.cli.hub.removal import remove, require_removable

    environment: Environment = context.obj
    folders, messages = Folders.locate(environment.variables, home), environment.messages()
    chosen = _choose(model, installed_models(folders))
    require_removable(chosen)
    described = f"{one_line(chosen.name)}, {show_bytes(chosen.nbytes)} in {one_line(str(chosen.root))}"
    if not yes:
        if environment.stdin is None or not environment.stdin.isatty() or not messages.is_terminal:
            raise UsageError(f"rm asks before it removes {described}: without a terminal, say --yes")
        if not confirm(environment.stdin, messages, f"Remove {described}? [y/N] "):
            messages.write("nothing was removed\n")
            return ExitStatus.FAILED
    left = remove(chosen)
    forget_use(folders.state, chosen.folder)
    messages.write(f"removed {described}\n")
    if left:
        names = ", ".join(one_line(path.name) for path in left[:5]) + (", ..." if len(left) > 5 else "")
        messages.write(f"its folder stays, with what is not known to be the model's: {names}\n")
    return ExitStatus.ANSWERED


def _choose(model: str, models: list[InstalledModel]) -> InstalledModel:
    """Return the one model that is meant.

    Raises:
        ModelNotFoundError: there is none.
        UsageError: there are several.
    """
    reference = hub_reference(model)
    if reference is not None and reference.revision is not None:
        raise UsageError(f"rm removes all revisions of a model: name {reference.repository}")
    repository = None if reference is None else reference.repository
    found = [
        each
        for each in models
        if each.name == model or (repository is not None and repository in (each.name, each.repository))
    ]
    if not found and model:
        folder = Path(model).expanduser().resolve()
        found = [each for each in models if each.folder.resolve() == folder]
    if not found:
        raise ModelNotFoundError(f"{quote(model)} is not on this machine: `gptoss list` shows what is")
    if len(found) > 1:
        places = " and in ".join(quote(each.folder) for each in found)
        raise UsageError(f"{model} is there more than once, in {places}: name the folder")
    return found[0]


def _row(model: InstalledModel) -> tuple[str, ...]:
    used = "-" if model.last_used is None else datetime.date.fromtimestamp(model.last_used).isoformat()
    where = model.place.value if model.place == "built in" else _short(model.root)
    if model.owner is not None:
        where = f"{model.owner}: {where}"
    if not model.is_complete:
        where += "  (not complete)" if model.owner else f"  (not complete: gptoss pull {model.name})"
    return one_line(model.name), show_bytes(model.nbytes), model.layout or "?", used, one_line(where)


def _short(folder: Path) -> str:
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)


def _as_json(model: InstalledModel) -> dict[str, object]:
    used = None
    if model.last_used is not None:
        used = datetime.datetime.fromtimestamp(model.last_used, datetime.UTC).isoformat(timespec="seconds")
    return {
        "name": model.name,
        "repository": model.repository,
        "place": model.place.value,
        "folder": str(model.folder),
        "bytes": model.nbytes,
        "layout": model.layout,
        "complete": model.is_complete,
        "last_used": used,
        "owner": model.owner,
    }
