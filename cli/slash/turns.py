"""The commands that ask, ask again, or take back."""

from __future__ import annotations

from pathlib import Path

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.inputs import read_text
from gptoss.cli.base.interrupts import without_interrupts
from gptoss.cli.base.text import counted, one_line, whole_number
from gptoss.cli.line.editor import edit
from gptoss.cli.line.keyboard import echo
from gptoss.cli.slash.chat import Chat
from gptoss.cli.slash.settings import effort_named

_QUOTED = 60


def attach(chat: Chat, argument: str) -> None:
    """`/file`: the text files that go with the next message."""
    if argument == "off":
        chat.attachments.clear()
        chat.say("no file goes with the next message")
    elif argument:
        path = Path(argument).expanduser()
        text = read_text(path)
        chat.attachments.append((path, text))
        tokens = len(chat.session.encoding.encode(text))
        chat.say(f"{one_line(path.name)} ({counted(tokens, 'token')}) goes with the next message")
    else:
        names = ", ".join(one_line(str(path)) for path, _ in chat.attachments)
        chat.say(names or "no file goes with the next message; /file PATH adds one")


def retry(chat: Chat, argument: str) -> None:
    """`/retry`: another answer, for this once with another effort or seed where one is named."""
    seed, effort = None, None
    for word in argument.split():
        number = whole_number(word)
        if number is not None and seed is None:
            seed = number
        elif number is None and effort is None:
            effort = effort_named(word)
        else:
            raise UsageError("/retry takes one effort and one seed at most")
    chat.retry(seed, effort)


def go_on(chat: Chat, _argument: str) -> None:
    """`/continue`: the last answer from where it was cut."""
    chat.go_on()


def edit_last(chat: Chat, _argument: str) -> None:
    """`/edit`: the last message changed and answered in the place of what was said since; a new one where none is."""
    if not chat.person_types:
        raise UsageError("/edit needs a terminal for the editor")
    turns = chat.session.transcript.turns
    before = turns[-1].question.text if turns else ""
    with without_interrupts(), echo(chat.environment.stdin, on=True):
        text = edit(before, chat.environment.variables)
    if not text.strip() or (turns and text == before):
        chat.say("nothing changed")
        return
    whole = chat.session.transcript
    if turns:
        chat.undo()
    shorter = chat.session.transcript
    chat.show_question(text)
    try:
        chat.ask(text)
    except Exception:
        if chat.session.transcript is shorter:  # it was not even asked
            chat.session.go_on_with(whole)
        raise


def undo(chat: Chat, argument: str) -> None:
    """`/undo`: the last message and all that came of it, or the last N."""
    known = len(chat.session.transcript.turns)
    if not known:
        raise UsageError("nothing has been said yet")
    number = whole_number(argument or "1")
    if number is None or not 1 <= number <= known:
        raise UsageError(f"/undo takes a number of messages, 1 to {known:,}")
    for text in [chat.undo() for _ in range(number)]:
        chat.say(f"took back: {_beginning(text)}")


def clear(chat: Chat, _argument: str) -> None:
    """`/clear`: everything said."""
    chat.clear()
    chat.say("a new conversation")


def _beginning(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _QUOTED else line[:_QUOTED] + "..."
