"""`gptoss remote`: servers by name, for `-m NAME`."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.text import one_line
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.groups import command_group
from gptoss.cli.startup.options import HomeOption
from gptoss.cli.startup.remotes import Remote, check_name, read_remotes, write_remotes
from gptoss.model.remote.address import is_address

app = command_group("Servers that run a model, such as vLLM, by name.")


@app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What -m takes from now on.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="http[s]://HOST[:PORT][/v1][#MODEL]")],
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the server's key; readable by you alone.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With the model's tokenizer.json; by default o200k_harmony.")
    ] = None,
    plain_key: Annotated[
        bool, typer.Option("--plain-key", help="Send the key over plain HTTP to another machine.")
    ] = False,
    home: HomeOption = None,
) -> ExitStatus:
    """Give a server a name; the same name again replaces it."""
    environment, folders = _opened(context, home)
    check_name(name)
    if not is_address(url):
        raise UsageError(f"{one_line(url)} is no address: http[s]://HOST[:PORT][/v1][#MODEL]")
    remote = Remote(url, _absolute(key_file), _absolute(tokenizer), plain_key)
    address = remote.address
    write_remotes(folders, read_remotes(folders) | {name: remote})
    environment.messages().write(f"{name}: {address.origin}; gptoss ask -m {name} uses it\n")
    return ExitStatus.ANSWERED


@app.command("list")
def list_(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    home: HomeOption = None,
) -> ExitStatus:
    """List the servers; keys are never shown."""
    environment, folders = _opened(context, home)
    output = environment.output()
    for name, remote in read_remotes(folders).items():
        if json:
            output.write(json_format.dumps({"name": name} | asdict(remote)) + "\n")
        else:
            with_key = "" if remote.key_file is None else f"  key in {one_line(remote.key_file)}"
            output.write(output.safe(f"{name}  {one_line(remote.url)}{with_key}") + "\n")
    return ExitStatus.ANSWERED


@app.command()
def rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the server.")],
    home: HomeOption = None,
) -> ExitStatus:
    """Forget a server; its key file stays."""
    _, folders = _opened(context, home)
    remotes = read_remotes(folders)
    if remotes.pop(name, None) is None:
        raise UsageError(f"no server is called {one_line(name)}: gptoss remote list shows them")
    write_remotes(folders, remotes)
    return ExitStatus.ANSWERED


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def _opened(context: typer.Context, home: Path | None) -> tuple[Environment, Folders]:
    environment: Environment = context.obj
    return environment, Folders.locate(environment.variables, home)
