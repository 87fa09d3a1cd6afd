"""The streaming parser on well-formed completions, against the official parser; deltas and state on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from gptoss.harmony import (
    BROWSER_TOOLS,
    PYTHON_TOOL,
    Author,
    Channel,
    ContentDelta,
    Conversation,
    DeveloperContent,
    HeaderGrammar,
    HeaderOrder,
    Message,
    MessageFinished,
    MessageHead,
    MessageStarted,
    ParserState,
    ProblemFound,
    Role,
    Special,
    StreamableParser,
    SystemContent,
    TextContent,
    ToolDescription,
    loads_conversation,
    parse,
    render,
    render_for_completion,
    render_message,
)

WELL_FORMED = [
    "<|channel|>final<|message|>4<|return|>",
    "<|channel|>final<|message|>4",
    "<|message|>no channel<|return|>",
    "<|channel|>final<|message|><|return|>",
    "assistant<|channel|>final<|message|>the role again<|return|>",
    "<|channel|>analysis<|message|>think<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>",
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
    "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>",
    "<|channel|>commentary to=functions.f json<|message|>{}<|call|>",
    "<|channel|>commentary to=functions.f<|message|>{}<|call|>",
    " to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
    " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
    " to=functions.f<|channel|>commentary<|message|>{}<|call|>",
    "<|channel|>analysis to=python code<|message|>1+1\n<|call|>",
    "<|channel|>analysis to=browser.search <|constrain|>json<|message|>{}<|call|>",
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>plan<|end|>"
    "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
    "<|channel|>analysis to=python<|message|>1<|call|><|start|>python to=assistant<|channel|>analysis<|message|>1"
    "<|end|><|start|>assistant<|channel|>final<|message|>1<|return|>",
    "<|channel|>final<|message|>naïve 日本語 👩‍👩‍👧 e\u0301<|return|>",
    "<|channel|>final<|message|>spaces  \n\n\t kept <|return|>",
]


def without_order(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The official library does not know the order of a header."""
    return tuple(replace(message, header_order=HeaderOrder.RECIPIENT_FIRST) for message in messages)


@pytest.mark.parametrize("text", WELL_FORMED)
def test_well_formed_completions_are_parsed_as_officially(text, ids, encoding, official):
    messages, problems = parse(ids(text), encoding, strict=True)
    assert without_order(messages) == official.parse(ids(text))
    assert not problems


@pytest.mark.parametrize("header", ["final <|constrain|>json", "final<|constrain|>json", "final json"])
def test_a_lone_word_is_no_recipient(header, ids, encoding, official):
    """The stated difference: the official parser makes a recipient of it, and an answer becomes a tool call."""
    completion = ids(f"<|channel|>{header}<|message|>{{}}<|return|>")
    content_type = header.removeprefix("final").strip()
    assert official.parse(completion)[0].recipient == content_type
    (message,), problems = parse(completion, encoding, strict=True)
    assert message == Message.assistant("{}", channel="final", content_type=content_type)
    assert not problems


channels = st.sampled_from([None, "analysis", "commentary", "final"])
names = st.sampled_from(["python", "browser.search", "functions.get_weather", "functions.a-b_c"])
orders = st.sampled_from(HeaderOrder)
contents = st.text(max_size=20) | st.sampled_from(["👩‍👩‍👧", "<|end|>", "to=x", "\n\n", "é" * 3])


@st.composite
def completion_messages(draw: st.DrawFn) -> Message:
    recipient = draw(st.none() | names)
    types = ["<|constrain|>json", "json", "code"] if recipient is not None else []
    return Message.assistant(
        draw(contents),
        channel=draw(channels),
        recipient=recipient,
        content_type=draw(st.sampled_from([None, *types])),
        header_order=draw(orders),
    )


@given(messages=st.lists(completion_messages(), min_size=1, max_size=4))
@settings(max_examples=120)
def test_generated_completions_are_parsed_as_officially(messages, encoding, official):
    completion = [token for message in messages for token in render_message(message, encoding)]
    completion = completion[2:]  # the prompt ends in <|start|>assistant
    parsed, problems = parse(completion, encoding, strict=True)
    assert without_order(parsed) == official.parse(completion), encoding.decode(completion)
    assert parsed == tuple(messages)
    assert not problems


# The order of a header

CALLS = Conversation.of(
    Message.system(SystemContent().with_tools(BROWSER_TOOLS, PYTHON_TOOL)),
    Message.developer(
        DeveloperContent().with_function_tools(ToolDescription("f", "F."), ToolDescription("größe_日本", "Size."))
    ),
)


@given(data=st.data())
@settings(max_examples=200)
def test_a_sampled_completion_renders_to_its_tokens(data, encoding):
    """Every legal head in every spelling: channel, recipient and content type, in either order."""
    grammar = HeaderGrammar.for_conversation(CALLS, encoding)
    going_on = [head for head in grammar.heads if head.end is Special.END]
    heads = [*data.draw(st.lists(st.sampled_from(going_on), max_size=2)), data.draw(st.sampled_from(grammar.heads))]
    completion: list[int] = []
    for head in heads:
        # A marker without a blank before it is rendered with one.
        rendered = [each for each in grammar.spellings(head) if not re.search(r"\S<.constrain", encoding.decode(each))]
        spelling = data.draw(st.sampled_from(rendered))
        content = encoding.encode(data.draw(contents))
        completion += [*grammar.author, *spelling, *content, grammar.end_token(head)]
    messages, problems = parse(completion[len(grammar.author) :], encoding, strict=True)
    assert not problems
    assert [MessageHead(each.channel, each.recipient, each.content_type) for each in messages] == heads
    if heads[-1].end is Special.RETURN:  # stored as <|end|> (format guide)
        completion[-1] = encoding.special(Special.END)
    assert render(Conversation(messages), encoding, drop_analysis=False) == completion


@pytest.mark.parametrize("header", ["<|channel|>commentary to=functions.f", " to=functions.f<|channel|>commentary"])
def test_the_prompt_after_a_sampled_call_extends_it(header, ids, encoding):
    asked = CALLS.extended([Message.user("?")])
    prompt = render_for_completion(asked, encoding)
    sampled = ids(
        f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant{header} <|constrain|>json<|message|>{{}}<|call|>"
    )
    messages, _ = parse(sampled, encoding, strict=True)
    answered = asked.extended(messages).extended([Message.tool("functions.f", "1")])
    after = render_for_completion(answered, encoding)
    assert after[: len(prompt) + len(sampled)] == prompt + sampled
    assert encoding.decode(after[len(prompt) + len(sampled) :]) == (
        "<|start|>functions.f to=assistant<|channel|>commentary<|message|>1<|end|><|start|>assistant"
    )


@pytest.mark.parametrize(("channel", "recipient"), [(None, "f"), ("final", None), ("final", "all"), (None, None)])
def test_there_is_no_order_without_both(channel, recipient):
    message = Message.assistant("", channel=channel, recipient=recipient, header_order=HeaderOrder.CHANNEL_FIRST)
    assert message.header_order is HeaderOrder.RECIPIENT_FIRST
    assert message == Message.assistant("", channel=channel, recipient=recipient)


@given(data=st.data())
@settings(max_examples=120)
def test_any_ordinary_tokens_give_the_official_text(data, encoding, official):
    """Content of tokens that are no whole characters, or no UTF-8 at all."""
    content = data.draw(st.lists(st.integers(0, 300) | st.integers(0, 199_997), max_size=8))
    head = encoding.encode_with_special("<|channel|>final<|message|>")
    completion = [*head, *content, encoding.special("<|return|>")]
    messages, _ = parse(completion, encoding)
    assert messages == official.parse(completion)
    parser = StreamableParser(encoding)
    deltas = [delta for token in completion for delta in parser.process(token)]
    assert "".join(each.text for each in deltas if isinstance(each, ContentDelta)) == messages[0].text


# Deltas and state


def test_deltas(ids, encoding):
    parser = StreamableParser(encoding)
    completion = ids(
        "<|channel|>analysis<|message|>ab<|end|><|start|>assistant to=f<|channel|>commentary json<|message|>{}<|call|>"
    )
    deltas = [delta for token in completion for delta in parser.process(token)]
    think = Message.assistant("ab", channel="analysis")
    call = Message.assistant("{}", channel="commentary", recipient="f", content_type="json")
    assistant = Author(Role.ASSISTANT)
    assert deltas == [
        MessageStarted(assistant, "analysis", None, None),
        ContentDelta("analysis", None, "ab"),
        MessageFinished(think),
        MessageStarted(assistant, "commentary", "f", "json"),
        ContentDelta("commentary", "f", "{}"),
        MessageFinished(call),
    ]
    assert parser.finish() == []
    assert parser.messages == (think, call)


def test_state(ids, encoding):
    parser = StreamableParser(encoding)
    assert (parser.state, parser.in_header, parser.current_role) == (ParserState.HEADER, True, Role.ASSISTANT)
    header = ids("<|channel|>commentary to=f<|constrain|>json")
    for token in header:
        parser.process(token)
    assert parser.header_tokens == tuple(header)
    assert parser.current_channel is None
    (message_token,) = ids("<|message|>")
    parser.process(message_token)
    assert (parser.state, parser.in_header, parser.header_tokens) == (ParserState.CONTENT, False, ())
    assert (parser.current_channel, parser.current_recipient) == ("commentary", "f")
    assert parser.current_content_type == "<|constrain|>json"
    for token in ids("{}"):
        parser.process(token)
    assert parser.current_content == "{}"
    parser.process(*ids("<|call|>"))
    assert (parser.state, parser.current_role, parser.current_content) == (ParserState.OUTSIDE, None, "")
    parser.process(*ids("<|start|>"))
    assert (parser.in_header, parser.current_role) == (True, None)


def test_characters_split_over_tokens_come_whole(encoding):
    text = "👩‍👩‍👧𐍈"
    single_bytes = [encoding.encode(bytes([byte]).decode("latin-1")) for byte in b"a"]
    assert single_bytes == [encoding.encode("a")]
    by_byte = {encoding.token_bytes(token): token for token in range(256)}
    parser = StreamableParser(encoding)
    for token in encoding.encode_with_special("<|channel|>final<|message|>"):
        parser.process(token)
    deltas = [delta for byte in text.encode() for delta in parser.process(by_byte[bytes([byte])])]
    assert [delta.text for delta in deltas if isinstance(delta, ContentDelta)] == list(text)


def test_half_a_character_at_the_end_is_replaced(encoding):
    by_byte = {encoding.token_bytes(token): token for token in range(256)}
    head = encoding.encode_with_special("<|channel|>final<|message|>a")
    (message,), _ = parse([*head, by_byte[b"\xf0"], by_byte[b"\x9f"]], encoding)
    assert message.text == "a\ufffd"


def test_strict_mode_raises_nothing_on_what_is_rendered(scenario, load_golden, encoding):
    conversation = loads_conversation(load_golden(scenario)[0])
    ids = render(conversation, encoding)
    messages, problems = parse(ids, encoding, None)
    assert [each.text for each in messages][-1] == encoding.decode(ids).split("<|message|>")[-1].rsplit("<|", 1)[0]
    # Two scenarios have headers that the format does not have.
    if scenario in ("names_and_odd_headers", "text_that_looks_like_tokens"):
        assert problems
    else:
        assert parse(ids, encoding, None, strict=True) == (messages, ())


# Rendered and parsed back

WEATHER = ToolDescription("weather", "Tells it.", {"type": "object", "properties": {"at": {"type": "string"}}})
SYSTEM_CONTENTS = [SystemContent(), SystemContent().with_tools(PYTHON_TOOL)]
DEVELOPER_CONTENTS = [DeveloperContent("Be kind."), DeveloperContent().with_function_tools(WEATHER)]


@st.composite
def round_trip_messages(draw: st.DrawFn) -> Message:
    """The stated subset: one text, and headers of words, as the format has them."""
    role = draw(st.sampled_from(Role))
    text = (TextContent(draw(contents)),)
    if role is Role.TOOL:
        author = Author(role, draw(names))
        channel = draw(st.sampled_from([None, "analysis", "commentary"]))
        return Message(author, text, channel, "assistant", header_order=draw(orders))
    if role is Role.ASSISTANT:
        return draw(completion_messages())
    return Message(Author(role, draw(st.none() | st.sampled_from(["alice", "bob-2"]))), text)


@given(messages=st.lists(round_trip_messages(), max_size=5))
@settings(max_examples=120)
def test_the_stated_subset_renders_and_parses_back(messages, encoding):
    conversation = Conversation(tuple(messages))
    parsed, problems = parse(render(conversation, encoding, drop_analysis=False), encoding, None, strict=True)
    assert parsed == conversation.messages
    assert not problems


odd_words = st.text(max_size=6) | st.sampled_from(
    ["", " ", "to=", "to=x", "a b", "all", "assistant", "final", "user:x", "<|message|>", "<|constrain|>", "a\u2003b"]
)


@st.composite
def odd_messages(draw: st.DrawFn) -> Message:
    role = draw(st.sampled_from(Role))
    return Message(
        Author(role, draw(odd_words) if role is Role.TOOL else draw(st.none() | odd_words)),
        (TextContent(draw(contents)), SystemContent()) if role is Role.SYSTEM else (TextContent(draw(contents)),),
        draw(st.none() | odd_words | channels),
        draw(st.none() | odd_words),
        draw(st.none() | odd_words | st.sampled_from(["<|constrain|>json", "<|constrain|> json", "<|constrain|>"])),
        draw(orders),
    )


# The rest: settings that come back as text, authors, channels and types that the format does not know, as long as
# each is one word. (Several contents come back as one text, which can be other tokens; a recipient of two words, two.)
one_word = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="<"), min_size=1, max_size=6)
# A channel's name without its mark is taken for the channel, what begins like a recipient for the recipient.
type_word = one_word.filter(lambda word: word not in {channel.value for channel in Channel} and word[:3] != "to=")


@st.composite
def other_messages(draw: st.DrawFn) -> Message:
    role = draw(st.sampled_from(Role))
    settings_of = {Role.SYSTEM: SYSTEM_CONTENTS, Role.DEVELOPER: DEVELOPER_CONTENTS}.get(role, [])
    return Message(
        Author(role, draw(one_word) if role is Role.TOOL else draw(st.none() | one_word)),
        (draw(st.builds(TextContent, contents) | st.sampled_from(settings_of)),)
        if settings_of
        else (draw(st.builds(TextContent, contents)),),
        draw(channels | one_word),
        draw(st.none() | one_word.filter(lambda word: word not in set(Role))),
        draw(
            st.none()
            | st.sampled_from(["json", "code", "text", "<|constrain|>json", "<|constrain|> json", "<|constrain|>"])
        ),
        draw(orders),
    )


@given(messages=st.lists(other_messages(), max_size=4))
@settings(max_examples=150)
def test_rendering_what_was_parsed_gives_the_same_tokens(messages, encoding):
    ids = render(Conversation(tuple(messages)), encoding, drop_analysis=False)
    parsed, _ = parse(ids, encoding, None)
    assert render(Conversation(parsed), encoding, drop_analysis=False) == ids


@given(messages=st.lists(odd_messages(), max_size=3))
@settings(max_examples=150)
def test_any_conversation_parses_without_an_exception(messages, encoding):
    ids = render(Conversation(tuple(messages)), encoding, drop_analysis=False)
    parsed, _ = parse(ids, encoding, None)
    texts = [message.text for message in parsed]
    for message in messages:
        expected = encoding.decode(render_message(message, encoding)).split("<|message|>")[-1]
        assert any(text == message.text for text in texts) or message.role is Role.SYSTEM, expected


def test_problems_are_deltas_too(ids, encoding):
    parser = StreamableParser(encoding)
    deltas = [
        delta for token in ids("<|channel|>final<|message|>a<|return|><|return|>") for delta in parser.process(token)
    ]
    assert [delta.problem for delta in deltas if isinstance(delta, ProblemFound)] == list(parser.problems)
    assert len(parser.problems) == 1
