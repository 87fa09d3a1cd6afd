"""A scripted tool through `Session.respond`: several rounds, one turn, and only the result is prefilled."""

import datetime
from collections.abc import Generator, Sequence

import pytest

from gptoss.cli.session import events
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.options import SessionModel, SessionRules
from gptoss.cli.session.session import Session
from gptoss.cli.session.tools import ToolEvent, ToolOutcome, Tools
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Message, ToolDescription

ADD = ToolDescription("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
THINK = "<|channel|>analysis<|message|>Let me add.<|end|><|start|>assistant"
ARGUMENTS = '<|message|>{"a": 2}<|call|>'
HEADERS = {
    "channel first": "<|channel|>commentary to=functions.add <|constrain|>json",
    "recipient first": " to=functions.add<|channel|>commentary <|constrain|>json",
}
ANSWER = "<|channel|>final<|message|>Four.<|return|>"


class Adder(Tools):
    """Adds two to the argument, always."""

    def run(self, call: events.ToolCall, history: Sequence[Message]) -> Generator[ToolEvent, None, ToolOutcome]:
        yield from ()
        return ToolOutcome("4")


@pytest.fixture(params=HEADERS)
def session(request, scripted, encoding) -> Session:
    completions = [THINK + HEADERS[request.param] + ARGUMENTS, ANSWER]
    engine = scripted.ScriptedEngine([encoding.encode_with_special(text) for text in completions])
    settings = ConversationSettings.new(datetime.date(2026, 3, 14), functions=[ADD])
    return Session(SessionModel("nano", engine, encoding), Transcript(settings), SessionRules(tools=Adder()))


def test_a_tool_is_called_in_one_turn_of_two_rounds(session) -> None:
    turn = list(session.respond([Message.user("2 + 2?")]))
    kinds = [type(event).__name__ for event in turn if not isinstance(event, events.Sampled | events.ReasoningDelta)]
    assert kinds == [
        *("RoundStarted", "ToolCall", "RoundFinished", "ToolResult"),
        *("RoundStarted", "FinalDelta", "FinalDelta", "RoundFinished", "TurnFinished"),
    ]
    first, second = (event for event in turn if isinstance(event, events.RoundStarted))
    sampled = [event.token.id for event in turn[: turn.index(second)] if isinstance(event, events.Sampled)]
    result = "<|start|>functions.add to=assistant<|channel|>commentary<|message|>4<|end|><|start|>assistant"
    new = session.encoding.encode_with_special(result)
    assert list(second.prompt) == [*first.prompt, *sampled, *new]
    assert second.cached_tokens == len(second.prompt) - len(new)  # the result alone is prefilled
    assert (turn[-1].finish_reason, turn[-1].answered, turn[-1].rounds) == ("stop", True, 2)
    said = [message.text for message in session.transcript.messages]
    assert said == ["2 + 2?", "Let me add.", '{"a": 2}', "4", "Four."]
