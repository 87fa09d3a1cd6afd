"""Commands that have commands under them, such as `gptoss sessions list`."""

from __future__ import annotations

import typer

from gptoss.cli.environment import Environment
from gptoss.cli.exit_status import ExitStatus

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


def command_group(text: str) -> typer.Typer:
    """A group that `text` describes; called alone, it shows its help where messages go, for that is no result."""
    group = typer.Typer(help=text, context_settings=CONTEXT_SETTINGS, invoke_without_command=True)

    @group.callback(help=text)
    def alone(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            environment: Environment = context.obj
            environment.messages().write(context.get_help() + "\n")
            raise typer.Exit(ExitStatus.USAGE)

    return group
