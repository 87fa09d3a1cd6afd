"""A session keeps what was said, however a turn ends, and never prefills what the engine has cached."""

import datetime

import pytest

from gptoss.cli.base.settings import Effort
from gptoss.cli.session import events
from gptoss.cli.session.instructions import (
    effort_of,
    instructions_of,
    open_conversation,
    with_effort,
    with_instructions,
)
from gptoss.cli.session.session import Session
from gptoss.harmony import Channel, Role, render_for_completion

DAY = datetime.date(2026, 3, 14)


@pytest.fixture
def make_session(scripted, encoding):
    def make(*completions, **engine_options) -> Session:
        ids = [encoding.encode_with_special(text) if isinstance(text, str) else [*text] for text in completions]
        engine = scripted.ScriptedEngine(ids, **engine_options)
        return Session(engine, encoding, open_conversation(DAY, Effort.MEDIUM, None), model="nano")

    return make


def said(session: Session) -> list[tuple[str, str | None, str]]:
    """What stands after the system message: role, channel, text."""
    return [(str(m.role), m.channel, m.text) for m in list(session.conversation)[1:]]


def test_events_of_a_turn(make_session, reply) -> None:
    session = make_session(reply("four", "two two"))
    progress = []
    turn = list(session.ask("2 + 2?", progress.append))
    kinds = [event for event in turn if not isinstance(event, events.Sampled)]
    started, finished = kinds[0], kinds[-1]
    assert started == events.Started("nano", 72, 0, tuple(session.engine.prompts[0]))
    assert kinds[1:-1] == [
        events.ReasoningDelta("two"),
        events.ReasoningDelta(" two"),
        events.FinalDelta("four"),
    ]
    assert progress == [events.PrefillProgress(0, 72), events.PrefillProgress(72, 72)]
    assert finished.finish_reason == "stop"
    assert finished.answered
    assert finished.usage == events.Usage(72, 0, sum(isinstance(e, events.Sampled) for e in turn), 2)


def test_second_prompt_departs_where_the_first_reasoning_began(make_session, reply, encoding) -> None:
    session = make_session(reply("four", "Two and two. " * 50), reply("five", "One more."))
    list(session.ask("2 + 2?"))
    first = session.engine.prompts[0]
    [started, *_] = session.ask("And 1 more?")
    assert started.cached_tokens == len(first) + 1  # the channel token stands there as well
    answer = encoding.encode_with_special("<|channel|>final<|message|>four<|end|>")
    assert list(started.prompt[len(first) :][: len(answer)]) == answer


def test_reasoning_is_kept_for_the_person(make_session, reply) -> None:
    session = make_session(reply("four", "two two"), reply("five", "one more"))
    list(session.ask("2 + 2?"))
    list(session.ask("And 1 more?"))
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
    for event in session.ask(text):
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
    [started, *_] = session.ask("Go on")
    assert session.encoding.decode(started.prompt).endswith(
        "<|start|>assistant<|channel|>analysis<|message|>one two<|end|>"
        "<|start|>user<|message|>Go on<|end|><|start|>assistant"
    )


def test_stop_in_the_answer_keeps_its_part(make_session, reply) -> None:
    session = make_session(reply("one two three", "hm"), reply("ok"))
    finished = stopped_after(session, "Hi", 12)[-1]
    assert (finished.finish_reason, finished.answered) == ("interrupted", True)
    assert said(session)[1:] == [("assistant", "analysis", "hm"), ("assistant", "final", "one two")]
    [started, *_] = session.ask("Go on")
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
    render_for_completion(session.conversation, encoding)


def test_interrupt_while_the_prompt_is_computed(make_session, reply) -> None:
    session = make_session([KeyboardInterrupt()])
    assert not session.stop()
    finished = list(session.ask("Hi"))[-1]
    assert (finished.finish_reason, finished.usage.completion_tokens) == ("interrupted", 0)
    assert said(session) == [("user", None, "Hi")]


def test_a_stop_before_the_turn_does_not_end_it(make_session, reply) -> None:
    session = make_session(reply("four"))
    session.stop()
    assert list(session.ask("Hi"))[-1].finish_reason == "stop"


def test_caller_that_loses_interest(make_session, reply) -> None:
    session = make_session(reply("one two three", "hm"))
    turn = session.ask("Hi")
    for event in turn:
        if isinstance(event, events.FinalDelta):
            break
    turn.close()
    assert said(session)[1:] == [("assistant", "analysis", "hm"), ("assistant", "final", "one")]


def test_engine_that_fails(make_session, encoding) -> None:
    session = make_session([*encoding.encode_with_special("<|channel|>final<|message|>one two"), OSError("lost")])
    with pytest.raises(OSError, match="lost"):
        list(session.ask("Hi"))
    assert said(session) == [("user", None, "Hi"), ("assistant", "final", "one two")]


def test_a_question_that_does_not_fit_is_not_kept(make_session) -> None:
    from gptoss.model.errors import ContextFullError

    session = make_session(max_context=10)
    with pytest.raises(ContextFullError):
        list(session.ask("Hi"))
    assert said(session) == []


def test_a_limit_cuts_without_blame(make_session, scripted) -> None:
    session = make_session("<|channel|>final<|message|>one two", defaults=scripted.Params(max_tokens=4))
    turn = list(session.ask("Hi"))
    assert (turn[-1].finish_reason, turn[-1].limit) == ("length", "max_tokens")
    assert not [event for event in turn if isinstance(event, events.ProblemFound)]
    assert said(session)[1:] == [("assistant", "final", "one")]


def test_a_call_is_told_whole_and_a_cut_one_dropped(make_session) -> None:
    call = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}'
    session = make_session(call + "<|call|>")
    turn = list(session.ask("Hi"))
    assert [e for e in turn if isinstance(e, events.ToolCall)] == [events.ToolCall("functions.f", '{"a": 1}')]
    assert said(session)[1:] == [("assistant", "commentary", '{"a": 1}')]
    session = make_session(call)
    turn = stopped_after(session, "Hi", len(session.engine.completions[0]))
    assert not [e for e in turn if isinstance(e, events.ToolCall)]
    assert said(session)[1:] == []


def test_answer_again(make_session, reply) -> None:
    session = make_session(reply("one", "hm"), reply("two", "hm hm"))
    assert not session.has_question
    list(session.ask("Hi"))
    list(session.answer_again())
    assert session.engine.prompts[0] == session.engine.prompts[1]
    assert said(session) == [
        ("user", None, "Hi"),
        ("assistant", "analysis", "hm hm"),
        ("assistant", "final", "two"),
    ]


def test_checkpoint_stop_tokens_end_a_turn_too(make_session, encoding) -> None:
    session = make_session("<|channel|>final<|message|>one<|reserved_200010|>two")
    session.engine.stop_tokens = frozenset({encoding.special("<|reserved_200010|>")})
    assert list(session.ask("Hi"))[-1].finish_reason == "stop"
    assert said(session)[1:] == [("assistant", Channel.FINAL, "one")]


def test_day_stays_and_effort_and_instructions_change() -> None:
    conversation = open_conversation(DAY, Effort.LOW, "Be brief.")
    assert (effort_of(conversation), instructions_of(conversation)) == (Effort.LOW, "Be brief.")
    changed = with_instructions(with_effort(conversation, Effort.HIGH), "Be long.")
    assert (effort_of(changed), instructions_of(changed)) == (Effort.HIGH, "Be long.")
    assert [message.role for message in changed] == [Role.SYSTEM, Role.DEVELOPER]
    assert with_effort(with_instructions(changed, "Be brief."), Effort.LOW) == conversation
    assert instructions_of(with_instructions(changed, None)) is None
