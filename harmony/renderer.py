"""Conversations to token ids, as ``openai-harmony`` 0.0.8 renders them (docs/harmony.md states the one difference).

Each part of a header and each content is encoded by itself, never the joined text: so no text can merge with its
surroundings, and the ids are those of the official library.
"""

from __future__ import annotations

from gptoss.harmony.content import Content, DeveloperContent, ResponseFormat, SystemContent
from gptoss.harmony.encoding import Encoding, Special
from gptoss.harmony.errors import RenderError
from gptoss.harmony.messages import Channel, Conversation, Message, Role
from gptoss.harmony.schema import schema_json, tools_section


def render(conversation: Conversation, encoding: Encoding, *, drop_analysis: bool = True) -> list[int]:
    """Return the ids of a whole conversation; reasoning before the latest finished answer is left out.

    Raises:
        RenderError: a message that the format has no rendering for.
        EncodingError: a special token of the format is not in ``encoding``.
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
    """Return the prompt after which ``role``'s next message is to be sampled, from its header on."""
    ids = render(conversation, encoding, drop_analysis=drop_analysis)
    return [*ids, encoding.special(Special.START), *encoding.encode(role.value)]


def render_for_training(conversation: Conversation, encoding: Encoding, *, drop_analysis: bool = True) -> list[int]:
    """Return the ids of a conversation as a training example: a final answer at its end ends in return."""
    ids = render(conversation, encoding, drop_analysis=drop_analysis)
    if conversation.messages and conversation.messages[-1].is_answer:
        ids[-1] = encoding.special(Special.RETURN)
    return ids


def kept_messages(conversation: Conversation) -> tuple[Message, ...]:
    """Return the messages that the model is shown: no ``analysis`` before the latest finished answer.

    Calls of built-in tools and their results, which stand in that channel too, go with the reasoning. All that
    has come since is kept, and an earlier answer never brings reasoning back: so the prompt of one turn stays a
    prefix of the next one's (format guide, "Handling reasoning output in subsequent sampling").
    """
    messages = conversation.messages
    answers = [index for index, message in enumerate(messages) if message.is_answer]
    if not answers:
        return messages
    end = answers[-1]
    if len(answers) == 1:
        # As the official library: the first message in this channel counts, whoever wrote it.
        end = next(index for index, message in enumerate(messages) if message.channel == Channel.FINAL)
    return tuple(
        message for index, message in enumerate(messages) if index >= end or message.channel != Channel.ANALYSIS
    )


def render_message(message: Message, encoding: Encoding, *, has_function_tools: bool = False) -> list[int]:
    """Return the ids of one message. ``has_function_tools`` adds the line about them to a system message.

    Raises:
        RenderError: a tool without a name, or settings in a message of another role.
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
            raise RenderError("a tool's message has no name of the tool: Author(Role.TOOL, name) needs one")
        ids = encoding.encode(author.name)
    else:
        ids = encoding.encode(author.role.value)
        if author.name is not None:
            ids += encoding.encode(f":{author.name}")
    if message.recipient is not None and message.recipient != "all":
        ids += encoding.encode(f" to={message.recipient}")
    if message.channel is not None:
        ids += [encoding.special(Special.CHANNEL), *encoding.encode(message.channel)]
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
            raise RenderError(f"system settings stand in a message of role {message.role.value}")
        return system_text(part, has_function_tools=has_function_tools)
    if isinstance(part, DeveloperContent):
        if message.role is not Role.DEVELOPER:
            raise RenderError(f"developer settings stand in a message of role {message.role.value}")
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
    # The official library has no such field; this is the format guide's "Structured output".
    comment = "".join(f"// {line}\n" for line in (response.description or "").splitlines())
    return f"## {response.name}\n\n{comment}{schema_json(response.schema)}"
