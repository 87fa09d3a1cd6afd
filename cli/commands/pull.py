"""`gptoss pull`: a model from the hub to this machine; and the offer to pull one that is asked for but not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.output import Output
from gptoss.cli.base.paths import named_path
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import one_line
from gptoss.cli.startup import completions
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.options import HomeOption
from gptoss.model.checkpoints.catalog import CATALOG, HubReference, find_spec, hub_reference, nearest_name

if TYPE_CHECKING:
    from gptoss.cli.hub.pull import Pulled

PullArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name, or a repository OWNER/NAME[@REVISION].", autocompletion=completions.models
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


def offer_pull(environment: Environment, model: str) -> bool:
    """Ask whether to pull a model that is not there, if there is a person to ask, and do it; whether it is there now.

    Raises: as `gptoss.cli.hub.pull.pull`.
    """
    reference, messages = hub_reference(model), environment.messages()
    if reference is None or not messages.is_terminal or environment.stdin is None or not environment.stdin.isatty():
        return False
    size = "" if reference.size is None else f" ({reference.size})"
    question = f"{model}{size} is not on this machine. Pull {reference.repository} now? [y/N] "
    if not confirm(environment, messages, question):
        return False
    pull_model(environment, reference, None)
    return True


def confirm(environment: Environment, messages: Output, question: str) -> bool:
    """The answer of the person at the terminal; no for anything but a yes."""
    if environment.stdin is None:
        return False
    messages.write(question)
    answer = environment.stdin.readline()
    if not answer.endswith("\n"):
        messages.write("\n")
    return answer.strip().lower() in ("y", "yes")


def pull_model(environment: Environment, reference: HubReference, to: Path | None) -> Pulled:
    """Pull, and show how it goes.

    Raises: as `gptoss.cli.hub.pull.pull`.
    """
    from gptoss.cli.hub.progress import BarWatch, PlainWatch
    from gptoss.cli.hub.pull import pull as pull_from_hub

    messages = environment.messages()
    bars = messages.is_terminal and not messages.is_dumb
    watch = BarWatch(messages, reference.name) if bars else PlainWatch(messages)
    folder = None if to is None else to.expanduser().absolute()
    try:
        with watch:
            pulled = pull_from_hub(reference, folder, watch)
    except KeyboardInterrupt:
        messages.write(f"stopped; what was fetched is kept, and gptoss pull {reference.name} goes on from there\n")
        raise
    done = "is complete" if pulled.fetched else "was complete already"
    freed = f"; {show_bytes(pulled.freed)} of left-overs removed" if pulled.freed else ""
    messages.write(f"{reference.name} {done}: {show_bytes(pulled.nbytes)} in {one_line(str(pulled.folder))}{freed}\n")
    return pulled


def _wanted(model: str) -> HubReference:
    reference = hub_reference(model)
    if reference is not None:
        return reference
    names = ", ".join(spec.name for spec in CATALOG if spec.repository is not None)
    near = nearest_name(model)
    guess = "" if near is None else f"did you mean {near}? "
    raise UsageError(f"there is no model {model!r} to pull: {guess}name one of {names}, or a hub repository OWNER/NAME")
