"""Calls are ruled out, or required after the reasoning, of any tool or of one."""

from __future__ import annotations

import random

import pytest
from constrained_sampling import choose, members

from gptoss.cli.constraints.tool_choice import ToolChoice
from gptoss.cli.constraints.turn import ConstraintFactory
from gptoss.cli.session.events import FinalDelta, ReasoningDelta, ToolCall, TurnFinished
from gptoss.cli.session.options import TurnOptions
from gptoss.harmony import (
    Conversation,
    DeveloperContent,
    Message,
    SystemContent,
    ToolDescription,
    ToolNamespaceConfig,
)
from gptoss.model import Forced

TOOLS = Conversation.of(
    Message.system(SystemContent(None, None, None, None, None).with_tools(ToolNamespaceConfig("python", "Runs."))),
    Message.developer(DeveloperContent().with_function_tools(ToolDescription("f", ""), ToolDescription("g", ""))),
)
REQUIRED = ToolChoice("required")
PYTHON = ToolChoice("required", frozenset({"python"}))
NONE = ToolChoice("none")


def feed(constraint, encoding, text):
    for token in encoding.encode_with_special(text):
        constraint.accept(token)


def allows(constraint, encoding, text) -> bool:
    """Whether a completion with this beginning may come."""
    for token in encoding.encode_with_special(text):
        hold = constraint.next()
        if isinstance(hold, Forced) or not hold.allows(token):
            return False
        constraint.accept(token)
    return True


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (ToolChoice(), {"final", "functions.f", "functions.g", "python"}),
        (NONE, {"final"}),
        (REQUIRED, {"functions.f", "functions.g", "python"}),
        (PYTHON, {"python"}),
        (ToolChoice("required", frozenset({"functions.g"})), {"functions.g"}),
        (ToolChoice("required", frozenset({"functions.gone"})), {"final", "functions.f", "functions.g", "python"}),
    ],
)
def test_headers_that_are_left(nano, choice, wanted):
    factory = ConstraintFactory(nano)
    calls = {
        f"{channel} to={name}{kind}": name
        for name in ("functions.f", "functions.g", "python")
        for channel in ("analysis", "commentary")
        for kind in ("", " code", " json")
    }
    for header, name in {"analysis": "", "commentary": "", "final": "final", **calls}.items():
        turn = factory.turn(TOOLS, tool_choice=choice)
        assert allows(turn, nano, f"<|channel|>{header}<|message|>") == (not name or name in wanted), header


def test_reasoning_and_preambles_come_before_the_call_that_is_required(nano):
    turn = ConstraintFactory(nano).turn(TOOLS, tool_choice=PYTHON)
    before = (
        "<|channel|>analysis<|message|>I think<|end|><|start|>assistant<|channel|>commentary<|message|>I do.<|end|>"
    )
    assert allows(turn, nano, f"{before}<|start|>assistant<|channel|>analysis to=python code<|message|>1")
    assert turn.accept(nano.special("<|call|>"))


@pytest.mark.parametrize("choice", [REQUIRED, PYTHON])
@pytest.mark.parametrize("by_hand", [False, True])
def test_spent_reasoning_is_followed_by_the_header_of_a_call(nano, choice, by_hand):
    turn = ConstraintFactory(nano).turn(TOOLS, think_budget=None if by_hand else 2, tool_choice=choice)
    feed(turn, nano, "<|channel|>analysis<|message|> word word")
    if by_hand:
        turn.answer_now()
    forced = turn.next()
    assert isinstance(forced, Forced)
    assert nano.decode(forced.token_ids) == "<|end|><|start|>assistant"
    for token in forced.token_ids:
        assert not turn.accept(token)
    assert sorted(members(turn.next().bits)) == sorted([nano.special("<|channel|>"), nano.encode(" to=")[0]])
    feed(turn, nano, "<|channel|>")
    turn.accept(nano.encode("analysis")[0])
    assert nano.special("<|message|>") not in members(turn.next().bits)  # no reasoning, no preamble any more
    feed(turn, nano, " to=python code<|message|>1")
    assert turn.accept(nano.special("<|call|>"))


@pytest.mark.parametrize("budget", [None, 0, 3])
def test_every_completion_ends_in_a_call_of_the_tool(nano, budget):
    factory = ConstraintFactory(nano)
    for seed in range(8):
        draw, turn, said = random.Random(seed), factory.turn(TOOLS, think_budget=budget, tool_choice=PYTHON), []
        for _ in range(150):
            hold = turn.next()
            tokens = hold.token_ids if isinstance(hold, Forced) else [choose(draw, nano, members(hold.bits), True)]
            said += tokens
            if [turn.accept(token) for token in tokens][-1]:
                break
        text = nano.decode(said)
        if text.endswith("<|call|>"):
            assert " to=python" in text.rpartition("<|start|>")[2]
        assert "final" not in text
        assert not text.endswith("<|return|>")


def test_a_session_requires_a_call_of_the_first_round_alone(byte_encoding, open_random_session):
    ended = 0
    for seed in range(6):
        session = open_random_session(
            byte_encoding, TOOLS, seed=seed, max_tokens=300, think_budget=4, tool_choice=PYTHON, skip_reasoning=seed > 2
        )
        events = list(session.respond([Message.user("?")]))
        assert not any(isinstance(event, FinalDelta) for event in events)
        assert sum(len(event.text) for event in events if isinstance(event, ReasoningDelta)) < 12
        ending = events[-1]
        assert isinstance(ending, TurnFinished)
        if not ending.pending:
            continue
        ended += 1
        assert [each.recipient for each in ending.pending] == ["python"]
        # With the result the round may answer; another call can be required of it by hand.
        result = Message.tool("python", "1", channel=ending.pending[0].channel)
        again = list(session.respond([result], TurnOptions(tool_choice=NONE)))
        assert not any(isinstance(event, ToolCall) for event in again)
    assert ended >= 2
