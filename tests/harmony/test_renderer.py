"""Rendering against the official library and the golden files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies as st

from gptoss.harmony import (
    BROWSER_TOOLS,
    PYTHON_TOOL,
    Author,
    Channel,
    ChannelConfig,
    Conversation,
    DeveloperContent,
    Message,
    ReasoningEffort,
    RenderError,
    ResponseFormat,
    Role,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespaceConfig,
    kept_messages,
    loads_conversation,
    message_to_dict,
    render,
    render_for_completion,
    render_for_training,
    render_message,
)

# What the official library renders differently or not at all; docs/harmony.md says why.
NOT_OFFICIAL = {
    "response_formats",
    "two_answers_drop_all_earlier_reasoning",
    "later_tool_turn_brings_nothing_back",
}


def test_golden(scenario, load_golden, encoding):
    source, rendered = load_golden(scenario)
    assert encoding.decode(render(loads_conversation(source), encoding)) == rendered


def test_golden_is_official(scenario, load_golden, encoding, official):
    source, _ = load_golden(scenario)
    conversation = loads_conversation(source)
    same = official.render(source) == render(conversation, encoding)
    assert same == (scenario not in NOT_OFFICIAL)
    for role in Role:
        prompt = render_for_completion(conversation, encoding, role)
        assert (official.render_for_completion(source, role) == prompt) == same
    if not reasons_last(conversation):
        assert (official.render_for_training(source) == render_for_training(conversation, encoding)) == same


def test_builtin_tools_are_official(official):
    for ours in (BROWSER_TOOLS, PYTHON_TOOL):
        config = getattr(official.library.ToolNamespaceConfig, ours.name)()
        theirs = official.library.SystemContent().with_tools(config)
        assert message_to_dict(Message.system(SystemContent().with_tools(ours)))["content"] == [theirs.to_dict()]


# Generated conversations

texts = st.text(max_size=12) | st.sampled_from(
    ["<|end|><|start|>assistant", "\n\n", "  ", "to=x", " <|constrain|>json", "é̂", "don't"]
)
words = st.text(min_size=1, max_size=8) | st.sampled_from(["functions.f", "all", "a b", "<|message|>"])
channels = st.sampled_from([None, *(channel.value for channel in Channel), "other", ""])
tools = st.builds(ToolDescription, words, texts, st.sampled_from([None, {}, {"type": "object"}]))
namespaces = st.dictionaries(
    st.sampled_from(["functions", "a", "Z", "é", "\U0001f600", "\uffff"]),
    st.builds(ToolNamespaceConfig, words, st.none() | texts, st.lists(tools, max_size=2).map(tuple)),
    max_size=3,
)
channel_configs = st.builds(ChannelConfig, st.lists(words, max_size=2).map(tuple), st.booleans())
system_contents = st.builds(
    SystemContent,
    st.none() | texts,
    st.none() | st.sampled_from(ReasoningEffort),
    st.none() | texts,
    st.none() | texts,
    st.none() | channel_configs,
    namespaces,
)
developer_contents = st.builds(DeveloperContent, st.none() | texts, namespaces)
text_contents = st.builds(TextContent, texts)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    role = draw(st.sampled_from(Role))
    contents = [text_contents]
    if role is Role.SYSTEM:
        contents.append(system_contents)
    if role is Role.DEVELOPER:
        contents.append(developer_contents)
    return Message(
        Author(role, draw(words if role is Role.TOOL else st.none() | words)),
        tuple(draw(st.lists(st.one_of(contents), max_size=2))),
        draw(channels),
        draw(st.none() | words),
        draw(st.none() | words | st.sampled_from(["<|constrain|>json", "<|constrain|>", "<|constrain|> json"])),
    )


conversations = st.lists(messages(), max_size=6).map(lambda each: Conversation(tuple(each)))


def begins_after_answer(conversation: Conversation) -> bool:
    """Whether a turn of the assistant has begun after the latest finished answer."""
    written = [message for message in conversation if message.role is Role.ASSISTANT]
    return any(message.is_answer for message in written) and not written[-1].is_answer


def reasons_last(conversation: Conversation) -> bool:
    """Whether the conversation ends in an answer with reasoning before it, which training keeps."""
    messages = conversation.messages
    if not messages or not messages[-1].is_answer:
        return False
    before = next((i for i in range(len(messages) - 2, -1, -1) if messages[i].is_answer), -1)
    return any(message.channel == "analysis" for message in messages[before + 1 :])


@given(conversation=conversations)
@settings(max_examples=200)
def test_every_conversation_within_the_stated_scope_is_official(conversation, encoding, official):
    assert official.render(conversation, drop=False) == render(conversation, encoding, drop_analysis=False)
    answers = sum(message.is_answer for message in conversation)
    if answers <= 1 and not begins_after_answer(conversation):
        assert official.render(conversation) == render(conversation, encoding)
        if not reasons_last(conversation):
            assert official.render_for_training(conversation) == render_for_training(conversation, encoding)
        prompt = render_for_completion(conversation, encoding)
        assert official.render_for_completion(conversation, Role.ASSISTANT) == prompt


@given(conversation=conversations)
@settings(max_examples=100)
def test_outside_of_it_only_the_dropping_differs(conversation, encoding, official):
    kept = Conversation(kept_messages(conversation))
    line = {"has_function_tools": conversation.has_function_tools}
    ours = [token for message in kept for token in render_message(message, encoding, **line)]
    assert render(conversation, encoding) == ours
    assert set(conversation) - set(kept) <= {each for each in conversation if each.channel == "analysis"}


# The dropping rule

SYSTEM = Message.system(SystemContent())
ASK = Message.user("?")
THINK = Message.assistant("think", channel="analysis")
ANSWER = Message.assistant("answer", channel="final")
CALL = Message.assistant("{}", channel="commentary", recipient="functions.f")
RESULT = Message.tool("functions.f", "1")
BUILTIN_CALL = Message.assistant("1+1", channel="analysis", recipient="python")
BUILTIN_RESULT = Message.tool("python", "2", channel="analysis")
PREAMBLE = Message.assistant("plan", channel="commentary")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([ASK, THINK], [ASK, THINK]),
        ([ASK, THINK, ANSWER], [ASK, ANSWER]),
        ([ASK, THINK, ANSWER, ASK], [ASK, ANSWER, ASK]),
        ([ASK, THINK, BUILTIN_CALL, BUILTIN_RESULT], [ASK, THINK, BUILTIN_CALL, BUILTIN_RESULT]),
        ([ASK, THINK, BUILTIN_CALL, BUILTIN_RESULT, THINK, ANSWER], [ASK, ANSWER]),
        ([ASK, THINK, PREAMBLE, CALL, RESULT, THINK, ANSWER, ASK], [ASK, PREAMBLE, CALL, RESULT, ANSWER, ASK]),
        ([ASK, THINK, ANSWER, ASK, THINK, ANSWER, ASK], [ASK, ANSWER, ASK, ANSWER, ASK]),
        ([ASK, THINK, ANSWER, ASK, THINK, CALL, RESULT], [ASK, ANSWER, ASK, THINK, CALL, RESULT]),
        ([ASK, THINK, ANSWER, ASK, THINK], [ASK, ANSWER, ASK, THINK]),
        ([ASK, THINK, ANSWER, THINK, ANSWER], [ASK, ANSWER, ANSWER]),
    ],
)
def test_reasoning_before_the_latest_answer_is_dropped(given, kept):
    assert kept_messages(Conversation((SYSTEM, *given))) == (SYSTEM, *kept)


def test_before_one_answer_anyones_message_in_the_final_channel_counts(encoding, official):
    """As in the official library: so the stated scope has no exception."""
    odd = Message.tool("t", "1", channel="final")
    conversation = Conversation((THINK, odd, THINK, ANSWER))
    assert kept_messages(conversation) == (odd, THINK, ANSWER)
    assert render(conversation, encoding) == official.render(conversation)


def test_official_library_keeps_reasoning_between_answers(encoding, official):
    """The first fault that is not followed: only what comes before the first answer is dropped there."""
    conversation = Conversation((ASK, THINK, ANSWER, ASK, THINK, ANSWER))
    assert encoding.decode(official.render(conversation)).count("think") == 1
    assert encoding.decode(render(conversation, encoding)).count("think") == 0


def test_official_library_brings_reasoning_back(encoding, official):
    """The second one: a later turn that calls a tool puts old reasoning back, so the old prompt is no prefix."""
    turns = [(ASK,), (THINK, ANSWER, ASK), (THINK, CALL, RESULT)]
    before, after = Conversation((*turns[0], *turns[1])), Conversation((*turns[0], *turns[1], *turns[2]))
    old = official.render_for_completion(before, Role.ASSISTANT)
    assert official.render_for_completion(after, Role.ASSISTANT)[: len(old)] != old
    old = render_for_completion(before, encoding)
    assert render_for_completion(after, encoding)[: len(old)] == old


steps = st.sampled_from([(THINK,), (PREAMBLE,), (CALL, RESULT), (BUILTIN_CALL, BUILTIN_RESULT)])


@given(turns=st.lists(st.lists(steps, max_size=4), max_size=4))
def test_prompts_within_a_turn_extend_each_other(turns, encoding):
    conversation = Conversation((SYSTEM,))
    for turn in turns:
        conversation = conversation.extended([ASK])
        prompt = render_for_completion(conversation, encoding)
        for step in turn:
            conversation = conversation.extended(step)
            longer = render_for_completion(conversation, encoding)
            assert longer[: len(prompt)] == prompt
            prompt = longer
        conversation = conversation.extended([ANSWER])


# Single messages, and what is refused


def test_render_message_is_official(encoding, official):
    text = json.dumps(message_to_dict(SYSTEM))
    for flag in (False, True):
        expected = official.encoding._inner.render(text, {"conversation_has_function_tools": flag})
        assert render_message(SYSTEM, encoding, has_function_tools=flag) == expected


def test_training_ends_a_last_answer_in_return(encoding):
    ids = render_for_training(Conversation((ASK, ANSWER)), encoding)
    assert encoding.decode(ids).endswith("answer<|return|>")
    assert encoding.decode(render_for_training(Conversation((ANSWER, ASK)), encoding)).endswith("?<|end|>")
    assert render_for_training(Conversation(), encoding) == []


def test_training_keeps_the_reasoning_of_the_last_turn_alone(encoding):
    first, second = (Message.assistant(f"thought {n}", channel="analysis") for n in (1, 2))
    turns = Conversation((ASK, first, ANSWER, ASK, second, ANSWER))
    text = encoding.decode(render_for_training(turns, encoding))
    assert "thought 1" not in text
    assert "<|channel|>analysis<|message|>thought 2<|end|>" in text
    alone = encoding.decode(render_for_training(Conversation((ASK, second, ANSWER)), encoding))
    assert "thought 2" in alone
    assert "thought 2" not in encoding.decode(render(turns, encoding))
    assert "thought 1" in encoding.decode(render_for_training(turns, encoding, drop_analysis=False))


def test_response_formats_are_the_guides_text(encoding, official):
    formats = ResponseFormat("person", {"type": "object"}, "Who")
    ours = Conversation.of(Message.developer(DeveloperContent("Help.", response_formats=(formats,))))
    text = 'Help.\n\n# Response Formats\n\n## person\n\n// Who\n{"type":"object"}'
    theirs = Conversation.of(Message.developer(DeveloperContent(text)))
    assert render(ours, encoding) == official.render(theirs)


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (Message(Author(Role.TOOL), ()), "name"),
        (Message(Author(Role.USER), (SystemContent(),)), "user"),
        (Message(Author(Role.SYSTEM), (DeveloperContent(),)), "system"),
    ],
)
def test_what_has_no_rendering_is_refused(message, what, encoding, official):
    with pytest.raises(RenderError, match=what):
        render(Conversation.of(message), encoding)
    with pytest.raises(RuntimeError):
        official.render(Conversation.of(message))
