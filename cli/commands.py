"""The slash commands of `chat`: one table, from which help and completion are made."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from gptoss.cli.display import stats_line
from gptoss.cli.errors import UsageError
from gptoss.cli.session_commands import COMMANDS as _KEEPING
from gptoss.cli.settings import Effort

if TYPE_CHECKING:
    from gptoss.cli.chat import Chat


@dataclass(frozen=True)
class Command:
    """One slash command.

    Attributes:
        name: with its slash.
        argument: what may follow it, for the help.
        summary: one line.
        run: does it, given the text after its name; raises UsageError if that makes no sense.
    """

    name: str
    argument: str
    summary: str
    run: Callable[[Chat, str], None]


def find(line: str) -> tuple[Command, str] | None:
    """The command that a line is, and its argument; None for a line that is a message.

    A command is a word of letters after a slash at the very beginning, so a path is none, nor is anything that begins
    with a space.

    Raises:
        UsageError: it looks like a command, but there is none of that name.
    """
    match = re.match(r"(/[a-z]+)(?:\s+(.*))?\s*$", line, re.DOTALL)
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
        chat.say(f"{f'{command.name} {command.argument}':<{width}}  {command.summary}")
    chat.say("")
    chat.say('Alt-Enter begins a new line; a message of many lines stands between """ and """.')
    chat.say("Ctrl-C stops the answer; Ctrl-D leaves.")


def _effort(chat: Chat, argument: str) -> None:
    if argument:
        chat.set_effort(_one_of(Effort, argument, "effort"))
        chat.say(f"effort {argument} from now on; the whole conversation is read again before the next answer")
    else:
        chat.say(f"effort {chat.effort}")


def _system(chat: Chat, argument: str) -> None:
    if argument == "off":
        chat.set_instructions(None)
        chat.say("no instructions from now on")
    elif argument:
        chat.set_instructions(argument)
        chat.say("instructions changed; the whole conversation is read again before the next answer")
    else:
        chat.say(chat.instructions or "no instructions")


def _reasoning(chat: Chat, argument: str) -> None:
    if argument not in ("show", "hide", ""):
        raise UsageError("/reasoning takes show or hide")
    chat.reasoning_shown = argument == "show" if argument else not chat.reasoning_shown
    chat.say(f"reasoning is {'shown' if chat.reasoning_shown else 'hidden'} from now on")


def _retry(chat: Chat, argument: str) -> None:
    if argument:
        chat.set_effort(_one_of(Effort, argument, "effort"))
    chat.retry()


def _stats(chat: Chat, _argument: str) -> None:
    chat.say(stats_line(chat.ending) if chat.ending else "nothing has been answered yet")


def _clear(chat: Chat, _argument: str) -> None:
    chat.clear()
    chat.say("a new conversation")


def _exit(chat: Chat, _argument: str) -> None:
    chat.leaving = True


def _one_of(kind: type[Effort], text: str, name: str) -> Effort:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"there is no {name} {text!r}: choose {', '.join(kind)}") from None


_COMMANDS = (
    Command("/help", "", "this list", _help),
    Command("/effort", "[none|low|medium|high]", "how long it may reason; alone, tells it", _effort),
    Command("/system", "[TEXT|off]", "the instructions; alone, shows them", _system),
    Command("/reasoning", "[show|hide]", "whether reasoning is shown", _reasoning),
    Command("/retry", "[none|low|medium|high]", "answer the last message again", _retry),
    Command("/stats", "", "tokens and speeds of the last answer", _stats),
    *(Command(*row) for row in _KEEPING),
    Command("/clear", "", "forget everything said and begin anew", _clear),
    Command("/exit", "", "leave; so does /quit", _exit),
)

TABLE = {command.name: command for command in _COMMANDS}
TABLE["/quit"] = TABLE["/exit"]
