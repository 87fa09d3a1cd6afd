"""The commands of `chat` that keep conversations and go from one to another."""

from __future__ import annotations

import shlex
from itertools import islice

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.text import counted, one_line
from gptoss.cli.conversations.listing import listing_line
from gptoss.cli.conversations.log import SavedConversation
from gptoss.cli.slash.chat import Chat

_LISTED = 20
_QUOTED = 60


def save(talk: Chat, argument: str) -> None:
    """`/save`: keep this conversation from now on, under a name where one is given."""
    talk.recorder.save(talk.session, argument or None)
    which = argument or talk.recorder.id or ""
    talk.say(f"saved as {which}; gptoss chat --session {shlex.quote(which)} goes on")


def sessions(talk: Chat, _argument: str) -> None:
    """`/sessions`: the latest conversations; a star marks this one."""
    found = list(islice(talk.recorder.store.readable(), _LISTED + 1))
    if not found:
        talk.say("no conversation has been saved yet")
    for log in found[:_LISTED]:
        talk.say(("* " if log.saved.id == talk.recorder.id else "  ") + listing_line(log.saved))
    if len(found) > _LISTED:
        talk.say("and more: gptoss sessions list shows all")


def load(talk: Chat, argument: str) -> None:
    """`/load`: go on in another conversation, with the model that is loaded."""
    if not argument:
        raise UsageError("/load takes the id or the name of a conversation; /sessions lists them")
    saved = talk.recorder.go_on_in(argument, listed_by="/sessions lists")
    talk.go_on_with(saved)
    talk.say(going_on(saved))
    if talk.person_types:
        talk.show_turns(talk.session.transcript.turns[-1:])


def going_on(saved: SavedConversation) -> str:
    """Return a line with the conversation's name, its length and its last question."""
    questions = saved.questions
    last = one_line(questions[-1]) if questions else ""
    last = last if len(last) <= _QUOTED else last[:_QUOTED] + "..."
    return f"going on in {one_line(saved.name or saved.id)}: {counted(len(questions), 'question')}, the last: {last}"


def fork(talk: Chat, argument: str) -> None:
    """`/fork`: go on in a copy, under a name where one is given."""
    before = talk.recorder.id
    talk.recorder.fork(talk.session, argument or None)
    talk.say(f"going on in the copy {argument or talk.recorder.id}" + (f"; {before} stays as it is" if before else ""))


COMMANDS = (
    ("/save", "[NAME]", "keep this conversation, under a name", save),
    ("/sessions", "", "the conversations that are kept", sessions),
    ("/load", "ID|NAME", "go on in another conversation", load),
    ("/fork", "[NAME]", "go on in a copy of this conversation", fork),
)
"""Name, argument, summary and function: rows for the one table of commands."""
