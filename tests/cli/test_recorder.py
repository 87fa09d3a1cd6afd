"""A session whose conversation is kept while it goes on, and the slash commands that keep it."""

import os
from dataclasses import replace

import pytest

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.conversations.log import ConversationLog
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Conversation, Message

HELLO = Conversation.of(Message.user("Hello"), Message.assistant("Hi", channel="final"))


def test_each_message_is_written_when_it_is_complete(talk, said) -> None:
    talk = talk("4")
    seen = []
    for _ in talk.session.respond([Message.user("2 + 2?")]):
        texts = said(talk.recorder.log)
        if not seen or seen[-1] != texts:
            seen.append(texts)
    assert seen == [["2 + 2?"], ["2 + 2?", "Let me see."], ["2 + 2?", "Let me see.", "4"]]


def test_cleared_conversation_stays_and_another_begins(talk, said) -> None:
    talk = talk("A", "B")
    talk.ask("a")
    first = talk.recorder.log
    talk.recorder.begin_another()
    talk.session.go_on_with(Transcript(talk.session.settings))
    talk.ask("b")
    assert said(first) == ["a", "Let me see.", "A"]
    assert said(talk.recorder.log) == ["b", "Let me see.", "B"]


def test_only_message_that_is_taken_back_makes_place_for_the_next(talk, kept) -> None:
    talk = talk("A", "B")
    talk.ask("a")
    talk.session.go_on_with(Transcript(talk.session.settings))
    assert kept() == ["a", "Let me see.", "A"]
    talk.ask("b")
    assert kept() == ["b", "Let me see.", "B"]


def test_other_programs_words_send_this_one_into_a_copy(talk, said) -> None:
    talk = talk("A", "B")
    talk.ask("a")
    shared = talk.recorder.log
    other = ConversationLog.read(shared.path)
    other.write(replace(other.saved, messages=(*other.saved.messages, Message.user("other"))))
    talk.ask("b")
    assert said(shared) == ["a", "Let me see.", "A", "other"]
    assert said(talk.recorder.log) == ["a", "Let me see.", "A", "b", "Let me see.", "B"]
    assert talk.said == [f"another program went on in this conversation; it goes on here as {talk.recorder.id}"]


def test_deleted_conversation_does_not_come_back(talk, store) -> None:
    talk = talk("A", "B")
    talk.ask("a")
    store.delete(talk.recorder.log.path)
    talk.ask("b")
    assert talk.said == ["the conversation was deleted; what is said from now on is not saved"]
    assert list(store.readable()) == []


def test_failure_to_write_is_told_once_and_made_up_for(talk, monkeypatch, said) -> None:
    talk = talk("A", "B")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(full))
    talk.ask("a")
    assert talk.said == ["the conversation is not saved: No space left on device"]
    monkeypatch.undo()
    talk.ask("b")
    assert said(talk.recorder.log) == ["a", "Let me see.", "A", "b", "Let me see.", "B"]


def test_failed_write_leaves_the_file_as_it_was(monkeypatch, create) -> None:
    log = create()
    before = log.path.read_bytes()
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space"):
        log.write(replace(log.saved, messages=(*HELLO, Message.user("More"))))
    assert log.path.read_bytes() == before


# Slash commands


def test_save_gives_a_name_and_begins_to_save(talk, store) -> None:
    from gptoss.cli.slash.conversations import save

    talk = talk("A", saving=False)
    with pytest.raises(UsageError, match="nothing has been said"):
        save(talk, "early")
    talk.ask("a")
    assert list(store.readable()) == []
    save(talk, "talk")
    assert store.find("talk").saved.questions == ["a"]


def test_load_and_fork(talk, store, create, said) -> None:
    from gptoss.cli.slash.conversations import fork, load, sessions

    create(name="greeting")
    talk = talk("A")
    load(talk, "greeting")
    fork(talk, "copy")
    talk.ask("a")
    assert said(store.find("greeting")) == ["Hello", "Hi"]
    assert said(store.find("copy")) == ["Hello", "Hi", "a", "Let me see.", "A"]
    talk.said.clear()
    sessions(talk, "")
    assert [line[:2] for line in talk.said] == ["* ", "  "]
    with pytest.raises(UsageError, match="/sessions"):
        load(talk, "")


def test_commands_in_chat(gptoss, reply) -> None:
    lines = b"a\n/save talk\n/clear\nb\n/load talk\n/fork\nc"
    result = gptoss("chat", stdin=lines, completions=[reply("A"), reply("B"), reply("C")])
    assert result.stdout == "A\nB\nC\n"
    assert "<|message|>a<|end|>" in result.prompts[2]
    assert "<|message|>b<|end|>" not in result.prompts[2]
    assert len(gptoss("sessions", "list").stdout.splitlines()) == 3


def test_load_without_saving_writes_nothing(talk, create) -> None:
    from gptoss.cli.slash.conversations import load

    log = create(name="greeting")
    before = log.path.read_bytes()
    talk = talk("A", saving=False)
    load(talk, "greeting")
    talk.ask("a")
    assert log.path.read_bytes() == before


def test_save_that_fails_is_said(talk, store) -> None:
    from gptoss.cli.slash.conversations import save

    talk = talk("A")
    store.folder.parent.mkdir(parents=True)
    store.folder.write_text("in the way")
    talk.ask("a")
    with pytest.raises(InputError, match="could not be written"):
        save(talk, "talk")


def test_command_that_save_tells_can_be_pasted(talk) -> None:
    from gptoss.cli.slash.conversations import save

    talk = talk("A")
    talk.ask("a")
    save(talk, "my talk")
    assert talk.said == ["saved as my talk; gptoss chat --session 'my talk' goes on"]
