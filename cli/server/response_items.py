"""The items of the responses API as messages of harmony, and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss.cli.server.chat_messages import call_message, content_text, instruction
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.offered_tools import function_name, plain_argument, recipient
from gptoss.cli.server.remembered import RememberedCalls
from gptoss.cli.server.replies import Call
from gptoss.cli.server.served import new_id
from gptoss.harmony import Channel, Message, Role

_BETWEEN = "\n\n"
_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
# Marks what this server wrote. It hides nothing: the same text is the content of the item.
_SEALED = "gptoss:"


@dataclass
class ReadItems:
    """What the items of a request say.

    Attributes:
        messages: of the conversation.
        called: the recipient of each call by its id.
        instructions: the system and developer messages before anything else.
    """

    messages: list[Message] = field(default_factory=list)
    called: dict[str, str] = field(default_factory=dict)
    instructions: list[str] = field(default_factory=list)


def read_items(
    items: Sequence[Fields], remembered: RememberedCalls, before: Sequence[Message], called: Mapping[str, str]
) -> ReadItems:
    """Return what items say.

    Args:
        items: of the request.
        remembered: the calls that this server has made.
        before: the conversation that they go on with.
        called: the recipients of its calls by their ids.

    Raises:
        ApiError: an item is malformed, has other than text, or is the result of a call that was not made.
    """
    read = ReadItems(list(before), dict(called))
    for index, item in enumerate(items):
        kind = item.text("type") or "message"
        if kind == "message":
            _read_message(item, read, leads_to_call=_leads_to_call(items[index + 1 :]))
        elif kind == "reasoning":
            text = _reasoning_text(item)
            if text:
                read.messages.append(Message.assistant(text, channel=Channel.ANALYSIS.value))
        elif kind in _CALLS:
            _read_call(item, kind, remembered, read)
        elif kind in _OUTPUTS:
            call_id = item.required_text("call_id")
            if call_id not in read.called:
                raise item.error("call_id", "the id of a call before it")
            read.messages.append(Message.tool(read.called[call_id], content_text(item, "output")))
        elif kind == "item_reference":
            raise item.error("type", "an item itself: previous_response_id goes on with a stored response")
        # Items of tools that run in the clouds of others say nothing here.
    return read


def reasoning_item(item_id: str, text: str, *, sealed: bool) -> dict[str, Any]:
    """Return a reasoning item; `sealed` adds the content in the form that clients give back without a look at it."""
    item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": []}
    item["content"] = [{"type": "reasoning_text", "text": text}] if text else []
    if sealed and text:
        item["encrypted_content"] = _SEALED + base64.b64encode(text.encode()).decode()
    return item


def message_item(item_id: str, part: dict[str, Any] | None, status: str, *, is_preamble: bool) -> dict[str, Any]:
    """Return a message of the assistant."""
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "phase": "commentary" if is_preamble else "final_answer",
        "content": [] if part is None else [part],
    }


def text_part(text: str, logprobs: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the content of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def call_item(call: Call, *, is_custom: bool) -> dict[str, Any]:
    """Return a call, complete."""
    name = function_name(call.recipient)
    if is_custom:
        item = {"id": new_id("ctc_"), "type": "custom_tool_call", "input": plain_argument(name, call.arguments)}
    else:
        item = {"id": new_id("fc_"), "type": "function_call", "arguments": call.arguments}
    return {**item, "status": "completed", "call_id": call.id, "name": name}


def _read_message(item: Fields, read: ReadItems, *, leads_to_call: bool) -> None:
    text = content_text(item, "content")
    role = item.choice("role", ("system", "developer", "user", "assistant"))
    if role is None:
        raise item.error("role", "system, developer, user or assistant")
    if role == "user":
        read.messages.append(Message.user(text))
    elif role == "assistant":
        phase = item.text("phase")
        is_preamble = phase == "commentary" or (phase is None and leads_to_call)
        channel = Channel.COMMENTARY if is_preamble else Channel.FINAL
        if text:
            read.messages.append(Message.assistant(text, channel=channel.value))
    elif read.messages:
        read.messages.append(instruction(text))
    else:
        read.instructions.append(text)


def _leads_to_call(items: Sequence[Fields]) -> bool:
    """Whether a call follows, before anybody else says anything."""
    for item in items:
        kind = item.values.get("type")
        if kind != "reasoning":
            return kind in _CALLS
    return False


def _reasoning_text(item: Fields) -> str:
    content = item.objects("content", most=4096)
    text = _BETWEEN.join(part.text("text") or "" for part in content)
    sealed = item.text("encrypted_content") or ""
    if text or not sealed.startswith(_SEALED):
        return text
    try:
        return base64.b64decode(sealed.removeprefix(_SEALED), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise item.error("encrypted_content", "what this server has written") from None


def _read_call(item: Fields, kind: str, remembered: RememberedCalls, read: ReadItems) -> None:
    is_custom = kind == "custom_tool_call"
    call_id, to = item.required_text("call_id"), recipient(item.required_text("name"))
    arguments = item.required_text("input" if is_custom else "arguments")
    known = remembered.recall(call_id, to, arguments)
    if known is None:
        read.messages.append(call_message(to, arguments, is_plain=is_custom))
    else:
        # Its completion is known token for token, and takes the place of what the client kept of it.
        while read.messages and _is_before_call(read.messages[-1]):
            read.messages.pop()
        read.messages += known
    read.called[call_id] = to


def _is_before_call(message: Message) -> bool:
    return message.role is Role.ASSISTANT and message.recipient is None and message.channel != Channel.FINAL
