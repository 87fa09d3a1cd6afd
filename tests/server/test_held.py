"""Grammars and token sets of /v1/completions, and gptoss as its own client: the same as here."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from gptoss.cli.constraints.schemas import schema_grammar
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.options import SessionModel, SessionRules
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Message, ToolDescription
from gptoss.model.interface import Request, SamplingParams
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


@pytest.fixture
def post(server):
    with server.client() as client:

        def send(status: int = 200, **body: Any) -> Any:
            response = client.post("/v1/completions", json={"prompt": "1 + 2 is", "max_tokens": 60, **body})
            assert response.status_code == status, response.text
            return response.json()["error"] if status >= 400 else response.json()["choices"][0]

        yield send


@pytest.mark.parametrize(
    ("form", "value", "holds"),
    [
        ("json", SCHEMA, lambda text: json.loads(text)["sum"] in (432, 7)),
        ("json", json.dumps(SCHEMA), lambda text: json.loads(text)["sum"] in (432, 7)),
        ("regex", "[0-9]{2}x", lambda text: len(text) == 3 and text[2] == "x"),
        ("choice", ["never", "always"], lambda text: text in ("never", "always")),
        ("grammar", 'start: "a" /[bc]/', lambda text: text in ("ab", "ac")),
    ],
)
def test_a_form_is_held(nano, post, form, value, holds) -> None:
    choice = post(structured_outputs={form: value}, return_token_ids=True, temperature=1.0, seed=3)
    assert holds(choice["text"])
    assert (choice["finish_reason"], choice["token_ids"][-1] in nano.encoding.stop_tokens) == ("stop", True)


def test_allowed_and_forbidden_tokens(nano, post) -> None:
    free = post(return_token_ids=True, max_tokens=4)["token_ids"]
    without = post(return_token_ids=True, max_tokens=4, logit_bias={str(free[0]): -100})["token_ids"]
    assert free[0] not in without
    allowed = nano.encoding.encode("7") + nano.encoding.encode("8")
    assert set(post(return_token_ids=True, allowed_token_ids=allowed)["token_ids"]) <= set(allowed)
    assert set(post(return_token_ids=True, allowed_token_ids=allowed, logit_bias={allowed[0]: -100})["token_ids"]) == {
        allowed[1]
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": True}}, "structured_outputs"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": 5}}, "structured_outputs.json"),
        ({"structured_outputs": {"grammar": "start: nothing"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"grammar": 'start: "' + "x" * 600_000 + '"'}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"grammar": "start: a\n" * 4097}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": {"if": {}}}}, None),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids"),
        ({"logit_bias": {"5": 3}}, "logit_bias"),
        ({"logit_bias": {"x": -100}}, "logit_bias"),
        ({"logit_bias": {"100000": -100}}, "logit_bias"),
    ],
)
def test_what_is_wrong_is_named(post, body, param) -> None:
    assert post(400, **body)["param"] == param


def test_what_goes_deep_does_not_end_the_server(server, post) -> None:
    rules = "\n".join(f"r{n}: r{n + 1}" for n in range(4000))
    assert post(structured_outputs={"grammar": f'start: r0\n{rules}\nr4000: "y"'})["text"] == "y"
    names = {f"{n}": {"allOf": [{"$ref": f"#/$defs/{n + 1}"}]} for n in range(1300)}
    schema = {"$defs": {**names, "1300": {"enum": [7]}}, "$ref": "#/$defs/0"}
    assert len(json.dumps(schema)) < 65_536
    assert "nested too deeply" in post(400, structured_outputs={"json": schema})["message"]
    with server.client() as client:
        asked = {"messages": [{"role": "user", "content": "x"}]}
        too_deep = json.dumps({**asked, "response_format": {"type": "json_schema", "json_schema": {"schema": 0}}})
        for depth in (200, 600, 900, 3000):
            body = too_deep.replace('"schema": 0', '"schema": ' + '{"items": ' * depth + "{}" + "}" * depth)
            refused = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
            assert refused.status_code == 400
            assert "nested too deeply" in refused.json()["error"]["message"]
    assert server.complaints == []


# gptoss as the client


@pytest.fixture
def remote(nano, server):
    notes: list[str] = []
    transport = Transport(parse_address(server.url))
    stop = frozenset(nano.encoding.stop_tokens)
    model = find_model(transport, None)
    assert (model.name, model.max_context) == ("nano", nano.engine.info.max_context)
    return RemoteEngine(transport, model, nano.encoding.vocab_size, stop, notify=notes.append), notes


def said(model: SessionModel, question: str, functions: tuple[ToolDescription, ...] = (), **rules: Any) -> list[Any]:
    settings = ConversationSettings.new(datetime.date(2026, 3, 14), functions=functions)
    # Tokens that a budget forces take no random number here, and one each where they are sampled under a grammar.
    temperature = 0.0 if "think_budget" in rules else 1.0
    params = SamplingParams(temperature=temperature, seed=5, max_tokens=250)
    session = Session(model, Transcript(settings), SessionRules(params=params, **rules))
    calls = [event for event in session.respond([Message.user(question)]) if isinstance(event, ToolCall)]
    return [calls, *((message.channel, message.recipient, message.text) for message in session.transcript.messages)]


ADD = ToolDescription("add", "Add.", {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]})


@pytest.mark.parametrize(
    "rules",
    [{}, {"think_budget": 8}, {"answer": schema_grammar(SCHEMA)[0]}, {"functions": (ADD,)}],
    ids=["free", "budget", "schema", "functions"],
)
def test_a_session_over_http_says_the_same(nano, remote, rules) -> None:
    engine, notes = remote
    far = SessionModel("nano", engine, nano.encoding)
    assert said(far, "What is 347 + 85?", **rules) == said(nano, "What is 347 + 85?", **rules)
    assert notes == []


def test_tokens_over_http_are_the_same(nano, remote) -> None:
    engine, _ = remote
    ids = tuple(nano.encoding.encode("347 + 85 is"))
    params = SamplingParams(temperature=0.9, top_p=0.9, seed=11, max_tokens=30, top_logprobs=2)
    near, far = nano.engine.generate(Request(ids, params)), engine.generate(Request(ids, params))
    assert list(far) == list(near)
    assert (far.finish_reason, far.seed, far.prompt_tokens) == (near.finish_reason, near.seed, near.prompt_tokens)
