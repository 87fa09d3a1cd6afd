"""The slash commands of `chat`: one table, from which help and completion are made."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Effort
from gptoss.cli.slash import outputs, settings, turns
from gptoss.cli.slash.chat import Chat
from gptoss.cli.slash.conversations import COMMANDS as _KEEPING


@dataclass(frozen=True)
class Command:
    """One slash command.

    Attributes:
        name: with its slash.
        argument: what may follow it, for the help.
        summary: one line.
        run: does it, given the text after its name; raises UsageError if that makes no sense.
        choices: words that may follow it, for completion.
        completes: what else may follow it.
    """

    name: str
    argument: str
    summary: str
    run: Callable[[Chat, str], None]
    choices: tuple[str, ...] = ()
    completes: Literal["", "models or paths", "paths"] = ""


def find(line: str) -> tuple[Command, str] | None:
    """Return the command that a line is, and its argument; None for a line that is a message.

    A command is words of letters, joined by hyphens, after a slash at the very beginning, so a path is none, nor is
    anything that begins with a space.

    Raises:
        UsageError: it looks like a command, but there is none of that name.
    """
    match = re.match(r"(/[a-z]+(?:-[a-z]+)*)(?:\s+(.*))?\s*$", line, re.DOTALL)
    if match is None:
        return None
    name, argument = match[1], (match[2] or "").strip()
    if name in TABLE:
        return TABLE[name], argument
    near = get_close_matches(name, TABLE, n=1)
    hint = f"did you mean {near[0]}?" if near else "/help lists them"
    raise UsageError(f"there is no command {name}: {hint} (a message may begin with a space)")


def _help(chat: Chat, _argument: str) -> None:
    commands = list(dict.fromkeys(TABLE.values()))
    width = max(len(f"{command.name} {command.argument}") for command in commands)
    for command in commands:
        chat.say(f"{f'{command.name} {command.argument}':<{width}}  {command.summary}", hang=width + 2)
    chat.say("")
    for line in _KEYS:
        chat.say(line)


def _exit(chat: Chat, _argument: str) -> None:
    chat.leaving = True


_KEYS = (
    'Alt-Enter begins a new line; a message of many lines stands between """ and """.',
    "Ctrl-R searches what was typed before; Ctrl-X Ctrl-E edits the line in $EDITOR; Tab completes.",
    "While the model answers: Ctrl-C stops it, Ctrl-N ends its reasoning and has it answer now.",
    "Ctrl-D leaves.",
)
_EFFORTS = tuple(Effort)

_COMMANDS = (
    Command("/help", "", "this list", _help),
    Command("/effort", "[none|low|medium|high]", "how long it may reason; alone, shows it", settings.effort, _EFFORTS),
    Command("/model", "[MODEL]", "go on with another model; alone, shows it", settings.model, (), "models or paths"),
    Command("/system", "[TEXT|off]", "the instructions; alone, shows them", settings.system, ("off",)),
    Command("/reasoning", "[show|fold|hide]", "what is seen of reasoning", settings.reasoning, settings.LOOKS),
    Command("/tools", "", "the tools that the model may call", settings.tools),
    Command("/files", "", "the files that tools have made in this conversation", settings.files),
    Command("/file", "[PATH|off]", "send a text file with the next message", turns.attach, ("off",), "paths"),
    Command("/retry", "[EFFORT] [SEED]", "answer the last message again, for once otherwise", turns.retry, _EFFORTS),
    Command("/edit", "", "change the last message in $EDITOR and answer that", turns.edit_last),
    Command("/undo", "", "take the last message and its answer back", turns.undo),
    Command("/undo-patch", "", "take the latest patch of a file back", settings.undo_patch),
    Command("/why", "[TURN]", "the reasoning of the last turn, or of an earlier one", outputs.why),
    Command("/context", "", "what takes how many tokens", outputs.context),
    Command("/stats", "", "tokens and speeds of the last answer", outputs.stats),
    Command("/copy", "[code]", "put the last answer, or its last code, into the clipboard", outputs.copy, ("code",)),
    Command("/export", "[PATH]", "write the conversation into a .md or .json file", outputs.export, (), "paths"),
    *(Command(*row) for row in _KEEPING),
    Command("/clear", "", "start a new conversation", turns.clear),
    Command("/exit", "", "leave; so does /quit", _exit),
)

TABLE = {command.name: command for command in _COMMANDS}
TABLE["/quit"] = TABLE["/exit"]
