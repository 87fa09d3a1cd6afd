"""JSON schemas as TypeScript-like text, against the official library."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gptoss.harmony import Conversation, DeveloperContent, Message, RenderError, ToolDescription, render
from gptoss.harmony.schema import MAX_DEPTH, typescript

names = st.text("abc_é-1 ", min_size=1, max_size=5)
strings = st.text(max_size=8) | st.sampled_from(["null", "two\nlines", 'a "quote"', "\r\n", "\x7f\x00\u2028"])
numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [0.30000000000000004, 123456789.12345679, 1e16, 1e-5, 9007199254740991.0, -0.0, 2**64, -(2**63) - 1]
    )
)
values = st.recursive(
    st.none() | st.booleans() | numbers | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=5,
)
types = st.sampled_from(["string", "number", "integer", "boolean", "array", "object", "null", "other"])


def schemas(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    keywords = {
        "type": types | st.lists(types | st.just(3), max_size=3),
        "description": strings | st.just(1),
        "title": strings,
        "default": values,
        "enum": st.lists(strings | st.integers(), max_size=3) | st.just("no list"),
        "nullable": st.booleans() | st.just("true"),
        "examples": st.lists(strings | st.integers(), max_size=3),
        "properties": st.dictionaries(names, inner, max_size=4),
        "required": st.lists(names | st.integers(), max_size=3),
        "items": inner,
        "oneOf": st.lists(inner, max_size=3) | st.just({}),
        "$ref": strings,
        "additionalProperties": st.booleans(),
    }
    # An object type often, as properties are read there alone.
    needed = {"type": st.just("object"), "properties": keywords["properties"]}
    others = {key: value for key, value in keywords.items() if key not in needed}
    return st.fixed_dictionaries({}, optional=keywords) | st.fixed_dictionaries(needed, optional=others)


any_schema = st.recursive(values | schemas(values), schemas, max_leaves=12)
parameters = schemas(any_schema)


def conversation_of(schema: object) -> Conversation:
    tool = ToolDescription("f", "Does.", schema)
    return Conversation.of(Message.developer(DeveloperContent().with_function_tools(tool)))


@given(schema=parameters)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_schemas_are_official(schema, encoding, official):
    conversation = conversation_of(schema)
    assert encoding.decode(render(conversation, encoding)) == encoding.decode(official.render(conversation))


@given(value=numbers)
@settings(max_examples=300)
def test_numbers_are_official(value, encoding, official):
    conversation = conversation_of({"type": "object", "properties": {"n": {"default": value}}})
    assert render(conversation, encoding) == official.render(conversation)


def test_default_null_is_written(encoding, official):
    conversation = conversation_of({"type": "object", "properties": {"n": {"default": None}}})
    assert "default: null" in encoding.decode(official.render(conversation))
    assert "default: null" in typescript({"type": "object", "properties": {"n": {"default": None}}})


def test_a_schema_too_deep_is_refused():
    schema: dict[str, object] = {"type": "string"}
    for _ in range(MAX_DEPTH):
        schema = {"type": "array", "items": schema}
    assert typescript(schema) == "string" + "[]" * MAX_DEPTH
    with pytest.raises(RenderError, match="128 levels"):
        typescript({"type": "array", "items": schema})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, -(10**400)])
def test_what_is_no_json_number_is_refused(value):
    with pytest.raises(RenderError, match="not a JSON number"):
        typescript({"type": "object", "properties": {"n": {"default": value}}})


@pytest.mark.parametrize("value", [986156958681506867575085424705537, 2**64 - 1, 2**64, 10**300, -(2**63) - 1])
def test_large_integers_are_official(value, encoding, official):
    conversation = conversation_of({"type": "object", "properties": {"n": {"default": value}}})
    assert render(conversation, encoding) == official.render(conversation)


def test_function_whose_schema_is_refused_is_named(encoding):
    with pytest.raises(RenderError, match=r"^functions\.\w+: a schema has a number"):
        render(conversation_of({"type": "object", "properties": {"n": {"default": 10**400}}}), encoding)
