"""Commands, those that have commands under them (`gptoss sessions list`), and how they show their help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.startup.environment import Environment

_Function = TypeVar("_Function", bound=Callable[..., Any])

_CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


class _Command(TyperCommand):
    def get_help_option(self, ctx: Any) -> TyperOption | None:
        return _written_by_output(super().get_help_option(ctx))


class _Group(TyperGroup):
    def get_help_option(self, ctx: Any) -> TyperOption | None:
        return _written_by_output(super().get_help_option(ctx))


class Commands(typer.Typer):
    """Typer, but help texts go where all else goes: its own way is silent when standard output is closed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, context_settings=_CONTEXT_SETTINGS, invoke_without_command=True, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
        """Register a command."""
        return super().command(name, cls=_Command, **settings)


def command_group(text: str) -> Commands:
    """Return a group that `text` describes; called alone, it shows its help on standard error."""
    group = Commands(help=text)

    @group.callback(help=text)
    def alone(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            environment: Environment = context.obj
            environment.messages().write(context.get_help() + "\n")
            raise typer.Exit(ExitStatus.USAGE)

    return group


def _written_by_output(option: TyperOption | None) -> TyperOption | None:
    if option is not None:
        option.callback = _show_help
    return option


def _show_help(context: Any, _option: Any, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        environment: Environment = context.obj
        environment.output().write(context.get_help() + "\n")
        raise typer.Exit
