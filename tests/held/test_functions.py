"""The arguments of functions: compiled when they are called, any JSON object where the schema is not supported."""

from __future__ import annotations

import json
import random
import threading

import pytest
from constrained_sampling import choose, members

from gptoss.cli.constraints import grammars, schemas
from gptoss.cli.constraints.turn import ConstraintFactory, TurnConstraint
from gptoss.cli.session.events import Notice, ToolCall
from gptoss.harmony import Conversation, DeveloperContent, Encoding, Message, SystemContent, ToolDescription


def conversation_with(**parameters: object) -> Conversation:
    functions = [ToolDescription(name, "", schema) for name, schema in parameters.items()]
    developer = DeveloperContent().with_function_tools(*functions)
    return Conversation.of(Message.system(SystemContent(None, None, None, None, None)), Message.developer(developer))


def call(turn: TurnConstraint, encoding: Encoding, name: str, seed: int = 0) -> str:
    """Call a function with sampled arguments."""
    for token in encoding.encode_with_special(f"<|channel|>commentary to=functions.{name}<|message|>"):
        turn.next()
        turn.accept(token)
    draw = random.Random(seed)
    tokens: list[int] = []
    for _ in range(2000):
        token = choose(draw, encoding, members(turn.next().bits))
        tokens.append(token)
        if turn.accept(token):
            return encoding.decode(tokens[:-1])
    raise AssertionError("the arguments have no end")


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The schemas that are compiled from now on."""
    made: list[str] = []
    compile_text = schemas._compile_text

    def count(text: str) -> grammars.Grammar:
        made.append(text)
        return compile_text(text)

    monkeypatch.setattr(schemas, "_compile_text", count)
    return made


def test_a_schema_is_compiled_when_its_function_is_called_and_never_again(nano, compiled):
    named = {
        f"f{i}": {"type": "object", "properties": {f"p{i}": {"const": i}}, "required": [f"p{i}"]} for i in range(100)
    }
    factory = ConstraintFactory(nano)
    for _ in range(3):
        turn = factory.turn(conversation_with(**named))
        assert compiled == []
    assert json.loads(call(turn, nano, "f7"))["p7"] == 7
    assert compiled == [json.dumps(named["f7"])]
    for name in ("f7", "f8", "f7"):
        call(factory.turn(conversation_with(**named)), nano, name)
    assert compiled == [json.dumps(named[name]) for name in ("f7", "f8")]


UNSUPPORTED = {
    "contains": ({"type": "array", "contains": {}}, "contains"),
    "condition": ({"if": {"type": "string"}, "then": {"minLength": 1}}, "if"),
    "look-ahead": ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    "oneOf": ({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]}, "oneOf"),
    "not": ({"not": {"type": "string"}}, "not"),
    "no such type": ({"type": "String"}, "Invalid type: String"),
    "dangling reference": ({"$ref": "#/$defs/nope"}, "'/$defs/nope' does not exist"),
    "not JSON": ({"const": {1}}, "not JSON"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_schema_that_is_not_supported_falls_back_to_any_object_with_one_note(nano, name):
    part, reason = UNSUPPORTED[name]
    factory = ConstraintFactory(nano)
    conversation = conversation_with(f={"type": "object", "properties": {"a": part}}, g={"type": "object"})
    for seed in range(3):
        turn = factory.turn(conversation)
        assert turn.notes == ()
        assert isinstance(json.loads(call(turn, nano, "f", seed)), dict)
        (note,) = turn.notes
        assert note.startswith("functions.f: ")
        assert reason in note
        assert "\n" not in note
    turn = factory.turn(conversation)
    call(turn, nano, "g")
    assert turn.notes == (), "only of functions that are called"


def test_what_is_not_enforced_leaves_the_rest_of_the_schema(nano):
    schema = {
        "type": "object",
        "properties": {"a": {"const": 1, "format": "colour"}, "b": {"type": "array", "uniqueItems": True}},
        "required": ["a"],
        "additionalProperties": False,
    }
    turn = ConstraintFactory(nano).turn(conversation_with(f=schema))
    assert json.loads(call(turn, nano, "f"))["a"] == 1
    assert turn.notes == (
        "functions.f: schema: at /properties/b: that items are unique is not enforced",
        "functions.f: schema: at /properties/a: the format 'colour' is not known, and not enforced",
    )


def test_empty_schema_takes_any_json_and_none_no_arguments(nano):
    turns = [ConstraintFactory(nano).turn(conversation_with(f=schema)) for schema in ({}, None)]
    texts = [call(turn, nano, "f") for turn in turns]
    assert json.loads(texts[1]) == {}
    starts = [ConstraintFactory(nano).turn(conversation_with(f={})) for _ in range(1)]
    for token in nano.encode_with_special("<|channel|>commentary to=functions.f<|message|>"):
        starts[0].next()
        starts[0].accept(token)
    allowed = {nano.decode([token]) for token in members(starts[0].next().bits)}
    assert {"1", "{", "[", '"'} <= allowed


def test_a_session_tells_of_it_once(byte_encoding, open_random_session):
    conversation = conversation_with(f={"properties": {"a": {"not": {}}}})
    told = []
    for seed in range(40):
        session = open_random_session(byte_encoding, conversation, seed=seed, max_tokens=80)
        events = list(session.respond([Message.user("?")]))
        notices = [event for event in events if isinstance(event, Notice)]
        for event in events:
            if isinstance(event, ToolCall):
                assert isinstance(json.loads(event.arguments), dict)
                assert len(notices) == 1
        told += notices
    assert told


def test_threads_share_a_factory_whose_table_is_built_once(nano, compiled, monkeypatch):
    built = []
    make_table = grammars.llguidance_tokenizer
    monkeypatch.setattr(grammars, "llguidance_tokenizer", lambda e: built.append(e) or make_table(e))
    conversation = conversation_with(
        f={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    )
    expected = [call(ConstraintFactory(nano).turn(conversation), nano, "f", seed) for seed in range(8)]
    del built[:], compiled[:]
    factory = ConstraintFactory(nano)
    factory.warm()
    made: dict[int, str] = {}

    def run(seed: int) -> None:
        made[seed] = call(factory.turn(conversation), nano, "f", seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made[seed] for seed in range(8)] == expected
    assert (len(built), len(compiled)) == (1, 1)


def test_nothing_is_built_for_a_turn_without_grammars(nano, monkeypatch):
    monkeypatch.setattr(grammars, "llguidance_tokenizer", None)  # to call it would fail
    turn = ConstraintFactory(nano).turn(Conversation.of(Message.system(SystemContent())))
    for token in nano.encode_with_special("<|channel|>final<|message|>Hi"):
        turn.next()
        assert not turn.accept(token)
    assert turn.accept(nano.special("<|return|>"))


@pytest.mark.parametrize("link", [lambda ref: ref, lambda ref: {"type": "array", "items": ref}])
def test_a_chain_of_references_that_would_use_up_the_stack_is_refused(nano, link):
    """llguidance follows it recursively, and the process would end with a signal."""
    levels = 3000
    chain = {f"d{n}": link({"$ref": f"#/$defs/d{n + 1}"}) for n in range(levels)} | {f"d{levels}": {"type": "null"}}
    schema = {"$ref": "#/$defs/d0", "$defs": chain}
    with pytest.raises(schemas.SchemaError, match="nested too deeply: more than 300 levels, references followed"):
        schemas.schema_grammar(schema)
    turn = ConstraintFactory(nano).turn(conversation_with(f=schema))
    assert json.loads(call(turn, nano, "f")) is not None
    assert "any JSON object is allowed" in turn.notes[0]


def test_references_in_a_circle_are_not_deep(nano):
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/a"}, "other": {"$ref": "#/$defs/b"}}}
    schemas.schema_grammar({"$ref": "#/$defs/a", "$defs": {"a": node, "b": node}})
