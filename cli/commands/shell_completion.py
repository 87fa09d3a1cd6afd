"""Completion in bash, zsh and fish: Typer's own, asked for by a script that the shell reads."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.startup.environment import Environment

VARIABLE = "_GPTOSS_COMPLETE"
"""Set by the script when the shell wants to know what may follow."""


class Shell(StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


ShellArgument = Annotated[Shell, typer.Argument(metavar="bash|zsh|fish")]


def print_script(context: typer.Context, shell: ShellArgument) -> ExitStatus:
    """Print the script that makes a shell complete gptoss.

    bash: eval "$(gptoss completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit. fish: gptoss
    completion fish > ~/.config/fish/completions/gptoss.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    environment: Environment = context.obj
    script = get_completion_script(prog_name="gptoss", complete_var=VARIABLE, shell=shell.value)
    environment.output().write(script + "\n")
    return ExitStatus.ANSWERED


def complete(command: Any, environment: Environment) -> int:
    """Answer what a shell asks: Typer writes it to standard output.

    Raises:
        UsageError: it is no shell that asks.
    """
    from typer.completion import completion_init, shell_complete  # type: ignore[attr-defined]

    completion_init()
    instruction = environment.variables[VARIABLE]
    if instruction.removeprefix("complete_") not in list(Shell):
        raise UsageError(f"{VARIABLE} is set, but for no shell that gptoss knows")
    return int(shell_complete(command, {}, "gptoss", VARIABLE, instruction))
