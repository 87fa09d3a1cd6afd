"""The JSON form of conversations: the official one, and errors that say where."""

from __future__ import annotations

import json

import pytest

from gptoss.harmony import (
    ChannelConfig,
    Conversation,
    ConversationError,
    DeveloperContent,
    HeaderOrder,
    Message,
    ReasoningEffort,
    ResponseFormat,
    SystemContent,
    conversation_from_dict,
    conversation_to_dict,
    loads_conversation,
    loads_token_ids,
    message_from_dict,
    message_to_dict,
    render,
)


def test_round_trip(scenario, load_golden):
    source, _ = load_golden(scenario)
    conversation = loads_conversation(source)
    assert conversation_from_dict(conversation_to_dict(conversation)) == conversation
    assert conversation_to_dict(conversation) == json.loads(source)
    for message in conversation:
        assert message_from_dict(message_to_dict(message)) == message


def test_written_is_what_the_official_library_writes(scenario, load_golden, official):
    source, _ = load_golden(scenario)
    written = official.library.Conversation.from_json(source).to_dict()
    read = conversation_to_dict(loads_conversation(source))
    for ours, theirs in zip(read["messages"], written["messages"], strict=True):
        for part in (*ours["content"], *theirs["content"]):
            part.pop("response_formats", None)
            if part["type"] == "system_content":
                # Its Python objects put defaults where the JSON has nothing; its renderer does not.
                for name in ("model_identity", "reasoning_effort", "knowledge_cutoff", "channel_config"):
                    part.pop(name, None)
        assert _without_none(ours) == _without_none(theirs)


def _without_none(value):
    """The official package leaves out null wherever it stands, in schemas too."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None and key != "default"}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


def test_an_absent_setting_is_none_as_in_the_official_renderer(official, encoding):
    source = '{"messages": [{"role": "system", "content": [{"type": "system_content"}]}]}'
    (message,) = loads_conversation(source)
    assert message == Message.system(SystemContent(None, None, None, None, None))
    assert encoding.decode(official.render(source)) == "<|start|>system<|message|><|end|>"


def test_settings():
    content = SystemContent(
        reasoning_effort=ReasoningEffort.HIGH, channel_config=ChannelConfig(("final",), channel_required=False)
    )
    data = message_to_dict(Message.system(content))
    assert data["content"][0]["reasoning_effort"] == "High"
    assert data["content"][0]["channel_config"] == {"valid_channels": ["final"], "channel_required": False}
    assert message_from_dict(data) == Message.system(content)
    formats = DeveloperContent("x", response_formats=(ResponseFormat("a", {"type": "object"}, "why"),))
    assert message_from_dict(message_to_dict(Message.developer(formats))) == Message.developer(formats)


def test_a_text_may_stand_for_the_list():
    assert message_from_dict({"role": "user", "content": "hi", "id": 3}) == Message.user("hi")


def call(order: HeaderOrder) -> Message:
    return Message.assistant(
        "{}",
        channel="commentary",
        recipient="functions.f",
        content_type="<|constrain|>json",
        header_order=order,
    )


def test_the_order_of_a_header_is_kept_and_written_where_it_is_not_the_default():
    assert "header_order" not in message_to_dict(call(HeaderOrder.RECIPIENT_FIRST))
    assert message_to_dict(call(HeaderOrder.CHANNEL_FIRST))["header_order"] == "channel_first"
    for order in HeaderOrder:
        assert message_from_dict(message_to_dict(call(order))) == call(order)
        spelled_out = message_to_dict(call(order)) | {"header_order": order.value}
        assert message_from_dict(spelled_out) == call(order)
    for absent in ({}, {"header_order": None}):
        data = message_to_dict(call(HeaderOrder.RECIPIENT_FIRST)) | absent
        assert message_from_dict(data) == call(HeaderOrder.RECIPIENT_FIRST)


def test_the_official_library_reads_json_with_a_header_order(official, encoding):
    """It ignores the member, in its renderer and in its Python objects."""
    source = json.dumps(conversation_to_dict(Conversation.of(call(HeaderOrder.CHANNEL_FIRST))))
    assert official.render(source) == render(Conversation.of(call(HeaderOrder.RECIPIENT_FIRST)), encoding)
    (message,) = official.library.Conversation.from_json(source).messages
    assert (message.channel, message.recipient) == ("commentary", "functions.f")


@pytest.mark.parametrize("order", ["backwards", "", 1, ["channel_first"]])
def test_another_order_is_refused(order):
    data = message_to_dict(call(HeaderOrder.CHANNEL_FIRST)) | {"header_order": order}
    with pytest.raises(ConversationError, match="must be one of recipient_first, channel_first, not") as caught:
        message_from_dict(data)
    assert caught.value.where == "header_order"


TOOL = {"name": "f", "description": "d"}
BROKEN = {
    "": "[]",
    "messages": '{"messages": 3}',
    "messages[0]": '{"messages": ["hi"]}',
    "messages[0].role": '{"messages": [{"role": "robot", "content": ""}]}',
    "messages[0].content": '{"messages": [{"role": "user"}]}',
    "messages[0].name": '{"messages": [{"role": "user", "name": 3, "content": ""}]}',
    "messages[0].channel": '{"messages": [{"role": "user", "channel": [], "content": ""}]}',
    "messages[1].content[0].type": '{"messages": [{"role": "user", "content": ""}, '
    '{"role": "user", "content": [{"type": "image"}]}]}',
    "messages[0].content[0].text": '{"messages": [{"role": "user", "content": [{"type": "text", "text": null}]}]}',
    "messages[0].content[1]": '{"messages": [{"role": "user", "content": [{"type": "text", "text": ""}, 1]}]}',
}


@pytest.mark.parametrize("where", BROKEN)
def test_an_error_says_where(where):
    with pytest.raises(ConversationError) as caught:
        loads_conversation(BROKEN[where])
    assert caught.value.where == where
    assert str(caught.value).startswith(where)


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ({"type": "system_content", "reasoning_effort": "high"}, "reasoning_effort"),
        ({"type": "system_content", "model_identity": 1}, "model_identity"),
        ({"type": "system_content", "channel_config": {"valid_channels": ["a"]}}, "channel_config.channel_required"),
        (
            {"type": "system_content", "channel_config": {"valid_channels": [1], "channel_required": True}},
            "channel_config.valid_channels[0]",
        ),
        ({"type": "system_content", "tools": []}, "tools"),
        ({"type": "system_content", "tools": {"a": {"name": "a"}}}, "tools.a.tools"),
        ({"type": "developer_content", "instructions": {}}, "instructions"),
        ({"type": "developer_content", "tools": {"f": {"name": "f", "tools": [{}]}}}, "tools.f.tools[0].name"),
        (
            {"type": "developer_content", "tools": {"f": {"name": "f", "tools": [TOOL | {"parameters": 1}]}}},
            "tools.f.tools[0].parameters",
        ),
        ({"type": "developer_content", "response_formats": [{"name": "a"}]}, "response_formats[0].schema"),
    ],
)
def test_an_error_in_settings_says_where(part, where):
    with pytest.raises(ConversationError) as caught:
        message_from_dict({"role": "system", "content": [part]})
    assert caught.value.where == f"content[0].{where}"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        (b"\xff\xfe\xff", "not"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        ('{"messages": [], "\\ud800": 1}', "surrogate"),
        ('{"messages": [NaN]}', "NaN"),
        ('{"messages": [1e999]}', "inf"),
        ('{"messages": [-1' + "0" * 400 + "]}", "too large"),
        ('{"messages": ' + "[" * 200 + "]" * 200 + "}", "128 levels"),
        ('{"messages": ' + "[" * 200_000 + "]" * 200_000 + "}", "levels"),
        ("9" * 5000, "not JSON"),
    ],
)
def test_what_is_no_json_is_refused(source, what):
    with pytest.raises(ConversationError, match=what):
        loads_conversation(source)


def test_token_ids():
    assert loads_token_ids("[1, 200006]") == [1, 200006]
    assert loads_token_ids(b"[]") == []
    for source, where in (("{}", ""), ("[1, -1]", "[1]"), ("[true]", "[0]"), ('["1"]', "[0]"), ("[1.0]", "[0]")):
        with pytest.raises(ConversationError) as caught:
            loads_token_ids(source)
        assert caught.value.where == where
