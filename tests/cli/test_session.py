"""A session keeps what was said, however a turn ends, and never prefills what the engine has cached."""

import datetime
import threading

import pytest

from gptoss.cli.base.settings import Effort
from gptoss.cli.session import events
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.options import SessionModel, SessionRules, TurnOptions
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Channel, Message, render_for_completion
from gptoss.model.errors import ContextFullError, ModelError
from gptoss.model.interface import SamplingParams

DAY = datetime.date(2026, 3, 14)


@pytest.fixture
def make_session(scripted, encoding):
    def make(*completions, rules=None, **engine_options) -> Session:
        ids = [encoding.encode_with_special(text) if isinstance(text, str) else [*text] for text in completions]
        engine = scripted.ScriptedEngine(ids, **engine_options)
        session = Session(
            SessionModel("nano", engine, encoding), Transcript(ConversationSettings.new(DAY)), rules or SessionRules()
        )
        session.engine = engine  # for the tests alone
        return session

    return make


def said(session: Session) -> list[tuple[str, str | None, str]]:
    """What was said: role, channel, text."""
    return [(str(m.role), m.channel, m.text) for m in session.transcript.messages]


def test_events_of_a_turn(make_session, reply) -> None:
    session = make_session(reply("four", "two two"))
    progress = []
    turn = list(session.respond([Message.user("2 + 2?")], progress=progress.append))
    kinds = [event for event in turn if not isinstance(event, events.Sampled)]
    started, round_finished, finished = kinds[0], kinds[-2], kinds[-1]
    assert started == events.RoundStarted("nano", tuple(session.engine.prompts[0]), 0)
    assert kinds[1:-2] == [
        events.ReasoningDelta("two"),
        events.ReasoningDelta(" two"),
        events.FinalDelta("four"),
    ]
    assert progress == [events.PrefillProgress(0, 72), events.PrefillProgress(72, 72)]
    assert finished.finish_reason == "stop"
    assert finished.answered
    assert started.prompt_tokens == 72
    assert finished.usage == events.Usage(72, 0, sum(isinstance(e, events.Sampled) for e in turn), 2)
    assert (round_finished.usage, finished.rounds, finished.pending) == (finished.usage, 1, ())
    assert finished.context_tokens == 72 + finished.usage.completion_tokens


def test_second_prompt_departs_where_the_first_reasoning_began(make_session, reply, encoding) -> None:
    session = make_session(reply("four", "Two and two. " * 50), reply("five", "One more."))
    list(session.respond([Message.user("2 + 2?")]))
    first = session.engine.prompts[0]
    [started, *_] = session.respond([Message.user("And 1 more?")])
    assert started.cached_tokens == len(first) + 1  # the channel token stands there as well
    answer = encoding.encode_with_special("<|channel|>final<|message|>four<|end|>")
    assert list(started.prompt[len(first) :][: len(answer)]) == answer


def test_reasoning_is_kept_for_the_person(make_session, reply) -> None:
    session = make_session(reply("four", "two two"), reply("five", "one more"))
    list(session.respond([Message.user("2 + 2?")]))
    list(session.respond([Message.user("And 1 more?")]))
    assert said(session) == [
        ("user", None, "2 + 2?"),
        ("assistant", "analysis", "two two"),
        ("assistant", "final", "four"),
        ("user", None, "And 1 more?"),
        ("assistant", "analysis", "one more"),
        ("assistant", "final", "five"),
    ]


def stopped_after(session: Session, text: str, count: int) -> list[events.Event]:
    """The events of a turn in which Ctrl-C comes after so many tokens."""
    seen = []
    for event in session.respond([Message.user(text)]):
        seen.append(event)
        if isinstance(event, events.Sampled):
            count -= 1
            if count == 0:
                assert session.stop()
    return seen


def test_stop_in_the_reasoning_keeps_it_closed(make_session, reply) -> None:
    session = make_session(reply("four", "one two three"), reply("ok"))
    finished = stopped_after(session, "Hi", 5)[-1]
    assert (finished.finish_reason, finished.answered) == ("interrupted", False)
    assert said(session)[1:] == [("assistant", "analysis", "one two")]
    [started, *_] = session.respond([Message.user("Go on")])
    assert session.encoding.decode(started.prompt).endswith(
        "<|start|>assistant<|channel|>analysis<|message|>one two<|end|>"
        "<|start|>user<|message|>Go on<|end|><|start|>assistant"
    )


def test_stop_in_the_answer_keeps_its_part(make_session, reply) -> None:
    session = make_session(reply("one two three", "hm"), reply("ok"))
    finished = stopped_after(session, "Hi", 12)[-1]
    assert (finished.finish_reason, finished.answered) == ("interrupted", True)
    assert said(session)[1:] == [("assistant", "analysis", "hm"), ("assistant", "final", "one two")]
    [started, *_] = session.respond([Message.user("Go on")])
    assert "<|channel|>final<|message|>one two<|end|><|start|>user" in session.encoding.decode(started.prompt)


def test_stop_in_a_header_keeps_what_stands_before(make_session, reply) -> None:
    session = make_session(reply("one", "hm"))
    turn = stopped_after(session, "Hi", 8)
    assert said(session)[1:] == [("assistant", "analysis", "hm")]
    assert not [event for event in turn if isinstance(event, events.ProblemFound)]


def test_stop_in_half_a_character(make_session, reply, encoding) -> None:
    session = make_session(reply("\U0001fae8 x", ""))
    assert len(encoding.encode("\U0001fae8")) > 1
    stopped_after(session, "Hi", 4)
    assert said(session)[1:] == [("assistant", "final", "\ufffd")]
    render_for_completion(session.transcript.conversation, encoding)


def test_stop_while_the_prompt_is_computed(make_session, reply) -> None:
    session = make_session(reply("four"), prefill_delay_s=60)
    assert not session.stop()
    threading.Timer(0.1, session.stop).start()
    finished = list(session.respond([Message.user("Hi")]))[-1]
    assert (finished.finish_reason, finished.usage.completion_tokens) == ("interrupted", 0)
    assert said(session) == [("user", None, "Hi")]
    assert not session.stop()


def test_exception_while_the_prompt_is_computed(make_session) -> None:
    session = make_session([KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        list(session.respond([Message.user("Hi")]))
    assert said(session) == [("user", None, "Hi")]
    assert not session.stop()


def test_a_stop_before_the_turn_does_not_end_it(make_session, reply) -> None:
    session = make_session(reply("four"))
    session.stop()
    assert list(session.respond([Message.user("Hi")]))[-1].finish_reason == "stop"


def test_caller_that_loses_interest(make_session, reply) -> None:
    session = make_session(reply("one two three", "hm"))
    turn = session.respond([Message.user("Hi")])
    for event in turn:
        if isinstance(event, events.FinalDelta):
            break
    turn.close()
    assert said(session)[1:] == [("assistant", "analysis", "hm"), ("assistant", "final", "one")]


def test_engine_that_fails(make_session, encoding) -> None:
    session = make_session([*encoding.encode_with_special("<|channel|>final<|message|>one two"), OSError("lost")])
    with pytest.raises(OSError, match="lost"):
        list(session.respond([Message.user("Hi")]))
    assert said(session) == [("user", None, "Hi"), ("assistant", "final", "one two")]


def test_a_question_that_does_not_fit_is_not_kept(make_session) -> None:
    session = make_session(max_context=10)
    with pytest.raises(ContextFullError):
        list(session.respond([Message.user("Hi")]))
    assert said(session) == []


def test_a_limit_cuts_without_blame(make_session) -> None:
    session = make_session("<|channel|>final<|message|>one two", defaults=SamplingParams(max_tokens=4))
    turn = list(session.respond([Message.user("Hi")]))
    assert (turn[-1].finish_reason, turn[-1].limit) == ("length", "max_tokens")
    assert not [event for event in turn if isinstance(event, events.ProblemFound)]
    assert said(session)[1:] == [("assistant", "final", "one")]


def test_a_call_is_told_whole_and_a_cut_one_dropped(make_session) -> None:
    call = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}'
    session = make_session(call + "<|call|>")
    turn = list(session.respond([Message.user("Hi")]))
    assert [e for e in turn if isinstance(e, events.ToolCall)] == [
        events.ToolCall("functions.f", '{"a": 1}', "commentary")
    ]
    assert turn[-1].pending == (events.ToolCall("functions.f", '{"a": 1}', "commentary"),)
    assert said(session)[1:] == [("assistant", "commentary", '{"a": 1}')]
    session = make_session(call)
    turn = stopped_after(session, "Hi", len(session.engine.completions[0]))
    assert not [e for e in turn if isinstance(e, events.ToolCall)]
    assert said(session)[1:] == []


def test_answer_again(make_session, reply) -> None:
    session = make_session(reply("one", "hm"), reply("two", "hm hm"))
    assert not session.transcript.has_question
    list(session.respond([Message.user("Hi")]))
    list(session.respond_again())
    assert session.engine.prompts[0] == session.engine.prompts[1]
    assert said(session) == [
        ("user", None, "Hi"),
        ("assistant", "analysis", "hm hm"),
        ("assistant", "final", "two"),
    ]


def test_seed_and_effort_of_one_turn_do_not_stay(make_session, reply) -> None:
    session = make_session(reply("one"), reply("two"), reply("three"))
    list(session.respond([Message.user("Hi")]))
    list(session.respond_again(TurnOptions(effort=Effort.HIGH, seed=42)))
    list(session.respond([Message.user("Go on")]))
    assert [params.seed for params in session.engine.params] == [None, 42, None]
    efforts = [
        session.encoding.decode(prompt).split("Reasoning: ")[1].split("\n")[0] for prompt in session.engine.prompts
    ]
    assert efforts == ["medium", "high", "medium"]
    assert session.settings.effort is Effort.MEDIUM


def test_effort_none_for_one_turn_opens_the_answer(make_session) -> None:
    session = make_session("four<|return|>")
    turn = list(session.respond([Message.user("2 + 2?")], TurnOptions(effort=Effort.NONE)))
    assert said(session)[-1] == ("assistant", "final", "four")
    assert not any(isinstance(event, events.ReasoningDelta) for event in turn)
    assert not session.settings.skip_reasoning


def test_observer_sees_each_change_and_a_failed_turn_is_none(make_session, scripted, encoding, reply) -> None:
    seen: list[int] = []
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("four", "hm"))])
    model = SessionModel("nano", engine, encoding)
    session = Session(model, Transcript(), observer=lambda each: seen.append(len(each.transcript.messages)))
    with pytest.raises(ContextFullError):
        list(session.respond([Message.user("long " * 5000)]))
    assert seen == []
    list(session.respond([Message.user("2 + 2?")]))
    assert seen == [1, 2, 3]


def test_sessions_share_the_model_and_its_tables(make_session, encoding, scripted) -> None:
    model = SessionModel("nano", scripted.ScriptedEngine([]), encoding)
    assert model.constraints is model.constraints


def test_what_the_engine_may_store(make_session, reply, encoding) -> None:
    session = make_session(reply("four", "hm"))
    list(session.respond([Message.user("2 + 2?")]))
    for what in ("conversation", "settings", "nothing"):
        session.retain(what)
    conversation, settings, nothing = session.engine.retained
    assert encoding.decode(conversation).endswith(
        "2 + 2?<|end|><|start|>assistant<|channel|>final<|message|>four<|end|>"
    )
    assert encoding.decode(settings).endswith("<|end|>")
    assert conversation[: len(settings)] == settings
    assert nothing == []


def test_closed_session_can_be_read(make_session) -> None:
    session = make_session()
    session.close()
    assert session.engine.is_closed
    assert session.transcript.messages == ()


def test_engine_that_refuses_leaves_the_transcript(make_session) -> None:
    session = make_session(max_context=10)
    with pytest.raises(ModelError):
        list(session.respond([Message.user("Hi")]))
    assert said(session) == []


def test_checkpoint_stop_tokens_end_a_turn_too(make_session, encoding) -> None:
    session = make_session(
        "<|channel|>final<|message|>one<|reserved_200010|>two", stop_tokens=[encoding.special("<|reserved_200010|>")]
    )
    assert list(session.respond([Message.user("Hi")]))[-1].finish_reason == "stop"
    assert said(session)[1:] == [("assistant", Channel.FINAL, "one")]
