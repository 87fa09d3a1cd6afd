"""`gptoss pull`: a model from the hub to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.paths import named_path
from gptoss.cli.base.settings import Folders
from gptoss.cli.startup import completions
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.options import HomeOption
from gptoss.cli.startup.pulling import pull_model
from gptoss.model.checkpoints.catalog import CATALOG, HubReference, find_spec, hub_reference, nearest_name

PullArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name, or a repository OWNER/NAME[:FILE][@REVISION].", autocompletion=completions.models
    ),
]
ToOption = Annotated[
    Path | None,
    typer.Option("--to", parser=named_path, metavar="DIR", help="Put the files here, not into the hub's own cache."),
]


def pull(context: typer.Context, model: PullArgument, to: ToOption = None, home: HomeOption = None) -> ExitStatus:
    """Fetch a model from the hub.

    What an interrupted pull has fetched is not fetched again.
    """
    environment: Environment = context.obj
    spec = find_spec(model)
    if spec is not None and spec.repository is None:
        environment.messages().write(f"{model} comes with gptoss: there is nothing to pull\n")
        return ExitStatus.ANSWERED
    pulled = pull_model(environment, _wanted(model), to)
    if to is not None:
        from gptoss.cli.hub.last_use import record_folder

        record_folder(Folders.locate(environment.variables, home).state, pulled.folder)
    return ExitStatus.ANSWERED


def _wanted(model: str) -> HubReference:
    reference = hub_reference(model)
    if reference is not None:
        return reference
    names = ", ".join(spec.name for spec in CATALOG if spec.repository is not None)
    near = nearest_name(model)
    guess = "" if near is None else f"did you mean {near}? "
    raise UsageError(f"there is no model {model!r} to pull: {guess}name one of {names}, or a hub repository OWNER/NAME")
