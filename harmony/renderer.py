"""Conversations to token ids, as ``openai-harmony`` 0.0.8 renders them (docs/harmony.md lists the differences).

Each part of a header and each content is encoded by itself, as in the official library. So no text merges with its
surroundings.
"""

from __future__ import annotations

from gptoss.harmony.content import Content, DeveloperContent, ResponseFormat, SystemContent
from gptoss.harmony.encoding import Encoding, Special
from gptoss.harmony.errors import RenderError
from gptoss.harmony.messages import EVERYONE, Channel, Conversation, HeaderOrder, Message, Role
from gptoss.harmony.schema import schema_json, tools_section


def render(conversation: Conversation, encoding: Encoding, *, drop_analysis: bool = True) -> list[int]:
    """Return the ids of a whole conversation, without the reasoning before the latest finished answer.

    Raises:
        RenderError: the format cannot express a message.
        EncodingError: ``encoding`` lacks a special token of the format.
    """
    messages = kept_messages(conversation) if drop_analysis else conversation.messages
    has_function_tools = conversation.has_function_tools
    ids: list[int] = []
    for message in messages:
        ids += render_message(message, encoding, has_function_tools=has_function_tools)
    return ids


def render_for_completion(
    conversation: Conversation,
    encoding: Encoding,
    role: Role = Role.ASSISTANT,
    *,
    drop_analysis: bool = True,
) -> list[int]:
    """Return the prompt for the next message of ``role``; sampling continues its header.

    Raises:
        RenderError: the format cannot express a message.
        EncodingError: ``encoding`` lacks a special token of the format.
    """
    ids = render(conversation, encoding, drop_analysis=drop_analysis)
    return [*ids, encoding.special(Special.START), *encoding.encode(role.value)]


def render_for_training(conversation: Conversation, encoding: Encoding, *, drop_analysis: bool = True) -> list[int]:
    """Return the ids of a conversation as a training example: an answer at its end ends in ``<|return|>``.

    The reasoning that led to that answer is kept, as in the chat template that the models were published with.

    Raises:
        RenderError: the format cannot express a message.
        EncodingError: ``encoding`` lacks a special token of the format.
    """
    messages = conversation.messages
    if not messages or not messages[-1].is_answer:
        return render(conversation, encoding, drop_analysis=drop_analysis)
    kept = kept_messages(Conversation(messages[:-1])) if drop_analysis else messages[:-1]
    ids = render(Conversation((*kept, messages[-1])), encoding, drop_analysis=False)
    ids[-1] = encoding.special(Special.RETURN)
    return ids


def kept_messages(conversation: Conversation) -> tuple[Message, ...]:
    """Return the messages without those in the ``analysis`` channel before the latest finished answer.

    That includes calls of built-in tools in this channel, and their results. Everything later is kept, and dropped
    reasoning never comes back, so within a turn each prompt is a prefix of the next one (format guide, "Handling
    reasoning output in subsequent sampling").
    """
    messages = conversation.messages
    answers = [index for index, message in enumerate(messages) if message.is_answer]
    if not answers:
        return messages
    end = answers[-1]
    if len(answers) == 1:
        # As in the official library, the first message in this channel counts, whoever wrote it.
        end = next(index for index, message in enumerate(messages) if message.channel == Channel.FINAL)
    return tuple(
        message for index, message in enumerate(messages) if index >= end or message.channel != Channel.ANALYSIS
    )


def render_message(message: Message, encoding: Encoding, *, has_function_tools: bool = False) -> list[int]:
    """Return the ids of one message. ``has_function_tools`` adds the line about functions to a system message.

    Raises:
        RenderError: the author is a tool without a name, or the message has the settings of another role.
        EncodingError: ``encoding`` lacks a special token of the format.
    """
    ids = [encoding.special(Special.START), *_header(message, encoding), encoding.special(Special.MESSAGE)]
    for part in message.content:
        ids += encoding.encode(_content_text(part, message, has_function_tools))
    is_call = message.role is Role.ASSISTANT and message.recipient is not None
    ids.append(encoding.special(Special.CALL if is_call else Special.END))
    return ids


def _header(message: Message, encoding: Encoding) -> list[int]:
    author = message.author
    if author.role is Role.TOOL:
        if author.name is None:
            raise RenderError("a tool's message lacks the name of the tool: Author(Role.TOOL, name)")
        ids = encoding.encode(author.name)
    else:
        ids = encoding.encode(author.role.value)
        if author.name is not None:
            ids += encoding.encode(f":{author.name}")
    recipient, channel = [], []
    if message.recipient not in (None, EVERYONE):
        recipient = encoding.encode(f" to={message.recipient}")
    if message.channel is not None:
        channel = [encoding.special(Special.CHANNEL), *encoding.encode(message.channel)]
    ids += channel + recipient if message.header_order is HeaderOrder.CHANNEL_FIRST else recipient + channel
    if message.content_type is not None:
        if message.content_type.startswith(Special.CONSTRAIN):
            ids += [*encoding.encode(" "), encoding.special(Special.CONSTRAIN)]
            ids += encoding.encode(message.content_type.removeprefix(Special.CONSTRAIN))
        else:
            ids += encoding.encode(f" {message.content_type}")
    return ids


def _content_text(part: Content, message: Message, has_function_tools: bool) -> str:
    if isinstance(part, SystemContent):
        if message.role is not Role.SYSTEM:
            raise RenderError(f"system settings in a message of role {message.role.value}")
        return system_text(part, has_function_tools=has_function_tools)
    if isinstance(part, DeveloperContent):
        if message.role is not Role.DEVELOPER:
            raise RenderError(f"developer settings in a message of role {message.role.value}")
        return developer_text(part)
    return part.text


def system_text(content: SystemContent, *, has_function_tools: bool = False) -> str:
    """Return the text of a system message (format guide, "System message format")."""
    top = []
    if content.model_identity is not None:
        top.append(content.model_identity)
    if content.knowledge_cutoff is not None:
        top.append(f"Knowledge cutoff: {content.knowledge_cutoff}")
    if content.conversation_start_date is not None:
        top.append(f"Current date: {content.conversation_start_date}")
    sections = ["\n".join(top)] if top else []
    if content.reasoning_effort is not None:
        sections.append(f"Reasoning: {content.reasoning_effort.value}")
    if content.tools:
        sections.append(tools_section(content.tools))
    channels = content.channel_config
    if channels is not None and channels.valid_channels:
        line = f"# Valid channels: {', '.join(channels.valid_channels)}."
        if channels.channel_required:
            line += " Channel must be included for every message."
        if has_function_tools:
            line += "\nCalls to these tools must go to the commentary channel: 'functions'."
        sections.append(line)
    return "\n\n".join(sections)


def developer_text(content: DeveloperContent) -> str:
    """Return the text of a developer message (format guide, "Developer message format")."""
    sections = []
    if content.instructions is not None:
        sections += ["# Instructions", content.instructions]
    if content.tools:
        sections.append(tools_section(content.tools))
    if content.response_formats:
        sections += ["# Response Formats", *map(_response_format, content.response_formats)]
    return "\n\n".join(sections)


def _response_format(response: ResponseFormat) -> str:
    # Not in the official library; from the format guide, "Structured output".
    comment = "".join(f"// {line}\n" for line in (response.description or "").splitlines())
    return f"## {response.name}\n\n{comment}{schema_json(response.schema)}"
