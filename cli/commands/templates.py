"""`gptoss templates`: the prompts with gaps in the folder of templates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.inputs import read_text
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.templates import gaps_of, paths_of, read_template
from gptoss.cli.base.text import one_line
from gptoss.cli.startup import completions
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.groups import command_group
from gptoss.cli.startup.options import HomeOption

app = command_group("Prompts with gaps, for ask --template.")


@app.command("list")
def list_(context: typer.Context, home: HomeOption = None) -> ExitStatus:
    """List the templates with their variables."""
    environment, folder = _opened(context, home)
    output, messages = environment.output(), environment.messages()
    status = ExitStatus.ANSWERED
    seen: set[str] = set()
    for path in paths_of(folder):
        name = path.name if path.stem in seen else path.stem
        seen.add(name)
        try:
            gaps = gaps_of(read_text(path))
        except InputError as error:
            messages.write(f"gptoss: {error}\n")
            status = ExitStatus.FAILED
            continue
        output.write(output.safe("  ".join([one_line(name), ", ".join(gaps)]).rstrip()) + "\n")
    return status


@app.command()
def show(
    context: typer.Context,
    which: Annotated[
        str, typer.Argument(metavar="NAME", help="A name, or the path of a file.", autocompletion=completions.templates)
    ],
    home: HomeOption = None,
) -> ExitStatus:
    """Show a template."""
    environment, folder = _opened(context, home)
    output = environment.output()
    output.write(output.safe(read_template(which, folder)) + "\n")
    return ExitStatus.ANSWERED


@app.command()
def path(context: typer.Context, home: HomeOption = None) -> ExitStatus:
    """Print the folder in which templates lie."""
    environment, folder = _opened(context, home)
    environment.output().write(f"{one_line(str(folder))}\n")
    return ExitStatus.ANSWERED


def _opened(context: typer.Context, home: Path | None) -> tuple[Environment, Path]:
    environment: Environment = context.obj
    return environment, Folders.locate(environment.variables, home).templates
