"""Malformed completions: what is recovered, what is reported, and that a strict parser raises."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings, strategies as st

from gptoss.harmony import (
    Author,
    HeaderOrder,
    Message,
    ParseError,
    ProblemKind,
    Role,
    Special,
    StreamableParser,
    TextContent,
    parse,
)

A = Message.assistant
CHANNEL_FIRST = HeaderOrder.CHANNEL_FIRST
THINK = A("think", channel="analysis")
ANSWER = A("4", channel="final")

# completion: the messages recovered, and the problems with the token at which each was noticed
CORPUS = {
    # No message token
    "<|channel|>final 4<|return|>": ([ANSWER], {ProblemKind.MISSING_MESSAGE}),
    "<|channel|>final4<|return|>": ([ANSWER], {ProblemKind.MISSING_MESSAGE}),
    "<|channel|>final<|return|>": ([A("", channel="final")], {ProblemKind.MISSING_MESSAGE}),
    "The answer is 4.<|return|>": ([A("The answer is 4.")], {ProblemKind.MISSING_MESSAGE}),
    "assistant The answer is 4.": ([A("The answer is 4.")], {ProblemKind.ENDS_IN_HEADER}),
    "<|channel|>analysis We  think\nhard.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>": (
        [A("We  think\nhard.", channel="analysis"), ANSWER],
        {ProblemKind.MISSING_MESSAGE},
    ),
    '<|channel|>commentary to=functions.f <|constrain|>json{"a": 1}<|call|>': (
        [
            A(
                '{"a": 1}',
                channel="commentary",
                recipient="functions.f",
                content_type="<|constrain|>json",
                header_order=CHANNEL_FIRST,
            )
        ],
        {ProblemKind.MISSING_MESSAGE},
    ),
    "<|channel|>analysis<|message|>think<|end|><|start|>functions.f to=assistant 12<|end|>": (
        [THINK, Message(Author(Role.TOOL, "functions.f"), (TextContent("12"),), None, "assistant")],
        {ProblemKind.MISSING_MESSAGE},
    ),
    "<|channel|>analysis We think.<|channel|>final<|message|>4<|return|>": (
        [A("We think.", channel="analysis"), ANSWER],
        {ProblemKind.MISSING_MESSAGE},
    ),
    "<|channel|>analysis We think.<|start|>assistant<|channel|>final<|message|>4<|return|>": (
        [A("We think.", channel="analysis"), ANSWER],
        {ProblemKind.MISSING_MESSAGE},
    ),
    # Ends where there is nothing to end
    "<|channel|>final<|message|>4<|return|><|return|>": ([ANSWER], {ProblemKind.REDUNDANT_END}),
    "<|channel|>final<|message|>4<|end|><|return|>": ([ANSWER], {ProblemKind.REDUNDANT_END}),
    "<|return|><|channel|>final<|message|>4<|return|>": (
        [ANSWER],
        {ProblemKind.REDUNDANT_END, ProblemKind.MISSING_START},
    ),
    "<|channel|>analysis<|message|>think<|end|><|end|><|start|>assistant<|channel|>final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.REDUNDANT_END},
    ),
    "<|return|>": ([], {ProblemKind.REDUNDANT_END}),
    # No start token, no end token
    "<|channel|>analysis<|message|>think<|end|>assistant<|channel|>final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.MISSING_START},
    ),
    "<|channel|>analysis<|message|>think<|end|><|channel|>final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.MISSING_START},
    ),
    "<|channel|>analysis<|message|>think<|end|><|message|>4<|return|>": ([THINK, A("4")], {ProblemKind.MISSING_START}),
    "<|channel|>analysis<|message|>think<|start|>assistant<|channel|>final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.MISSING_END},
    ),
    "<|channel|>analysis<|message|>think<|channel|>final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.MISSING_END},
    ),
    "<|channel|>final<|message|>4<|endoftext|>": ([ANSWER], {ProblemKind.MISSING_END}),
    # Text between messages
    "<|channel|>analysis<|message|>think<|end|>\n<|start|>assistant<|channel|>final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.TEXT_OUTSIDE},
    ),
    "<|channel|>analysis<|message|>think<|end|>The answer is 4.<|return|>": (
        [THINK, A("The answer is 4.")],
        {ProblemKind.TEXT_OUTSIDE},
    ),
    "<|channel|>analysis<|message|>think<|end|>The answer is 4.": (
        [THINK, A("The answer is 4.")],
        {ProblemKind.TEXT_OUTSIDE},
    ),
    "I will call it now.<|channel|>final<|message|>4<|return|>": (
        [ANSWER],
        {ProblemKind.STRAY_WORDS},
    ),
    # Tokens in odd places
    "<|start|>assistant<|channel|>final<|message|>4<|return|>": ([ANSWER], {ProblemKind.UNEXPECTED_TOKEN}),
    "<|channel|>final<|message|><|message|>4<|return|>": ([ANSWER], {ProblemKind.UNEXPECTED_TOKEN}),
    "<|channel|>final<|message|>4<|message|>4<|return|>": ([ANSWER, ANSWER], {ProblemKind.UNEXPECTED_TOKEN}),
    "<|channel|>final<|message|><|constrain|>4<|return|>": ([ANSWER], {ProblemKind.UNEXPECTED_TOKEN}),
    "<|reserved_200000|><|channel|>final<|message|><|reserved_201087|>4<|return|>": (
        [ANSWER],
        {ProblemKind.UNEXPECTED_TOKEN},
    ),
    "<|channel|>analysis<|message|>think<|end|><|constrain|>json<|message|>4<|return|>": (
        [THINK, A("4", content_type="<|constrain|>json")],
        {ProblemKind.MISSING_START},
    ),
    # The end inside a header
    "<|channel|>analysis<|message|>think<|end|><|start|>": ([THINK], {ProblemKind.ENDS_IN_HEADER}),
    "<|channel|>analysis<|message|>think<|end|><|start|>assist": ([THINK], {ProblemKind.ENDS_IN_HEADER}),
    "<|channel|>analysis<|message|>think<|end|><|start|>assistant<|channel|>fin": (
        [THINK],
        {ProblemKind.ENDS_IN_HEADER},
    ),
    "<|channel|>commentary to=functions.f <|constrain|>json": ([], {ProblemKind.ENDS_IN_HEADER}),
    "": ([], {ProblemKind.ENDS_IN_HEADER}),
    # Channels and roles
    "<|channel|>thoughts<|message|>4<|return|>": ([A("4", channel="thoughts")], {ProblemKind.UNKNOWN_CHANNEL}),
    "<|channel|><|message|>4<|return|>": ([A("4")], {ProblemKind.EMPTY_CHANNEL}),
    "<|channel|>analysis<|channel|>final<|message|>4<|return|>": ([ANSWER], {ProblemKind.SECOND_CHANNEL}),
    "final<|message|>4<|return|>": ([ANSWER], {ProblemKind.UNMARKED_CHANNEL}),
    "<|channel|>analysis<|message|>think<|end|><|start|>assistant final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.UNMARKED_CHANNEL},
    ),
    "<|channel|>analysis<|message|>think<|end|><|start|>assistantfinal<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.UNMARKED_CHANNEL},
    ),
    "<|channel|>analysis<|message|>think<|end|><|start|>assistnt<|channel|>final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.UNKNOWN_ROLE},
    ),
    "<|channel|>analysis<|message|>think<|end|><|start|><|channel|>final<|message|>4<|return|>": (
        [THINK, ANSWER],
        {ProblemKind.UNKNOWN_ROLE},
    ),
    "<|channel|>analysis<|message|>think<|end|><|start|> to=functions.f<|channel|>commentary<|message|>4<|call|>": (
        [THINK, A("4", channel="commentary", recipient="functions.f")],
        {ProblemKind.UNKNOWN_ROLE},
    ),
    "<|channel|>analysis<|message|>think<|end|><|start|>functions.f<|channel|>commentary<|message|>4<|end|>": (
        [THINK, Message.tool("functions.f", "4", recipient=None)],
        {ProblemKind.UNKNOWN_ROLE},
    ),
    # Recipients and content types
    "<|channel|>commentary functions.f json<|message|>{}<|call|>": (
        [A("{}", channel="commentary", content_type="json")],
        {ProblemKind.STRAY_WORDS},
    ),
    "<|channel|>final well json<|message|>4<|return|>": (
        [A("4", channel="final", content_type="json")],
        {ProblemKind.STRAY_WORDS},
    ),
    "<|channel|>final well<|message|>4<|return|>": ([ANSWER], {ProblemKind.STRAY_WORDS}),
    "well said<|channel|>final<|message|>4<|return|>": ([ANSWER], {ProblemKind.STRAY_WORDS}),
    "<|channel|>commentary to=f to=g<|message|>{}<|call|>": (
        [A("{}", channel="commentary", recipient="f", header_order=CHANNEL_FIRST)],
        {ProblemKind.STRAY_WORDS},
    ),
    " to=f<|channel|>commentary to=g <|constrain|>json<|message|>{}<|call|>": (
        [A("{}", channel="commentary", recipient="f", content_type="<|constrain|>json")],
        {ProblemKind.STRAY_WORDS},
    ),
    "<|channel|>commentary to=f <|constrain|>json <|constrain|>json<|message|>{}<|call|>": (
        [A("{}", channel="commentary", recipient="f", content_type="<|constrain|>json", header_order=CHANNEL_FIRST)],
        {ProblemKind.STRAY_WORDS},
    ),
    "<|channel|>commentary to=<|message|>{}<|end|>": ([A("{}", channel="commentary")], {ProblemKind.STRAY_WORDS}),
    "<|channel|>commentary to=assistant<|message|>x<|end|>": (
        [A("x", channel="commentary")],
        {ProblemKind.ROLE_AS_RECIPIENT},
    ),
    "<|channel|>final to=user<|message|>4<|return|>": ([ANSWER], {ProblemKind.ROLE_AS_RECIPIENT}),
    "<|channel|>final to=User<|message|>4<|return|>": ([ANSWER], {ProblemKind.ROLE_AS_RECIPIENT}),
    "<|channel|>final to=user:alice<|message|>4<|return|>": ([ANSWER], {ProblemKind.ROLE_AS_RECIPIENT}),
    "<|channel|>final to=ASSISTANT 4<|return|>": (
        [ANSWER],
        {ProblemKind.ROLE_AS_RECIPIENT, ProblemKind.MISSING_MESSAGE},
    ),
    "<|channel|>commentary to=assistant<|channel|>final<|message|>4<|return|>": (
        [ANSWER],
        {ProblemKind.SECOND_CHANNEL},
    ),
    "<|channel|>commentary to=f <|constrain|>json<|channel|>final<|message|>4<|return|>": (
        [ANSWER],
        {ProblemKind.SECOND_CHANNEL},
    ),
    "<|channel|>analysis<|channel|>commentary to=f<|message|>{}<|call|>": (
        [A("{}", channel="commentary", recipient="f", header_order=CHANNEL_FIRST)],
        {ProblemKind.SECOND_CHANNEL},
    ),
    "<|channel|>??<|message|>4<|end|>": ([A("4", channel="??")], {ProblemKind.UNKNOWN_CHANNEL}),
    "<|channel|>?? 4 and more<|end|>": (
        [A("4 and more", channel="??")],
        {ProblemKind.UNKNOWN_CHANNEL, ProblemKind.MISSING_MESSAGE},
    ),
    "<|channel|>commentary to=user Hello there<|end|>": (
        [A("Hello there", channel="commentary")],
        {ProblemKind.ROLE_AS_RECIPIENT, ProblemKind.MISSING_MESSAGE},
    ),
    "<|channel|>commentary json to=f<|message|>{}<|call|>": (
        [A("{}", channel="commentary", recipient="f", content_type="json", header_order=CHANNEL_FIRST)],
        set(),
    ),
    "<|channel|>commentary to=f <|constrain|> json<|message|>{}<|call|>": (
        [A("{}", channel="commentary", recipient="f", content_type="<|constrain|> json", header_order=CHANNEL_FIRST)],
        set(),
    ),
    "<|channel|>final <|constrain|><|message|>4<|return|>": (
        [A("4", channel="final", content_type="<|constrain|>")],
        set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("completion", CORPUS)
def test_recovery(completion, ids, encoding):
    expected, kinds = CORPUS[completion]
    messages, problems = parse(ids(completion), encoding)
    assert list(messages) == expected
    assert {problem.kind for problem in problems} == kinds
    assert all(0 <= problem.position <= len(ids(completion)) for problem in problems)


@pytest.mark.parametrize("completion", [each for each, (_, kinds) in CORPUS.items() if kinds])
def test_strict_mode_raises_at_the_first_problem(completion, ids, encoding):
    _, problems = parse(ids(completion), encoding)
    with pytest.raises(ParseError) as caught:
        parse(ids(completion), encoding, strict=True)
    assert caught.value.problem == problems[0]
    assert str(problems[0].position) in str(caught.value)


def test_unknown_ids_are_left_out(ids, encoding):
    head, tail = ids("<|channel|>final<|message|>"), ids("4<|return|>")
    unknown = [-1, encoding.vocab_size, 2**40]
    messages, problems = parse([unknown[0], *head, *unknown, *tail], encoding)
    assert messages == (ANSWER,)
    assert [(each.kind, each.detail) for each in problems] == [
        (ProblemKind.UNKNOWN_TOKEN, str(token)) for token in (unknown[0], *unknown)
    ]


def test_a_problem_reads_as_a_sentence(ids, encoding):
    _, (problem,) = parse(ids("<|channel|>thoughts<|message|>4"), encoding)
    assert str(problem) == "a channel that the format does not have: thoughts"


@pytest.mark.parametrize("text", [*(each.value for each in Special), "x", " ", "<|channel|>x", "<|constrain|> to=a"])
def test_any_token_over_and_over_takes_time_in_proportion(text, ids, encoding):
    completion = ids(text) * (10_000 // len(ids(text)))
    started = time.process_time()
    parse(completion, encoding)
    assert time.process_time() - started < 3


# Any tokens at all

named = st.sampled_from([each.value for each in Special])
pieces = st.sampled_from(["assistant", "final", "analysis", " to=functions.f", " json", "4", "\n", "<|end|>", "é"])


@st.composite
def token_sequences(draw: st.DrawFn, encoding) -> list[int]:
    some = st.one_of(
        named.map(lambda name: [encoding.special(name)]),
        pieces.map(encoding.encode),
        st.integers(0, 1000).map(lambda token: [token]),
        st.integers(-2, encoding.vocab_size + 2).map(lambda token: [token]),
    )
    return [token for part in draw(st.lists(some, max_size=20)) for token in part]


@given(data=st.data(), role=st.none() | st.sampled_from(Role))
@settings(max_examples=200)
def test_any_token_sequence_is_parsed(data, role, encoding):
    tokens = data.draw(token_sequences(encoding))
    parser = StreamableParser(encoding, role)
    for token in tokens:
        parser.process(token)
    parser.finish()
    assert parser.finish() == []
    assert all(0 <= problem.position <= len(tokens) for problem in parser.problems)
    if parser.problems:
        with pytest.raises(ParseError) as caught:
            parse(tokens, encoding, role, strict=True)
        assert caught.value.problem == parser.problems[0]
    else:
        assert parse(tokens, encoding, role, strict=True) == (parser.messages, ())


WELL_FORMED = st.sampled_from(
    [
        ("assistant<|channel|>final<|message|>the answer<|end|>", A("the answer", channel="final")),
        ("assistant<|channel|>analysis<|message|>a thought<|end|>", A("a thought", channel="analysis")),
        (
            "assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
            A("{}", channel="commentary", recipient="functions.f", content_type="<|constrain|>json"),
        ),
        ("functions.f to=assistant<|channel|>commentary<|message|>1<|end|>", Message.tool("functions.f", "1")),
        ("user<|message|>a question<|end|>", Message.user("a question")),
    ]
)


@given(data=st.data())
@settings(max_examples=150)
def test_every_well_formed_message_comes_out_of_any_noise(data, encoding):
    tokens = data.draw(token_sequences(encoding))
    expected = []
    for text, message in data.draw(st.lists(WELL_FORMED, min_size=1, max_size=3)):
        tokens += encoding.encode_with_special(f"<|start|>{text}") + data.draw(token_sequences(encoding))
        expected.append(message)
    messages, _ = parse(tokens, encoding)
    rest = iter(messages)
    assert all(message in rest for message in expected), messages


@given(data=st.data())
@settings(max_examples=200)
def test_the_first_message_comes_out_of_any_noise_before_it(data, encoding):
    """A completion's first message has no start token of its own: its header begins with the channel."""
    noise = data.draw(token_sequences(encoding))
    message = encoding.encode_with_special("<|channel|>final<|message|>the answer<|return|>")
    messages, _ = parse([*noise, *message], encoding)
    assert messages[-1].text == "the answer"
    assert messages[-1].channel == "final"
