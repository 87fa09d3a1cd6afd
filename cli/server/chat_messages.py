"""The messages of the chat API as messages of harmony."""

from __future__ import annotations

from collections.abc import Iterable

from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.fields import Fields
from gptoss.cli.server.offered_tools import recipient
from gptoss.cli.server.remembered import RememberedCalls
from gptoss.harmony import Channel, DeveloperContent, HeaderOrder, Message
from gptoss.harmony.header_grammar import JSON_TYPE

_INSTRUCTIONS = ("system", "developer")
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_BETWEEN = "\n\n"


def read_messages(messages: Iterable[Fields], remembered: RememberedCalls) -> tuple[str | None, tuple[Message, ...]]:
    """Return the instructions, and what was said.

    The instructions are the system and developer messages before anything else. Later ones stay in their place.

    Raises:
        ApiError: a message is malformed, has other than text, or is the result of a call that was not made.
    """
    instructions: list[str] = []
    said: list[Message] = []
    called: dict[str, str] = {}
    for fields in messages:
        role = fields.required_text("role")
        if role in _INSTRUCTIONS:
            text = content_text(fields, "content")
            if said:
                said.append(instruction(text))
            else:
                instructions.append(text)
        elif role == "user":
            said.append(Message.user(content_text(fields, "content")))
        elif role == "assistant":
            said += _assistant(fields, remembered, called)
        elif role == "tool":
            call_id = fields.required_text("tool_call_id")
            if call_id not in called:
                raise fields.error("tool_call_id", "the id of a call before it")
            said.append(Message.tool(called[call_id], content_text(fields, "content")))
        else:
            raise fields.error("role", "system, developer, user, assistant or tool")
    return _BETWEEN.join(text for text in instructions if text) or None, tuple(said)


def instruction(text: str) -> Message:
    """Return instructions in the midst of a conversation."""
    return Message.developer(DeveloperContent(instructions=text))


def call_message(to: str, arguments: str, *, is_plain: bool) -> Message:
    """Return a call as the models write it."""
    return Message.assistant(
        arguments,
        channel=Channel.COMMENTARY.value,
        recipient=to,
        content_type=None if is_plain else JSON_TYPE,
        header_order=HeaderOrder.CHANNEL_FIRST,
    )


def content_text(fields: Fields, name: str) -> str:
    """Return a content: a text, or a list of parts of text; empty where it is missing.

    Raises:
        ApiError: a part is no text.
    """
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    texts = []
    for part in fields.objects(name, most=4096):
        kind = part.text("type") or "text"
        if kind not in _TEXT_PARTS:
            raise ApiError(f"{part.place}type: the model reads text alone", param=f"{part.place}type")
        texts.append(part.required_text("refusal" if kind == "refusal" else "text"))
    return "".join(texts)


def _assistant(fields: Fields, remembered: RememberedCalls, called: dict[str, str]) -> list[Message]:
    """Return what the model said: its reasoning, a preamble and calls, or its answer."""
    text = content_text(fields, "content")
    reasoning = fields.text("reasoning_content") or fields.text("reasoning") or ""
    before = [Message.assistant(reasoning, channel=Channel.ANALYSIS.value)] if reasoning else []
    calls = fields.objects("tool_calls", most=128)
    if not calls:
        return [*before, Message.assistant(text, channel=Channel.FINAL.value)] if text or before else []
    if text:
        before.append(Message.assistant(text, channel=Channel.COMMENTARY.value))
    made: list[Message] = []
    for call in calls:
        call_id, kind = call.required_text("id"), call.choice("type", ("function", "custom")) or "function"
        of_call = call.object(kind) or Fields({}, f"{call.place}{kind}.")
        to = recipient(of_call.required_text("name"))
        arguments = of_call.text("input" if kind == "custom" else "arguments") or ""
        known = remembered.recall(call_id, to, arguments)
        if known is not None and not made:
            before = list(known[:-1])
        made.append(known[-1] if known is not None else call_message(to, arguments, is_plain=kind == "custom"))
        called[call_id] = to
    return [*before, *made]
