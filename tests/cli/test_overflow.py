"""Conversations that do not fit the context: nothing is cut silently."""

import json
import random

import pytest

from gptoss.cli.session.context_size import prompt_size
from gptoss.cli.session.events import RoundStarted
from gptoss.cli.session.options import SessionModel, SessionRules
from gptoss.cli.session.overflow import DropOldest, TooLong, without_oldest
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import (
    Author,
    Channel,
    Conversation,
    DeveloperContent,
    Message,
    Role,
    TextContent,
    render_for_completion,
)

CONTEXT = 800
ROOM = 600  # a quarter of the context is for the answer


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


@pytest.fixture
def open_session(scripted, encoding, reply):
    """A session that leaves out the oldest turns, with so many answers of 1 to 40 words."""

    def start(conversation: Conversation, answers: int) -> Session:
        lengths = random.Random(answers)
        completions = [reply("word " * lengths.randint(1, 40)) for _ in range(answers)]
        engine = scripted.ScriptedEngine(map(encoding.encode_with_special, completions), max_context=CONTEXT)
        rules = SessionRules(overflow=DropOldest())
        session = Session(SessionModel("nano", engine, encoding), Transcript.read(conversation), rules)
        session.engine = engine  # for the tests alone
        return session

    return start


def started(session: Session, text: str) -> RoundStarted:
    return next(event for event in list(session.respond([Message.user(text)])) if isinstance(event, RoundStarted))


INSTRUCTIONS = Conversation.of(Message.system("Be brief. " * 10))
QUESTIONS = [f"{number} " + "what " * (number * 7 % 30) for number in range(40)]


def test_a_cut_leaves_room_for_further_turns_which_reuse_the_cached_prefix(open_session, encoding) -> None:
    session = open_session(INSTRUCTIONS, len(QUESTIONS))
    instructions = len(render_for_completion(INSTRUCTIONS, encoding))
    before, cuts, turns = None, 0, 0
    for question in QUESTIONS:
        whole = session.transcript.conversation.extended([Message.user(question)])
        turn = started(session, question)
        assert list(turn.prompt) == render_for_completion(without_oldest(whole, turn.dropped_turns), encoding)
        assert turn.prompt_tokens <= ROOM
        if before is not None and turn.dropped_turns == before.dropped_turns:
            assert turn.cached_tokens >= before.prompt_tokens
        elif before is not None:
            assert turn.dropped_turns > before.dropped_turns
            assert turn.prompt_tokens <= instructions + (ROOM - instructions) * 3 / 4
            cuts += 1
        turns += turn.dropped_turns > 0
        before = turn
    assert cuts > 3
    assert turns >= 3 * cuts


def test_the_same_turns_are_left_out_by_whoever_goes_on_and_after_undo(open_session) -> None:
    session = open_session(INSTRUCTIONS, len(QUESTIONS))
    dropped = []
    for question in QUESTIONS:
        said = session.transcript.conversation
        dropped.append(started(session, question).dropped_turns)
        again = open_session(said, 1)
        assert started(again, question).dropped_turns == dropped[-1]
        again.go_on_with(again.transcript.without_last_turn())
        assert again.transcript.conversation == said
    assert dropped == sorted(dropped)
    last = next(turn for turn in range(len(dropped) - 1, 0, -1) if dropped[turn] == dropped[turn - 1] > 0)
    while sum(message.role is Role.USER for message in session.transcript.messages) > last:
        session.go_on_with(session.transcript.without_last_turn())
    session.engine.completions.append(session.encoding.encode_with_special("<|channel|>final<|message|>A<|return|>"))
    assert started(session, "Something else").dropped_turns == dropped[last - 1]


def test_what_the_next_prompt_has_is_known_before_it(open_session, encoding) -> None:
    session = open_session(INSTRUCTIONS, len(QUESTIONS))
    assert session.shown == INSTRUCTIONS
    for question in QUESTIONS:
        dropped = started(session, question).dropped_turns
        kept = without_oldest(session.transcript.conversation, dropped)
        fits = len(render_for_completion(kept.extended([Message.user("")]), encoding)) <= ROOM
        assert session.shown == kept if fits else len(session.shown.messages) < len(kept.messages)
        assert prompt_size(session.shown, encoding) < ROOM
    plain = Session(SessionModel("nano", session.engine, encoding), session.transcript)
    assert plain.shown is session.transcript.conversation


def test_sizes_add_up_to_the_prompt_whatever_is_left_out(encoding) -> None:
    tool = Message(Author(Role.TOOL, "functions.f"), (TextContent("result"),), channel=Channel.COMMENTARY)
    turns = [
        [Message.user("one"), Message.assistant("hm", channel="analysis"), Message.assistant("a", channel="final")],
        [Message.user("two"), Message.assistant("x", channel="commentary"), tool],
        [Message.user("three"), Message.developer(DeveloperContent(instructions="Now in French."))],
        [Message.user("four"), Message.assistant("b", channel="final"), Message.assistant("c", channel="analysis")],
        [Message.user("five")],
    ]
    conversation = Conversation.of(Message.system("s"), *(message for turn in turns for message in turn))
    prompt, opening = (render_for_completion(each, encoding) for each in (conversation, Conversation.of()))
    too_long = TooLong(conversation, encoding, len(prompt), len(opening), context=1000, room=500)
    for count in range(len(turns)):
        kept = without_oldest(conversation, count)
        assert too_long.prompt_without(count) == len(render_for_completion(kept, encoding))
        assert [message.text for message in kept if message.role is Role.SYSTEM] == ["s"]
        assert sum(message.role is Role.DEVELOPER for message in kept) == 1
        assert kept.messages[-1].text == "five"
        assert len(too_long.oldest(count)) + len(kept.messages) == len(conversation.messages)


@pytest.mark.parametrize(("room", "left_out"), [(55, 0), (54, 2), (40, 2), (25, 3), (10, 4), (1, 4)])
def test_as_many_turns_go_as_make_room_for_more_but_never_the_last(encoding, room, left_out) -> None:
    # A question has 5 tokens, a turn 12, and 2 begin the answer: the prompts without a cut are 7, 19, 31, 43 and 55. In
    # a room of 40 the fourth is the first to be cut, by two turns to 19 (by one it would be 31 of at most 30); then the
    # fifth has 31, and fits.
    turns = [message for _ in range(4) for message in (Message.user("q"), Message.assistant("a", channel="final"))]
    conversation = Conversation.of(*turns, Message.user("q"))
    prompt, opening = (render_for_completion(each, encoding) for each in (conversation, Conversation.of()))
    too_long = TooLong(conversation, encoding, len(prompt), len(opening), context=1000, room=room)
    assert too_long.oldest_to_leave_out() == left_out


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
    screen.type("again\r")  # yes holds, as there is room for this too
    screen.wait_for("Four")
    screen.wait_for_prompt()
    screen.type("/context\r")
    lines = screen.wait_for("the next prompt")
    assert [line.split()[0] for line in lines if "  (left out) " in line] == ["user", "final"]
    sent = [line.split()[1] for line in lines if line.startswith(("system   ", "user   ", "final   "))]
    next_prompt = sum(map(int, sent)) - int(rows["turn 1"][0]) + 2
    assert f"the next prompt: {next_prompt} of 200 tokens" in "\n".join(lines)
    assert f"context {next_prompt} of 200 ({next_prompt / 200:.0%})" in screen.status_bar()
    screen.wait_for_prompt()
    screen.type("more " * 30 + "\r")
    screen.wait_for("leave the oldest 3 turns out of the prompt, which then has")


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
    screen.type("what\r")  # what is no answer is asked again
    screen.wait_for(r"\[n\] what")
    screen.wait_for(r"\[n\]$")
    screen.type("k\r")
    lines = screen.wait_for("Three")
    assert not any("left out of" in line for line in lines)


def test_context_that_an_answer_has_filled_is_told_as_full(terminal, reply) -> None:
    # The reasoning that was cut is a part of the next prompt, and so are the tokens that close it.
    screen = terminal(completions=[reply("A", "hm " * 100)], columns=100, max_context=100)
    screen.wait_for_prompt()
    screen.type("one\r")
    screen.wait_for("cut, as the context is full")
    screen.wait_for_prompt()
    assert "context 100 of 100 (full)" in screen.status_bar()
    screen.type("/context\r")
    screen.wait_for(r"the next prompt: 10\d of 100 tokens \(too many\)")


def test_what_has_to_be_read_again_is_counted_without_what_is_left_out(gptoss, scripted, encoding, reply) -> None:
    completions = [encoding.encode_with_special(reply(text, "")) for text in "ABCD"]
    engine = scripted.ScriptedEngine(completions, max_context=200)
    lines = [LONG, "second", "third " * 30, "/effort high", "x"]
    result = gptoss("chat", "--overflow", "drop-oldest", stdin="\n".join(lines).encode(), engine=engine)
    told = next(line for line in result.stderr.splitlines() if line.startswith("effort high"))
    before, after = engine.prompts[-2:]
    same = next(place for place, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
    message = encoding.encode_with_special("<|start|>user<|message|>x<|end|>")
    assert told.split("; ")[1] == f"{len(after) - len(message) - same} tokens will be read again before the next answer"


@pytest.mark.parametrize("overflow", ["drop-oldest", "error"])
def test_conversation_that_goes_on_is_told_as_it_will_be_sent(terminal, create, encoding, overflow) -> None:
    turns = [message for n in range(9) for message in (Message.user(LONG), Message.assistant("A", channel="final"))]
    conversation = Conversation.of(Message.system("s"), *turns)
    create(conversation)
    screen = terminal("-c", "--overflow", overflow, completions=[], columns=100, max_context=200)
    screen.wait_for_model()
    sent = prompt_size(without_oldest(conversation, 7), encoding)  # two more, and a short question, fit
    expected = f"{sent} of 200 ({sent / 200:.0%})" if overflow == "drop-oldest" else "200 of 200 (full)"
    assert f"context {expected}" in screen.status_bar()


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
