"""The slash commands of `chat`: one table, from which help and completion are made."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Effort
from gptoss.cli.base.text import one_line
from gptoss.cli.slash import outputs, settings, turns
from gptoss.cli.slash.chat import Chat
from gptoss.cli.slash.conversations import COMMANDS as _KEEPING


@dataclass(frozen=True)
class Command:
    """One slash command.

    Attributes:
        name: with its slash.
        argument: what may follow it, for the help; empty: nothing may.
        summary: one line.
        run: does it, given the text after its name; raises UsageError if that makes no sense.
        choices: words that may follow it, for completion.
        completes: what else may follow it.
        is_common: whether the short help has a line for it.
    """

    name: str
    argument: str
    summary: str
    run: Callable[[Chat, str], None]
    choices: tuple[str, ...] = ()
    completes: Literal["", "models or paths", "paths"] = ""
    is_common: bool = False


def find(line: str) -> tuple[Command, str] | None:
    """Return the command that a line is, and its argument; None for a line that is a message.

    A command is words of letters, joined by hyphens, after a slash at the very beginning, so a path is none, nor is
    anything that begins with a space. Case does not count. A slash alone, or with a question mark, asks for the help.

    Raises:
        UsageError: it looks like a command, but there is none of that name, or nothing may follow its name.
    """
    match = re.match(r"(/(?:[A-Za-z]+(?:-[A-Za-z]+)*|\?)?)(?:\s+(.*))?\s*$", line, re.DOTALL)
    if match is None:
        return None
    name, argument = match[1].lower(), (match[2] or "").strip()
    command = TABLE.get(name) or _ALIASES.get(name)
    if command is None:
        raise UsageError(f"there is no command {match[1]}: {_hint(name, argument)} (a message may begin with a space)")
    if argument and not command.argument:
        rest = one_line(argument)
        rest = rest if len(rest) <= _QUOTED else rest[:_QUOTED] + "..."
        raise UsageError(f"{match[1]} takes nothing, and {rest!r} follows it (a message may begin with a space)")
    return command, argument


def _hint(name: str, argument: str) -> str:
    """Return what to type in place of a command that there is not."""
    if name == "/set":
        name = f"/set {(argument.split() or [''])[0].lower()}".rstrip()
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    near = get_close_matches(name, TABLE, n=1)
    return f"did you mean {near[0]}?" if near else "/help lists them"


def _help(chat: Chat, argument: str) -> None:
    """`/help`: the commands of every day and the names of the others; all of them; or one."""
    if argument and argument != "all":
        found = find("/" + argument.removeprefix("/"))
        command = None if found is None else found[0]
        if command is None:
            raise UsageError("/help takes the name of a command, or all")
        chat.say(f"{command.name} {command.argument}".rstrip() + f": {command.summary}")
        return
    commands = [command for command in TABLE.values() if argument or command.is_common]
    names = [f"{command.name} {command.argument}".rstrip() for command in commands]
    if max(map(len, names)) + _NARROWEST > chat.messages.columns:
        names = [command.name for command in commands]
    width = max(map(len, names))
    for name, command in zip(names, commands, strict=True):
        chat.say(f"{name:<{width}}  {command.summary}", hang=width + 2)
    if not argument:
        chat.say(f"also {' '.join(command.name for command in TABLE.values() if not command.is_common)}", hang=5)
        chat.say("/help all describes every command, /help NAME one.")
    for line in _KEYS:
        chat.say(line)


def _exit(chat: Chat, _argument: str) -> None:
    chat.leaving = True


_QUOTED = 40
_NARROWEST = 30
"""Cells for the summaries; where there are fewer, the short help has the names without their arguments."""
_KEYS = (
    'Alt-Enter begins a new line; many lines may stand between """ and """.',
    "Ctrl-R searches what was typed; Ctrl-X Ctrl-E edits in $EDITOR; Tab completes.",
    "Ctrl-C stops an answer, Ctrl-N its reasoning, Ctrl-T folds that; Ctrl-D leaves.",
)
_EFFORTS = tuple(Effort)

_COMMANDS = (
    Command("/help", "[NAME|all]", "this list", _help, ("all",), is_common=True),
    Command("/effort", "[none|low|medium|high]", "how long it may reason", settings.effort, _EFFORTS, is_common=True),
    Command("/model", "[MODEL]", "go on with another; alone, lists them", settings.model, (), "models or paths", True),
    Command("/system", "[TEXT|off]", "the instructions; alone, shows them", settings.system, ("off",), is_common=True),
    Command("/reasoning", "[show|fold|hide]", "what is seen of reasoning", settings.reasoning, settings.LOOKS),
    Command("/tools", "", "the tools that the model may call", settings.tools),
    Command("/files", "", "the files that tools have made in this conversation", settings.files),
    Command("/file", "[PATH|off]", "send a text file with the next message", turns.attach, ("off",), "paths", True),
    Command("/retry", "[EFFORT] [SEED]", "answer the last message again", turns.retry, _EFFORTS, is_common=True),
    Command("/continue", "", "go on with an answer that was cut", turns.go_on, is_common=True),
    Command("/edit", "", "change the last message in $EDITOR", turns.edit_last, is_common=True),
    Command("/undo", "[N]", "take the last message, or the last N, and what was answered back", turns.undo),
    Command("/undo-patch", "", "take the latest patch of a file back", settings.undo_patch),
    Command("/show", "[N|all]", "show the last turn again, or the last N", outputs.show, ("all",), is_common=True),
    Command("/why", "[TURN]", "the reasoning of the last turn, or another", outputs.why, is_common=True),
    Command("/sources", "[N]", "what the last answer cites, with the cited lines", outputs.sources),
    Command("/context", "", "what takes how many tokens", outputs.context),
    Command("/stats", "", "tokens and speeds of the last answer", outputs.stats),
    Command(
        "/copy", "[code|command]", "the last answer, or its last code", outputs.copy, ("code", "command"), "", True
    ),
    Command("/export", "[PATH]", "write the conversation into a .md or .json file", outputs.export, (), "paths"),
    *(Command(*row) for row in _KEEPING),
    Command("/clear", "", "start a new conversation; so does /new", turns.clear, is_common=True),
    Command("/exit", "", "leave; so do /quit and /bye", _exit, is_common=True),
)

TABLE = {command.name: command for command in _COMMANDS}
"""The commands by name, as help and completion have them."""

_ALIASES = {
    "/": TABLE["/help"],
    "/?": TABLE["/help"],
    "/new": TABLE["/clear"],
    "/quit": TABLE["/exit"],
    "/bye": TABLE["/exit"],
}
# Commands of ollama, llama-cli and aichat, with what does the like here.
_ELSEWHERE = {
    "/set": "/system, /effort and /reasoning change this chat; gptoss config set changes the defaults",
    "/set system": "/system TEXT sets the instructions",
    "/set think": "/effort low, medium or high sets how long it reasons",
    "/set nothink": "/effort none leaves the reasoning out",
    "/set parameter": "--temperature, --seed, --ctx and others are options of gptoss chat",
    "/set history": "--no-save keeps nothing of what is typed",
    "/set verbose": "/stats shows the figures of an answer, and gptoss chat --stats those of each",
    "/set quiet": "without --stats no figures are shown",
    "/set format": "--schema, --regex and --choice are options of gptoss chat",
    "/read": "/file PATH sends a text file",
    "/glob": "/file PATH sends a text file",
    "/regen": "/retry answers again",
    "/regenerate": "/retry answers again",
    "/reset": "/clear starts a new conversation",
    "/history": "/show all shows what was said, /sessions lists the conversations",
    "/info": "/context and /stats have the figures",
}
