"""Keep the results of tools within the context: long ones when they come, the oldest when room is needed."""

from __future__ import annotations

from dataclasses import replace

from gptoss.cli.session.context_size import message_sizes
from gptoss.harmony import Conversation, Encoding, Message, Role, TextContent

# Tokens of a result that was shortened to make room for newer ones.
_REST_TOKENS = 64
# Share of the room that is taken after results were shortened. What stays is prefilled again, so much is freed at once.
_KEPT_SHARE = 0.75
# The longest token of o200k has 128 characters; a text of more characters than this a token is not encoded whole.
_MAX_CHARACTERS_A_TOKEN = 128


def shortened(text: str, max_tokens: int, encoding: Encoding) -> str:
    """Return a text of about `max_tokens` tokens at most: its head and tail, and how much is left out between them.

    Whole lines are kept where a part has more than one.
    """
    if len(text) <= max_tokens:  # a token has at least one byte
        return text
    longest = max_tokens * _MAX_CHARACTERS_A_TOKEN
    if len(text) <= longest and len(encoding.encode(text)) <= max_tokens:
        return text
    half = max(1, max_tokens // 2)
    head = _whole_lines(_decoded(encoding.encode(text[:longest])[:half], encoding))
    tail = _whole_lines(_decoded(encoding.encode(text[-longest:])[-half:], encoding)[::-1])[::-1]
    left_out = text[len(head) : len(text) - len(tail)]
    lines = left_out.count("\n")
    size = f"{len(left_out):,} characters" + (f", {lines:,} lines" if lines > 1 else "")
    return f"{head}\n[... {size} left out here ...]\n{tail}"


def _decoded(ids: list[int], encoding: Encoding) -> str:
    """Return the text of some tokens; characters that are cut at either end are dropped."""
    return encoding.decode(ids).strip("\N{REPLACEMENT CHARACTER}")


def _whole_lines(text: str) -> str:
    """Return the text without its last line, if that leaves at least half of it."""
    end = text.rfind("\n") + 1
    return text[:end] if end > len(text) // 2 else text


def make_room(conversation: Conversation, room: int, encoding: Encoding) -> tuple[Conversation, int]:
    """Shorten the oldest results of tools until the prompt fits; return the conversation and how many were shortened.

    The history is replayed from the first message on, and results are shortened when there was too little room for the
    next message. So the outcome depends on the conversation alone, and the prompts of one turn begin alike. The newest
    result stays whole.

    Args:
        conversation: ends with the message to respond to.
        room: tokens that the prompt may have.
        encoding: of its tokens.
    """
    messages = list(conversation.messages)
    whole: list[tuple[int, int]] = []  # places and sizes of results that are not shortened, oldest first
    total = count = 0
    for place, size in enumerate(message_sizes(conversation, encoding)):
        if not size.is_sent:
            continue
        total += size.tokens
        if total > room:
            while whole and total > room * _KEPT_SHARE:
                older, tokens = whole.pop(0)
                messages[older] = _rest_of(messages[older], encoding)
                total -= max(0, tokens - _REST_TOKENS)
                count += 1
        if size.message.role is Role.TOOL and size.tokens > 2 * _REST_TOKENS:
            whole.append((place, size.tokens))
    return (Conversation(tuple(messages)), count) if count else (conversation, 0)


def _rest_of(message: Message, encoding: Encoding) -> Message:
    text = shortened(message.text, _REST_TOKENS // 2, encoding)
    note = "[Most of this result is left out to make room. Call the tool again if you need it.]"
    return replace(message, content=(TextContent(f"{text}\n{note}"),))
