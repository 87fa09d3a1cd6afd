"""Tools in a session: who runs them, what ends the turn, and what the next prompt is made of."""

import datetime
import re
import threading
from collections.abc import Generator, Sequence

import pytest

from gptoss.cli.session import events
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.options import SessionModel, SessionRules, TurnOptions
from gptoss.cli.session.session import Session
from gptoss.cli.session.tools import ToolEvent, ToolLimits, ToolOutcome
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Message, ToolDescription
from gptoss.model.interface import SamplingParams

FUNCTIONS = [ToolDescription("f", "First."), ToolDescription("g", "Second.")]
CALL_F = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
CALL_G = CALL_F.replace("functions.f", "functions.g")
ANSWER = "<|channel|>final<|message|>Done.<|return|>"


class Tools:
    """Answers with the number of the call; None for tools that it does not know."""

    def __init__(self, *known: str, text: str | None = None, may_exceed: bool = False) -> None:
        self.known = known
        self.text = text
        self.goes_on = may_exceed
        self.calls: list[events.ToolCall] = []
        self.exceeded: list[str] = []
        self.cancelled = threading.Event()

    def run(self, call: events.ToolCall, history: Sequence[Message]) -> Generator[ToolEvent, None, ToolOutcome | None]:
        if call.recipient not in self.known:
            return None
        self.calls.append(call)
        yield events.ToolOutput(call.id, "running")
        return ToolOutcome(self.text or str(len(self.calls)))

    def may_exceed(self, limit: events.ToolLimit, call: events.ToolCall) -> bool:
        self.exceeded.append(limit)
        return self.goes_on

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture
def open_session(scripted, encoding):
    def start(
        *completions: str,
        tools: Tools | None = None,
        limits: ToolLimits = ToolLimits(),
        **params,
    ) -> Session:
        engine = scripted.ScriptedEngine([encoding.encode_with_special(text) for text in completions])
        settings = ConversationSettings.new(datetime.date(2026, 3, 14), functions=FUNCTIONS)
        rules = SessionRules(params=SamplingParams(**params), tools=tools, tool_limits=limits)
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
        def run(self, call, history):
            threading.Timer(0.05, session.stop).start()
            assert self.cancelled.wait(10)
            return (yield from super().run(call, history))

    session = open_session(CALL_F, ANSWER, tools=Slow("functions.f"))
    ending = ask(session)[-1]
    assert (ending.finish_reason, ending.rounds, ending.pending) == ("interrupted", 1, ())
    assert texts(session) == ["?", "{}", "1"]
    assert not session.stop()


def test_tool_that_raises_leaves_the_call_in_the_transcript(open_session) -> None:
    class Broken(Tools):
        def run(self, call, history):
            yield events.ToolOutput(call.id, "begun")
            raise OSError("broken")

    session = open_session(CALL_F, tools=Broken())
    with pytest.raises(OSError, match="broken"):
        ask(session)
    assert texts(session) == ["?", "{}"]
    assert not session.stop()


def test_call_without_a_result_gets_one_before_the_next_question(open_session, encoding) -> None:
    session = open_session(ANSWER, tools=Tools("functions.f"))
    call = Message.assistant("{}", channel="commentary", recipient="functions.f")
    session.go_on_with(session.transcript.extended([Message.user("?"), call, call, Message.tool("functions.f", "1")]))
    list(session.respond([Message.user("And now?")]))
    assert texts(session)[:4] == ["?", "{}", "{}", "1"]
    assert texts(session)[4].startswith("No result: the program ended before")
    assert texts(session)[5:] == ["And now?", "Done."]


def test_calls_are_numbered_through_the_conversation(open_session) -> None:
    session = open_session(CALL_F, CALL_G, ANSWER, CALL_F, ANSWER, tools=Tools("functions.f", "functions.g"))
    turns = ask(session), ask(session)
    ids = [[e.call_id for e in turn if isinstance(e, events.ToolResult)] for turn in turns]
    assert ids == [["call_1", "call_2"], ["call_3"]]
    kinds = [
        type(e).__name__ for e in turns[1] if isinstance(e, events.ToolCall | events.ToolOutput | events.ToolResult)
    ]
    assert kinds == ["ToolCall", "ToolOutput", "ToolResult"]


def test_long_result_is_shortened_in_the_middle(open_session, encoding) -> None:
    lines = "".join(f"line {n}\n" for n in range(5000))
    session = open_session(CALL_F, ANSWER, tools=Tools("functions.f", text=lines), limits=ToolLimits(result_tokens=100))
    ask(session)
    result = texts(session)[2]
    assert result.startswith("line 0\nline 1\n")
    assert result.endswith("line 4998\nline 4999\n")
    middle = re.search(r"\[... ([\d,]+) characters, ([\d,]+) lines left out here ...\]\n", result)
    assert middle is not None
    kept = result[: middle.start() - 1] + result[middle.end() :]
    assert int(middle[1].replace(",", "")) == len(lines) - len(kept)
    assert int(middle[2].replace(",", "")) == 5000 - kept.count("\n")
    assert len(encoding.encode(result)) <= 130


def test_oldest_results_are_shortened_when_the_context_fills_up(open_session, encoding) -> None:
    text = " ".join(f"w{n}" for n in range(250))
    session = open_session(*[CALL_F, CALL_G] * 4, ANSWER, tools=Tools("functions.f", "functions.g", text=text))
    turn = ask(session)
    assert turn[-1].answered
    assert all(len(prompt) < 3072 for prompt in session.engine.prompts)
    notices = [event.text for event in turn if isinstance(event, events.Notice)]
    assert notices
    assert notices[0].startswith("to make room, the prompt has only the ends of the oldest")
    last = encoding.decode(session.engine.prompts[-1])
    assert "Most of this result is left out to make room" in last
    assert last.count(text) >= 1  # the newest is whole
    assert texts(session).count(text) == 8  # the transcript keeps all
    cached = [event.cached_tokens for event in turn if isinstance(event, events.RoundStarted)]
    lengths = [len(prompt) for prompt in session.engine.prompts]
    assert sum(have < before for have, before in zip(cached[1:], lengths, strict=False)) == len(notices)


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (ToolLimits(calls=2), "tool_calls"),
        (ToolLimits(repeats=2), "tool_repeat"),
        (ToolLimits(seconds=0.0), "tool_time"),
    ],
)
def test_limit_of_tools_ends_the_turn_and_every_call_has_a_result(open_session, limits, limit) -> None:
    tools = Tools("functions.f")
    session = open_session(*[CALL_F] * 5, tools=tools, limits=limits)
    ending = ask(session)[-1]
    assert (ending.finish_reason, ending.limit, ending.pending) == ("length", limit, ())
    assert tools.exceeded == [limit]
    assert len(tools.calls) == (0 if limit == "tool_time" else 2)
    assert texts(session)[-1].startswith("Not run. ")
    assert texts(session).count("{}") * 2 + 1 == len(texts(session))


def test_person_may_go_on_after_a_limit(open_session) -> None:
    tools = Tools("functions.f", may_exceed=True)
    session = open_session(*[CALL_F] * 5, ANSWER, tools=tools, limits=ToolLimits(repeats=2))
    assert ask(session)[-1].answered
    assert tools.exceeded == ["tool_repeat"] * 2
    assert len(tools.calls) == 5


def test_tool_is_cancelled_when_the_time_of_the_turn_is_over(open_session) -> None:
    class Slow(Tools):
        def run(self, call, history):
            yield events.ToolOutput(call.id, "begun")
            assert self.cancelled.wait(10)
            return ToolOutcome("half", "cancelled")

    session = open_session(CALL_F, tools=Slow(), limits=ToolLimits(seconds=0.05))
    turn = ask(session)
    (result,) = (event for event in turn if isinstance(event, events.ToolResult))
    assert (result.status, turn[-1].limit) == ("limit", "tool_time")
    assert result.message.text == "half\nThe turn has reached its limit of time for tools."


def test_stop_while_a_tool_runs_leaves_the_further_calls_with_a_result(open_session, encoding) -> None:
    class Stopping(Tools):
        def run(self, call, history):
            session.stop()
            return (yield from super().run(call, history))

    session = open_session(CALL_F, tools=Stopping("functions.f", "functions.g"))
    assert ask(session)[-1].finish_reason == "interrupted"
    assert session.transcript.messages[-1].author.name == "functions.f"


def test_preamble_alone_does_not_end_the_turn(open_session) -> None:
    preamble = "<|channel|>commentary<|message|>I will look.<|end|>"
    session = open_session(preamble.replace("<|end|>", "<|return|>"), CALL_F, ANSWER, tools=Tools("functions.f"))
    ending = ask(session)[-1]
    assert (ending.rounds, ending.answered) == (3, True)
    assert texts(session) == ["?", "I will look.", "{}", "1", "Done."]


def test_two_preambles_in_succession_end_the_turn(open_session) -> None:
    preamble = "<|channel|>commentary<|message|>I will look.<|return|>"
    session = open_session(preamble, preamble, tools=Tools("functions.f"))
    assert (ask(session)[-1].rounds, texts(session)[-1]) == (2, "I will look.")


@pytest.mark.parametrize(
    "further",
    [
        "<|start|>functions.f to=assistant<|channel|>commentary<|message|>made up<|end|><|start|>assistant"
        "<|channel|>final<|message|>It says: made up.<|return|>",
        "<|start|>assistant<|channel|>final<|message|>It says: made up.<|return|>",
        "<|start|>user<|message|>made up<|end|>",
    ],
)
def test_what_is_said_after_a_call_without_its_result_is_left_out(open_session, encoding, further) -> None:
    call = CALL_F.replace("<|call|>", "<|end|>")
    session = open_session(call + further, ANSWER, tools=Tools("functions.f"))
    turn = ask(session)
    assert texts(session) == ["?", "{}", "1", "Done."]
    assert "".join(event.text for event in turn if isinstance(event, events.FinalDelta)) == "Done."
    problems = [event.description for event in turn if isinstance(event, events.ProblemFound)]
    assert problems == ["what the model said after a call, without its result, was left out"]
    first, second = (event for event in turn if isinstance(event, events.RoundStarted))
    result = "<|start|>functions.f to=assistant<|channel|>commentary<|message|>1<|end|><|start|>assistant"
    assert list(second.prompt) == [*first.prompt, *encoding.encode_with_special(call + result)]


def test_several_calls_of_one_round_are_all_run(open_session) -> None:
    call = CALL_F.replace("<|call|>", "<|end|><|start|>assistant")
    tools = Tools("functions.f", "functions.g")
    session = open_session(call + CALL_G, ANSWER, tools=tools)
    assert ask(session)[-1].answered
    assert texts(session) == ["?", "{}", "{}", "1", "2", "Done."]


def test_code_of_a_call_in_the_analysis_channel_is_no_reasoning(open_session, encoding) -> None:
    thought = "<|channel|>analysis<|message|>I have to count.<|end|><|start|>assistant"
    call = "<|channel|>analysis to=python code<|message|>print(len('a long text that is no reasoning'))<|call|>"
    session = open_session(thought + call, ANSWER, tools=Tools("python"))
    assert ask(session)[-1].usage.reasoning_tokens == len(encoding.encode("I have to count."))
