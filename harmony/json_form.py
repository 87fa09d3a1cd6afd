"""Conversations and messages in the JSON form of the official library (its ``Conversation.to_json``).

Writes what the official Python package writes, and reads what its renderer reads: an absent or null setting omits the
line from the prompt (the constructors' defaults do not apply), a string may replace the list of contents, unknown
members are ignored.

Two members are ours, and the official library ignores them: ``response_formats`` of developer contents, and
``header_order`` of messages, which is written only if it is not the default.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gptoss.harmony.content import (
    ChannelConfig,
    Content,
    DeveloperContent,
    ReasoningEffort,
    ResponseFormat,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespaceConfig,
)
from gptoss.harmony.errors import ConversationError
from gptoss.harmony.messages import Author, Conversation, HeaderOrder, Message, Role

MAX_DEPTH = 128
"""Maximum levels of nesting, as in the official library."""

_T = TypeVar("_T")


def loads_conversation(text: str | bytes) -> Conversation:
    """Read a conversation from JSON text.

    Raises:
        ConversationError: the text is not JSON or not a conversation; says where.
    """
    return conversation_from_dict(_loads(text))


def loads_token_ids(text: str | bytes) -> list[int]:
    """Read a JSON list of token ids.

    Raises:
        ConversationError: the text is not JSON or not a list of ids; says where.
    """
    values = _list(_loads(text), "")
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConversationError(f"a token id must be an integer of 0 or more, not {_shown(value)}", f"[{index}]")
    return values


# Writing


def conversation_to_dict(conversation: Conversation) -> dict[str, Any]:
    """Return the official JSON form of a conversation."""
    return {"messages": [message_to_dict(message) for message in conversation.messages]}


def message_to_dict(message: Message) -> dict[str, Any]:
    """Return the official JSON form of a message."""
    return {
        "role": message.author.role.value,
        "name": message.author.name,
        "content": [_content_to_dict(part) for part in message.content],
        **_given(
            channel=message.channel,
            recipient=message.recipient,
            content_type=message.content_type,
            header_order=None if message.header_order is HeaderOrder.RECIPIENT_FIRST else message.header_order.value,
        ),
    }


def _content_to_dict(part: Content) -> dict[str, Any]:
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text}
    if isinstance(part, SystemContent):
        effort, channels = part.reasoning_effort, part.channel_config
        return {
            "type": "system_content",
            **_given(
                model_identity=part.model_identity,
                reasoning_effort=None if effort is None else effort.value.capitalize(),
                conversation_start_date=part.conversation_start_date,
                knowledge_cutoff=part.knowledge_cutoff,
                channel_config=None
                if channels is None
                else {
                    "valid_channels": list(channels.valid_channels),
                    "channel_required": channels.channel_required,
                },
                tools=_tools_to_dict(part.tools),
            ),
        }
    formats = [
        _given(name=each.name, description=each.description, schema=each.schema) for each in part.response_formats
    ]
    return {
        "type": "developer_content",
        **_given(
            instructions=part.instructions,
            tools=_tools_to_dict(part.tools),
            response_formats=formats or None,
        ),
    }


def _tools_to_dict(tools: Mapping[str, ToolNamespaceConfig]) -> dict[str, Any] | None:
    return {
        key: _given(
            name=each.name,
            description=each.description,
            tools=[
                _given(name=tool.name, description=tool.description, parameters=tool.parameters) for tool in each.tools
            ],
        )
        for key, each in tools.items()
    } or None


def _given(**members: Any) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}


# Reading


def conversation_from_dict(data: Any) -> Conversation:
    """Read the official JSON form of a conversation.

    Raises:
        ConversationError: it is not a conversation; says where.
    """
    _check_json(data)
    messages = _list(_object(data, "").get("messages", _ABSENT), "messages")
    return Conversation(tuple(_message(each, f"messages[{index}]") for index, each in enumerate(messages)))


def message_from_dict(data: Any) -> Message:
    """Read the official JSON form of a message.

    Raises:
        ConversationError: it is not a message; says where.
    """
    _check_json(data)
    return _message(data, "")


def _message(data: Any, where: str) -> Message:
    members = _object(data, where)
    role = _one_of(Role, members.get("role", _ABSENT), _at(where, "role"), str)
    order = members.get("header_order")
    content = members.get("content", _ABSENT)
    if isinstance(content, str):
        parts: tuple[Content, ...] = (TextContent(content),)
    else:
        place = _at(where, "content")
        parts = tuple(_content(each, f"{place}[{index}]") for index, each in enumerate(_list(content, place)))
    return Message(
        Author(role, _text_or_none(members, "name", where)),
        parts,
        _text_or_none(members, "channel", where),
        _text_or_none(members, "recipient", where),
        _text_or_none(members, "content_type", where),
        HeaderOrder.RECIPIENT_FIRST if order is None else _one_of(HeaderOrder, order, _at(where, "header_order"), str),
    )


def _content(data: Any, where: str) -> Content:
    members = _object(data, where)
    kind = members.get("type", _ABSENT)
    if kind == "text":
        return TextContent(_text(members.get("text", _ABSENT), _at(where, "text")))
    if kind == "system_content":
        return _system_content(members, where)
    if kind == "developer_content":
        formats = _optional(members, "response_formats", where, _list) or []
        place = _at(where, "response_formats")
        return DeveloperContent(
            _text_or_none(members, "instructions", where),
            _tools(members, where),
            tuple(_response_format(each, f"{place}[{index}]") for index, each in enumerate(formats)),
        )
    raise ConversationError(
        f"must be text, system_content or developer_content, not {_shown(kind)}", _at(where, "type")
    )


def _system_content(members: Mapping[str, Any], where: str) -> SystemContent:
    effort = members.get("reasoning_effort")
    return SystemContent(
        model_identity=_text_or_none(members, "model_identity", where),
        reasoning_effort=None
        if effort is None
        else _one_of(ReasoningEffort, effort, _at(where, "reasoning_effort"), str.capitalize),
        conversation_start_date=_text_or_none(members, "conversation_start_date", where),
        knowledge_cutoff=_text_or_none(members, "knowledge_cutoff", where),
        channel_config=_optional(members, "channel_config", where, _channel_config),
        tools=_tools(members, where),
    )


def _channel_config(data: Any, where: str) -> ChannelConfig:
    members = _object(data, where)
    place = _at(where, "valid_channels")
    channels = _list(members.get("valid_channels", _ABSENT), place)
    required = members.get("channel_required", _ABSENT)
    if not isinstance(required, bool):
        raise ConversationError(f"must be true or false, not {_shown(required)}", _at(where, "channel_required"))
    return ChannelConfig(tuple(_text(each, f"{place}[{index}]") for index, each in enumerate(channels)), required)


def _tools(members: Mapping[str, Any], where: str) -> dict[str, ToolNamespaceConfig]:
    tools = _optional(members, "tools", where, _object) or {}
    return {key: _namespace(each, _at(_at(where, "tools"), key)) for key, each in tools.items()}


def _namespace(data: Any, where: str) -> ToolNamespaceConfig:
    members = _object(data, where)
    place = _at(where, "tools")
    tools = _list(members.get("tools", _ABSENT), place)
    return ToolNamespaceConfig(
        _text(members.get("name", _ABSENT), _at(where, "name")),
        _text_or_none(members, "description", where),
        tuple(_tool(each, f"{place}[{index}]") for index, each in enumerate(tools)),
    )


def _tool(data: Any, where: str) -> ToolDescription:
    members = _object(data, where)
    return ToolDescription(
        _text(members.get("name", _ABSENT), _at(where, "name")),
        _text(members.get("description", _ABSENT), _at(where, "description")),
        _optional(members, "parameters", where, _object),
    )


def _response_format(data: Any, where: str) -> ResponseFormat:
    members = _object(data, where)
    return ResponseFormat(
        _text(members.get("name", _ABSENT), _at(where, "name")),
        _object(members.get("schema", _ABSENT), _at(where, "schema")),
        _text_or_none(members, "description", where),
    )


# Checking

_ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "nothing"})()


def _optional(members: Mapping[str, Any], key: str, where: str, read: Callable[[Any, str], _T]) -> _T | None:
    value = members.get(key)
    return None if value is None else read(value, _at(where, key))


def _text_or_none(members: Mapping[str, Any], key: str, where: str) -> str | None:
    return _optional(members, key, where, _text)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConversationError(f"must be text, not {_shown(value)}", where)
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConversationError(f"must be a list, not {_shown(value)}", where)
    return value


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConversationError(f"must be an object, not {_shown(value)}", where)
    return value


_E = TypeVar("_E", Role, ReasoningEffort, HeaderOrder)


def _one_of(kind: type[_E], value: Any, where: str, spelled: Callable[[str], str]) -> _E:
    names = {spelled(each.value): each for each in kind}
    if not isinstance(value, str) or value not in names:
        raise ConversationError(f"must be one of {', '.join(names)}, not {_shown(value)}", where)
    return names[value]


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _at(where: str, member: str) -> str:
    return f"{where}.{member}" if where else member


def _loads(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ConversationError(f"more than {MAX_DEPTH} levels of nesting") from None
    except UnicodeDecodeError as error:
        raise ConversationError(f"not UTF-8 at byte {error.start}") from None
    except ValueError as error:  # also a number with more digits than Python converts
        raise ConversationError(f"not JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ConversationError(f"{name} is not a JSON number")


def _check_json(data: Any) -> None:
    """Refuse what cannot be JSON in UTF-8: too many levels, numbers that are no float, lone surrogates."""
    pending = [(data, "", 0)]
    while pending:
        value, where, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ConversationError(f"more than {MAX_DEPTH} levels of nesting", where[:200])
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ConversationError("must not contain half of a surrogate pair", where) from None
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConversationError(f"{value} is not a JSON number", where)
        elif isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ConversationError("a number is too large", where)
        elif isinstance(value, Mapping):
            for key, each in value.items():
                pending += [(key, _at(where, ascii(key)[1:-1]), depth), (each, _at(where, key), depth + 1)]
        elif isinstance(value, list | tuple):
            pending += [(each, f"{where}[{index}]", depth + 1) for index, each in enumerate(value)]
