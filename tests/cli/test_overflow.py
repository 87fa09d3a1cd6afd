"""Conversations that do not fit the context: nothing is cut silently."""

import json

import pytest

from gptoss.cli.conversations.overflow import oldest_to_drop, without_oldest
from gptoss.harmony import Conversation, Message


def test_oldest_turns_are_left_out_and_that_is_said(gptoss, scripted, encoding, reply) -> None:
    gptoss("ask", "first " * 50, completions=[reply("A")])
    gptoss("ask", "-c", "second", completions=[reply("B")])
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("C"))], max_context=170)
    result = gptoss("ask", "-c", "--overflow", "drop-oldest", "--json", "third", engine=engine)
    assert result.status == 0
    assert result.stderr == "gptoss: the oldest turn was left out of the prompt (--overflow drop-oldest)\n"
    assert "first" not in result.prompts[0]
    assert "second" in result.prompts[0]
    told = json.loads(result.stdout)
    assert told["dropped_turns"] == 1
    assert "first" in gptoss("sessions", "show", told["session"]).stdout


def test_by_default_what_does_not_fit_is_an_error_and_not_kept(gptoss, scripted, reply) -> None:
    gptoss("ask", "first " * 50, completions=[reply("A")])
    result = gptoss("ask", "-c", "second", engine=scripted.ScriptedEngine([], max_context=100))
    assert (result.status, result.stdout) == (1, "")
    assert "do not fit" in result.stderr
    assert gptoss("sessions", "search", "second").status == 1


@pytest.mark.parametrize("fitting", range(6))
def test_as_few_turns_as_possible_are_left_out(fitting) -> None:
    turns = [message for n in range(4) for message in (Message.user(f"q{n}"), Message.assistant(f"a{n}"))]
    conversation = Conversation.of(Message.system("s"), *turns, Message.user("now"))
    dropped = oldest_to_drop(conversation, lambda shorter: sum(m.text[0] in "qn" for m in shorter) <= fitting)
    assert dropped == min(4, max(0, 5 - fitting))
    kept = [message.text for message in without_oldest(conversation, dropped)]
    assert kept[0] == "s"
    assert kept[-1] == "now"
    assert kept[1:2] == [f"q{dropped}"] or dropped == 4


def test_error_tells_what_takes_how_many_tokens(gptoss, scripted, encoding, reply) -> None:
    gptoss("ask", "first " * 50, completions=[reply("A")])
    arguments = ["ask", "-c", "second"]
    whole = len(gptoss(*arguments, "--no-save", completions=[reply("B")]).engine.prompts[0])
    result = gptoss(*arguments, engine=scripted.ScriptedEngine([], max_context=whole))
    assert result.status == 1
    instructions, earlier, last = (int(part.split()[0]) for part in result.stderr.split(": ")[2].split(", "))
    assert instructions + earlier + last == whole
    assert result.stderr.endswith(
        f"gptoss: {whole} tokens do not fit a context of {whole}: {instructions} of instructions, "
        f"{earlier} of 1 earlier turn, {last} of the last message; --overflow drop-oldest leaves the oldest turns out\n"
    )
    assert gptoss(
        *arguments, engine=scripted.ScriptedEngine([encoding.encode_with_special(reply("B"))], max_context=whole + 1)
    ).status in (0, 4)


@pytest.mark.parametrize("options", [["--overflow", "drop-oldest"], []])
def test_message_that_is_too_long_alone_is_refused(gptoss, scripted, reply, options) -> None:
    gptoss("ask", "first", completions=[reply("A")])
    result = gptoss("ask", "-c", "second " * 100, *options, engine=scripted.ScriptedEngine([], max_context=100))
    assert result.status == 1
    assert result.stderr.endswith("of the last message\n")


# At a terminal


LONG = "first " * 40


@pytest.fixture
def full(terminal, reply):
    """A chat in which a third message leaves too little room."""

    def start(*arguments: str, **fields):
        completions = [reply(answer, "") for answer in ("One", "Two", "Three", "Four")]
        screen = terminal(*arguments, completions=completions, columns=100, rows=40, max_context=200, **fields)
        for text, answer in ((LONG, "One"), ("second", "Two")):
            screen.wait_for_prompt()
            screen.type(f"{text}\r")
            screen.wait_for(answer)
        screen.wait_for_prompt()
        screen.type("third " * 30 + "\r")
        return screen

    return start


def test_chat_shows_the_ledger_and_asks(full) -> None:
    screen = full()
    lines = screen.wait_for(r"\[n\]")
    begin = next(number for number, line in enumerate(lines) if line.startswith("too little room for an answer"))
    rows = {line[2:16].strip(): line[16:].split() for line in lines[begin + 1 : begin + 5]}
    assert list(rows) == ["instructions", "turn 1", "turn 2", "this message"]
    assert rows["turn 1"][1:4] == ["left", "out", "first"]
    assert rows["turn 2"][1:] == ["second"]
    total = int(lines[begin].split("prompt has ")[1].split()[0])
    assert sum(int(tokens) for tokens, *_ in rows.values()) == total
    screen.type("y\r")
    screen.wait_for("gptoss: the oldest turn was left out of the prompt")
    screen.wait_for("Three")
    screen.wait_for_prompt()
    screen.type("again\r")  # yes was for one time
    screen.wait_for("leave the oldest turn out of the prompt")


def test_always_does_not_ask_again(full) -> None:
    screen = full()
    screen.wait_for(r"\[n\]")
    screen.type("always\r")
    screen.wait_for("Three")
    screen.wait_for_prompt()
    screen.type("again\r")
    screen.wait_for("Four")


@pytest.mark.parametrize("key", ["n\r", "\r", "\x03", "\x04"])
def test_no_takes_the_message_back(full, gptoss, key) -> None:
    screen = full()
    screen.wait_for(r"\[n\]")
    screen.type(key)
    screen.wait_for("not sent")
    screen.wait_for_prompt()
    screen.type("\x04")
    assert screen.ended() == 0
    assert gptoss("sessions", "search", "third").status == 1


def test_keep_all_answers_in_what_is_left(full) -> None:
    screen = full()
    screen.wait_for(r"\[n\]")
    screen.type("what\rk\r")  # what is no answer is asked again
    lines = screen.wait_for("Three")
    assert not any("left out of" in line for line in lines)


def test_overflow_error_does_not_ask(full) -> None:
    screen = full("--overflow", "error", "--ctx", "150")
    screen.wait_for("[0-9]+ tokens do not fit a context of 150")


def test_chat_from_a_pipe_does_not_ask(gptoss, scripted, encoding, reply) -> None:
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply(text)) for text in "AB"], max_context=170)
    result = gptoss("chat", stdin=("first " * 40 + "\n" + "second " * 60 + "\n").encode(), engine=engine)
    assert result.stdout == "A\n"
    assert "tokens do not fit a context of 170" in result.stderr


def test_edited_message_that_is_not_sent_leaves_what_was_said(terminal, reply, kept, tmp_path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nyes longer | head -300 > "$1"\n')
    editor.chmod(0o755)
    screen = terminal(completions=[reply("A", "")], max_context=200, variables={"EDITOR": str(editor)})
    screen.wait_for_prompt()
    screen.type("short\r")
    screen.wait_for("A")
    screen.wait_for_prompt()
    screen.type("/edit\r")
    screen.wait_for("[0-9]+ tokens do not fit")
    screen.wait_for_prompt()
    assert kept() == ["short", "A"]
