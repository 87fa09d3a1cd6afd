"""Sessions over an engine on a server, whose constraints are grammars, or checks from here."""

import datetime
import json

import pytest
from completions_server import Mistake

from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.cli.session import events
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.options import SessionModel, SessionRules
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Message
from gptoss.model import SamplingParams
from gptoss.model.remote.address import parse_address
from gptoss.model.remote.completions import find_model
from gptoss.model.remote.engine import RemoteEngine
from gptoss.model.remote.transport import Transport

SCHEMA = {
    "type": "object",
    "properties": {"sum": {"enum": [432, 7]}},
    "required": ["sum"],
    "additionalProperties": False,
}
CASES = {
    "free": {},
    "budget 8": {"think_budget": 8},
    "budget 0": {"think_budget": 0},
    "schema": {"answer": schema_grammar(SCHEMA)[0]},
}


@pytest.fixture
def remote(server, encoding):
    notes: list[str] = []
    transport = Transport(parse_address(server.url))
    engine = RemoteEngine(
        transport,
        find_model(transport, None),
        encoding.vocab_size,
        frozenset(encoding.stop_tokens),
        notify=notes.append,
    )
    return engine, notes


def talk(engine, encoding, *texts, **rules) -> Session:
    settings = ConversationSettings.new(datetime.date(2026, 3, 14))
    params = SamplingParams(temperature=0, max_tokens=200)
    session = Session(
        SessionModel("nano", engine, encoding), Transcript(settings), SessionRules(params=params, **rules)
    )
    for text in texts:
        list(session.respond([Message.user(text)]))
    return session


def said(session: Session) -> list[tuple]:
    return [(message.channel, message.text) for message in session.transcript.messages]


@pytest.mark.parametrize("case", CASES)
def test_the_same_as_here(local, remote, encoding, server, case) -> None:
    engine, notes = remote
    questions = ("What is 347 + 85?", "And 3 + 4?") if case == "free" else ("What is 347 + 85?",)
    assert said(talk(engine, encoding, *questions, **CASES[case])) == said(
        talk(local, encoding, *questions, **CASES[case])
    )
    assert notes == []
    assert len(server.requests) == len(questions)


@pytest.mark.parametrize("how", ["ignored", "refused"])
@pytest.mark.parametrize("case", ["budget 8", "budget 0", "schema"])
def test_without_grammars_there_constraints_hold_all_the_same(local, remote, encoding, server, case, how) -> None:
    engine, notes = remote
    if how == "ignored":
        server.obeys = False
    else:
        server.constrain = None
    mine = talk(engine, encoding, "What is 347 + 85?", **CASES[case])
    expected = talk(local, encoding, "What is 347 + 85?", **CASES[case])
    if case == "schema":
        assert isinstance(json.loads(mine.transcript.messages[-1].text)["sum"], int)
    else:
        assert said(mine) == said(expected)
    assert len(notes) == len(set(notes))
    assert bool(notes) == (how == "refused" or case == "schema")


def test_answer_now(remote, encoding) -> None:
    engine, _ = remote
    session = talk(engine, encoding)
    reasoning = 0
    for event in session.respond([Message.user("What is 347 + 85?")]):
        if isinstance(event, events.ReasoningDelta):
            reasoning += 1
            if reasoning == 3:
                session.answer_now()
    (_, analysis, final) = said(session)
    assert analysis[0] == "analysis"
    assert len(encoding.encode(analysis[1])) <= 5
    assert final[0] == "final"
    assert final[1]


def test_a_failure_in_the_middle_keeps_what_was_said(remote, encoding, server) -> None:
    engine, _ = remote
    server.mistakes.append(Mistake(after=20, cut=True))
    session = talk(engine, encoding)
    with pytest.raises(Exception, match=r"ended the answer without a reason|broke off"):
        list(session.respond([Message.user("What is 347 + 85?")]))
    assert said(session)[0] == (None, "What is 347 + 85?")
    assert said(session)[1][0] == "analysis"
    list(session.respond([Message.user("What is 3 + 4?")]))
    assert said(session)[-1][0] == "final"
