"""The reference of all commands, made from their help texts: `docs/reference.md` and the man page `docs/gptoss.1`.

python -m gptoss.cli.reference docs
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from gptoss.cli.app import app
from gptoss.cli.base.exit_status import ExitStatus

MARKDOWN = "reference.md"
MAN_PAGE = "gptoss.1"

_STATUSES = {
    ExitStatus.ANSWERED: "Answered.",
    ExitStatus.FAILED: "Failed.",
    ExitStatus.USAGE: "Wrong usage.",
    ExitStatus.MODEL_UNUSABLE: "The model is missing or cannot be used.",
    ExitStatus.INCOMPLETE: "The answer is incomplete: a limit of tokens cut it.",
    ExitStatus.HANGUP: "The terminal has gone (SIGHUP).",
    ExitStatus.INTERRUPTED: "Interrupted.",
    ExitStatus.CLOSED_PIPE: "Standard output was closed.",
    ExitStatus.TERMINATED: "Terminated (SIGTERM).",
}
_VARIABLES = {
    "GPTOSS_HOME": "The folder of config, models, templates and conversations.",
    "GPTOSS_MODEL": "The model, where there is no -m.",
    "GPTOSS_EFFORT": "The effort, where there is no -e.",
    "GPTOSS_CPU_DENSE": "How the dense layers are kept where the CPU computes and --dense does not say.",
    "GPTOSS_GPU_DENSE": "How the dense layers are kept where a GPU computes and --dense does not say.",
    "GPTOSS_BACKEND": "What computes: cpu, gpu, or reference (plain torch). [default: the fastest on the device]",
    "GPTOSS_CPU_ISA": "Level of the CPU's kernels: avx512, avx2, portable. [default: the machine's best]",
    "GPTOSS_API_KEY": "The key that clients of gptoss serve have to send.",
    "GPTOSS_TRACEBACK": "Where set, an internal error shows where it comes from.",
    "NO_COLOR": "Where set, nothing is styled.",
}


@dataclass(frozen=True)
class CommandHelp:
    """One command.

    Attributes:
        name: with those of the commands that it belongs to.
        usage: how it is called.
        description: paragraphs.
        arguments, options: how each is written, and its help.
    """

    name: str
    usage: str
    description: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...]


def commands() -> Iterator[CommandHelp]:
    """Yield every command that does something, in the order of the help."""
    command = typer.main.get_command(app)
    yield from _commands(command, "gptoss", None)


def markdown() -> str:
    """Return the reference as Markdown."""
    lines = [
        "# Reference",
        "",
        "Made from the help texts by `python -m gptoss.cli.reference docs`; the reasons are in",
        "[cli.md](cli.md).",
    ]
    for command in commands():
        lines += ["", f"## `{command.name}`", "", f"    {command.usage}"]
        for paragraph in command.description:
            lines += ["", paragraph]
        if command.arguments or command.options:
            lines += ["", "| | |", "|---|---|"]
        for written, help_text in (*command.arguments, *command.options):
            lines.append(f"| `{_cell(written)}` | {_cell(help_text)} |")
    return "\n".join(lines) + "\n"


def man_page() -> str:
    """Return the reference as a page for man(1)."""
    every = list(commands())
    lines = [
        '.\\" Made by python -m gptoss.cli.reference',
        '.TH GPTOSS 1 "" "gptoss" "User Commands"',
        ".SH NAME",
        "gptoss \\- run OpenAI's gpt\\-oss models in a terminal",
        ".SH SYNOPSIS",
    ]
    for command in every:
        lines += [".PP", _bold(command.name) + _roff(command.usage.removeprefix(command.name))]
    lines.append(".SH COMMANDS")
    for command in every:
        lines.append(f".SS {_roff(command.name)}")
        for paragraph in command.description:
            lines += [".PP", _roff(paragraph)]
        for written, help_text in (*command.arguments, *command.options):
            lines += [".TP", _bold(written), _roff(help_text) or "\\&"]
    lines.append(".SH EXIT STATUS")
    for status, meaning in _STATUSES.items():
        lines += [".TP", _bold(str(int(status))), _roff(meaning)]
    lines.append(".SH ENVIRONMENT")
    for variable, meaning in _VARIABLES.items():
        lines += [".TP", _bold(variable), _roff(meaning)]
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Write both into a folder."""
    (folder / MARKDOWN).write_text(markdown(), encoding="utf-8")
    (folder / MAN_PAGE).write_text(man_page(), encoding="utf-8")


def _commands(command: Any, name: str, parent: Any) -> Iterator[CommandHelp]:
    context = command.context_class(command, info_name=name.split()[-1], parent=parent, **command.context_settings)
    children = {} if not hasattr(command, "commands") else command.commands
    if not children:
        yield _help_of(command, name, context)
    for child, subcommand in children.items():
        yield from _commands(subcommand, f"{name} {child}", context)


def _help_of(command: Any, name: str, context: Any) -> CommandHelp:
    arguments, options = [], []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if parameter.param_type_name == "argument":
            written = " ".join(parameter.get_usage_pieces(context))
            arguments.append((written, _one_line(record[1] if record else "")))
        elif record is not None:
            options.append((_one_line(record[0]), _one_line(record[1])))
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    paragraphs = tuple(_one_line(paragraph) for paragraph in re.split(r"\n\s*\n", command.help or ""))
    return CommandHelp(name, usage, paragraphs, tuple(arguments), tuple(options))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _roff(text: str) -> str:
    """Return text that groff prints as it is: backslashes and hyphens escaped, no control line."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _bold(text: str) -> str:
    return f"\\fB{_roff(text)}\\fR"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
