"""Tools in a session: who runs them, what ends the turn, and what the next prompt is made of."""

import datetime
import threading

import pytest

from gptoss.cli.session import events
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.options import SessionModel, SessionRules, TurnOptions
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Message, ToolDescription
from gptoss.model.interface import SamplingParams

FUNCTIONS = [ToolDescription("f", "First."), ToolDescription("g", "Second.")]
CALL_F = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
CALL_G = CALL_F.replace("functions.f", "functions.g")
ANSWER = "<|channel|>final<|message|>Done.<|return|>"


class Tools:
    """Answers with the number of the call; None for tools that it does not know."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.calls: list[events.ToolCall] = []
        self.cancelled = threading.Event()

    def run(self, call: events.ToolCall) -> Message | None:
        if call.recipient not in self.known:
            return None
        self.calls.append(call)
        return Message.tool(call.recipient, str(len(self.calls)), channel=call.channel)

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture
def open_session(scripted, encoding):
    def start(*completions: str, tools: Tools | None = None, **params) -> Session:
        engine = scripted.ScriptedEngine([encoding.encode_with_special(text) for text in completions])
        settings = ConversationSettings.new(datetime.date(2026, 3, 14), functions=FUNCTIONS)
        rules = SessionRules(params=SamplingParams(**params), tools=tools)
        session = Session(SessionModel("nano", engine, encoding), Transcript(settings), rules)
        session.engine = engine  # for the tests alone
        return session

    return start


def ask(session: Session, **options) -> list[events.Event]:
    return list(session.respond([Message.user("?")], TurnOptions(**options)))


def texts(session: Session) -> list[str]:
    return [message.text for message in session.transcript.messages]


def test_rounds_go_on_until_the_answer(open_session) -> None:
    tools = Tools("functions.f", "functions.g")
    session = open_session(CALL_F, CALL_G, ANSWER, tools=tools)
    ending = ask(session)[-1]
    assert [call.recipient for call in tools.calls] == ["functions.f", "functions.g"]
    assert texts(session) == ["?", "{}", "1", "{}", "2", "Done."]
    assert (ending.rounds, ending.answered, ending.pending) == (3, True, ())


def test_usage_is_that_of_all_rounds_and_the_context_that_of_the_last(open_session) -> None:
    session = open_session(CALL_F, ANSWER, tools=Tools("functions.f"))
    turn = ask(session)
    rounds = [event for event in turn if isinstance(event, events.RoundFinished)]
    assert len(rounds) == 2
    assert turn[-1].usage == rounds[0].usage + rounds[1].usage
    assert turn[-1].context_tokens == rounds[1].usage.prompt_tokens + rounds[1].usage.completion_tokens


def test_each_round_has_its_own_random_numbers_which_the_turns_seed_repeats(open_session) -> None:
    session = open_session(CALL_F, CALL_G, ANSWER, tools=Tools("functions.f", "functions.g"))
    ending = ask(session, seed=40)[-1]
    assert [params.seed for params in session.engine.params] == [40, 41, 42]
    assert ending.seed == 40


def test_a_call_that_nobody_runs_is_left_to_the_caller_who_goes_on_with_its_result(open_session, encoding) -> None:
    session = open_session(CALL_G, ANSWER, tools=Tools("functions.f"))
    turn = ask(session)
    (call,) = turn[-1].pending
    assert (call.recipient, turn[-1].rounds, turn[-1].answered) == ("functions.g", 1, False)
    result = Message.tool(call.recipient, "2", channel=call.channel)
    (started, *_, ending) = session.respond([result])
    first = turn[0]
    sampled = [event.token.id for event in turn if isinstance(event, events.Sampled)]
    assert list(started.prompt[: len(first.prompt) + len(sampled)]) == [*first.prompt, *sampled]
    assert started.cached_tokens == len(first.prompt) + len(sampled)
    assert ending.answered
    assert texts(session) == ["?", "{}", "2", "Done."]


def test_what_was_sampled_is_the_prompt_even_where_its_text_has_other_tokens(open_session, encoding) -> None:
    session = open_session(CALL_F, ANSWER, tools=Tools("functions.f"))
    odd = [*encoding.encode_with_special(CALL_F.removesuffix("{}<|call|>")), *(encoding.encode(c)[0] for c in "{}")]
    assert encoding.encode("{}") != odd[-2:]
    session.engine.completions[0] = [*odd, encoding.special("<|call|>")]
    _, second = (event for event in ask(session) if isinstance(event, events.RoundStarted))
    assert list(second.prompt[len(session.engine.prompts[0]) :][: len(odd)]) == odd


def test_a_result_for_another_conversation_does_not_go_on_from_what_was_sampled(open_session) -> None:
    session = open_session(CALL_G, ANSWER)
    ask(session)
    session.go_on_with(Transcript(session.settings.with_instructions("Be brief."), session.transcript.messages))
    (started, *_) = session.respond([Message.tool("functions.g", "2")])
    assert "Be brief." in session.encoding.decode(started.prompt)


def test_token_limit_is_of_the_whole_turn(open_session, encoding) -> None:
    length = len(encoding.encode_with_special(CALL_F))
    session = open_session(CALL_F, ANSWER, tools=Tools("functions.f"), max_tokens=length + 3)
    ending = ask(session)[-1]
    assert [params.max_tokens for params in session.engine.params] == [length + 3, 3]
    assert (ending.finish_reason, ending.limit, ending.usage.completion_tokens) == ("length", "max_tokens", length + 3)
    session = open_session(CALL_F, ANSWER, tools=Tools("functions.f"), max_tokens=length)
    ending = ask(session)[-1]
    assert (ending.limit, ending.rounds) == ("max_tokens", 1)
    assert texts(session) == ["?", "{}", "1"]


def test_stop_while_a_tool_runs_keeps_its_result_and_ends_the_turn(open_session) -> None:
    class Slow(Tools):
        def run(self, call: events.ToolCall) -> Message | None:
            threading.Timer(0.05, session.stop).start()
            assert self.cancelled.wait(10)
            return super().run(call)

    session = open_session(CALL_F, ANSWER, tools=Slow("functions.f"))
    ending = ask(session)[-1]
    assert (ending.finish_reason, ending.rounds, ending.pending) == ("interrupted", 1, ())
    assert texts(session) == ["?", "{}", "1"]
    assert not session.stop()


def test_tool_that_raises_leaves_the_call_in_the_transcript(open_session) -> None:
    class Broken(Tools):
        def run(self, call: events.ToolCall) -> Message | None:
            raise OSError("broken")

    session = open_session(CALL_F, tools=Broken())
    with pytest.raises(OSError, match="broken"):
        ask(session)
    assert texts(session) == ["?", "{}"]
    assert not session.stop()


def test_result_that_does_not_fit_the_context_is_kept(open_session, encoding) -> None:
    from gptoss.model.errors import ContextFullError

    class Long(Tools):
        def run(self, call: events.ToolCall) -> Message | None:
            return Message.tool(call.recipient, "word " * 5000, channel=call.channel)

    session = open_session(CALL_F, tools=Long())
    with pytest.raises(ContextFullError, match=r"do not fit a context of 4096: \d+ of instructions, \d+ of the last"):
        ask(session)
    assert len(session.transcript.messages) == 3
