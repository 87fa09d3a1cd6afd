"""Headers under random weights at temperature 1: none is malformed."""

from __future__ import annotations

import pytest

from gptoss.cli.session.events import ProblemFound, Sampled, TurnFinished
from gptoss.harmony import (
    Conversation,
    DeveloperContent,
    Message,
    SystemContent,
    ToolDescription,
    ToolNamespaceConfig,
    legal_heads,
    parse,
)

TOOLS = Conversation.of(
    Message.system(SystemContent(None, None, None, None, None).with_tools(ToolNamespaceConfig("python", "Runs."))),
    Message.developer(
        DeveloperContent().with_function_tools(
            ToolDescription("add", "", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
        )
    ),
)


def check(session, encoding):
    """Ask, check every header, and return the number of messages."""
    heads = {(head.channel, head.recipient, head.content_type) for head in legal_heads(session.transcript.conversation)}
    events = list(session.respond([Message.user("?")]))
    assert not [event for event in events if isinstance(event, ProblemFound)]
    ids = [event.token.id for event in events if isinstance(event, Sampled)]
    messages, problems = parse(ids, encoding)
    # A limit may cut a header, which the parser tells; nothing else can be wrong.
    assert {problem.kind.name for problem in problems} <= {"ENDS_IN_HEADER"}
    assert all((m.channel, m.recipient, m.content_type) in heads for m in messages if m.text)
    ending = events[-1]
    assert isinstance(ending, TurnFinished)
    assert ending.finish_reason == "stop" or ending.usage.completion_tokens == session.params.max_tokens
    return len(messages)


@pytest.mark.parametrize("conversation", [None, TOOLS], ids=["plain", "tools"])
def test_forty_generations_have_no_malformed_header(byte_encoding, open_random_session, conversation):
    said = [
        check(open_random_session(byte_encoding, conversation, seed=seed, max_tokens=150), byte_encoding)
        for seed in range(20)
    ]
    assert sum(said) > 20, "some went on to a second header"


def test_the_vocabulary_of_gpt_oss_has_no_malformed_header_either(o200k, open_random_session):
    for seed in (0, 4, 8):
        assert check(open_random_session(o200k, TOOLS, seed=seed, max_tokens=12), o200k) == 1


@pytest.mark.long
def test_a_thousand_generations_have_no_malformed_header(byte_encoding, o200k, open_random_session):
    for seed in range(1000):
        encoding = o200k if seed % 5 == 0 else byte_encoding
        max_tokens = 30 if encoding is o200k else 150
        check(open_random_session(encoding, TOOLS if seed % 2 else None, seed=seed, max_tokens=max_tokens), encoding)
