"""The reasoning ends after so many tokens, or when the user asks for the answer."""

from __future__ import annotations

import threading

import pytest

from gptoss.cli.constraints.turn import ConstraintFactory
from gptoss.cli.session.events import FinalDelta, ReasoningDelta, Sampled, TurnFinished
from gptoss.harmony import Conversation, Message, SystemContent
from gptoss.model import Forced

PLAIN = Conversation.of(Message.system(SystemContent()))
CLOSING = "<|end|><|start|>assistant<|channel|>final<|message|>"


def feed(constraint, encoding, text):
    for token in encoding.encode_with_special(text):
        constraint.accept(token)


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_the_reasoning_is_closed_after_so_many_tokens(o200k, budget):
    turn = ConstraintFactory(o200k).turn(PLAIN, think_budget=budget)
    feed(turn, o200k, "<|channel|>analysis<|message|>" + " word" * budget)
    restriction = turn.next()
    assert isinstance(restriction, Forced)
    assert o200k.decode(restriction.token_ids) == CLOSING
    for token in restriction.token_ids:
        assert not turn.accept(token)
    assert not isinstance(turn.next(), Forced)


def test_a_token_before_the_budget_is_spent_nothing_is_forced(o200k):
    turn = ConstraintFactory(o200k).turn(PLAIN, think_budget=5)
    feed(turn, o200k, "<|channel|>analysis<|message|> word word word word")
    assert not isinstance(turn.next(), Forced)


def test_the_reasoning_of_a_turn_is_counted_together(o200k):
    turn = ConstraintFactory(o200k).turn(PLAIN, think_budget=3)
    feed(turn, o200k, "<|channel|>analysis<|message|> word word<|end|><|start|>assistant")
    feed(turn, o200k, "<|channel|>analysis<|message|> word")
    assert isinstance(turn.next(), Forced)


def test_only_reasoning_is_counted(o200k):
    turn = ConstraintFactory(o200k).turn(PLAIN, think_budget=1)
    feed(turn, o200k, "<|channel|>commentary<|message|> word word word")
    assert not isinstance(turn.next(), Forced)
    feed(turn, o200k, "<|end|><|start|>assistant<|channel|>final<|message|> word word word")
    assert not isinstance(turn.next(), Forced)


def test_no_character_is_cut_in_two(byte_encoding):
    turn = ConstraintFactory(byte_encoding).turn(PLAIN, think_budget=2)
    feed(turn, byte_encoding, "<|channel|>analysis<|message|>a")
    for byte in "中".encode():
        assert not isinstance(turn.next(), Forced)
        turn.accept(byte)
    assert isinstance(turn.next(), Forced)


def test_answer_now_closes_the_reasoning(o200k):
    turn = ConstraintFactory(o200k).turn(PLAIN)
    feed(turn, o200k, "<|channel|>analysis<|message|> word")
    assert not isinstance(turn.next(), Forced)
    thread = threading.Thread(target=turn.answer_now)
    thread.start()
    thread.join()
    assert isinstance(turn.next(), Forced)


def test_a_session_answers_within_its_budget(byte_encoding, open_random_session):
    answered = 0
    for seed in range(12):
        session = open_random_session(byte_encoding, seed=seed, max_tokens=100, think_budget=4)
        events = list(session.respond([Message.user("?")]))
        ending = events[-1]
        assert isinstance(ending, TurnFinished)
        assert ending.usage.reasoning_tokens <= 4 + 3, "three more bytes at most end a character"
        answered += ending.answered and any(isinstance(event, ReasoningDelta) for event in events)
    assert answered >= 1


def test_answer_now_during_a_turn(byte_encoding, open_random_session):
    session = next(
        session
        for session in (open_random_session(byte_encoding, seed=seed, max_tokens=150) for seed in range(20))
        if sum(isinstance(event, ReasoningDelta) for event in session.respond([Message.user("?")])) > 60
    )
    assert not session.answer_now(), "no turn goes on"
    said: list[type] = []
    asked_at = None
    for number, event in enumerate(session.respond_again()):
        if isinstance(event, ReasoningDelta | FinalDelta):
            said.append(type(event))
        if asked_at is None and said.count(ReasoningDelta) == 20:
            assert session.answer_now()
            asked_at = number
    assert FinalDelta in said
    assert said.count(ReasoningDelta) <= 20 + 4
    # The next turn reasons as long as it likes.
    assert sum(isinstance(event, ReasoningDelta) for event in session.respond_again()) > 30


def test_effort_none_begins_in_the_answer(byte_encoding, open_random_session):
    session = open_random_session(byte_encoding, max_tokens=30, skip_reasoning=True, think_budget=0)
    events = list(session.respond([Message.user("?")]))
    assert not any(isinstance(event, ReasoningDelta) for event in events)
    assert any(isinstance(event, FinalDelta) for event in events)
    assert sum(isinstance(event, Sampled) for event in events) <= 30
