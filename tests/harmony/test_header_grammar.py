"""The grammar of headers: everything it lets through is well-formed, and everything well-formed gets through."""

import random

import pytest

from gptoss.harmony import (
    BROWSER_TOOLS,
    PYTHON_TOOL,
    Conversation,
    DeveloperContent,
    Encoding,
    HeaderError,
    HeaderGrammar,
    Message,
    MessageHead,
    ResponseFormat,
    Special,
    SystemContent,
    ToolDescription,
    legal_heads,
    parse,
    render_message,
)

PLAIN = Conversation.of(Message.system(SystemContent()))
TOOLS = Conversation.of(
    Message.system(SystemContent().with_tools(BROWSER_TOOLS, PYTHON_TOOL)),
    Message.developer(
        DeveloperContent().with_function_tools(
            ToolDescription("get", "Gets."), ToolDescription("get_all", "Gets all."), ToolDescription("größe", "Size.")
        )
    ),
)


@pytest.fixture(scope="module")
def encoding() -> Encoding:
    return Encoding.o200k_harmony()


def completions(conversation: Conversation, encoding: Encoding, seed: int, messages: int = 4) -> list[int]:
    """A completion that is drawn from what is allowed."""
    choose = random.Random(seed)
    walk = HeaderGrammar.for_conversation(conversation, encoding).walk()
    ids: list[int] = []
    written = 0
    while not walk.is_done and written < messages:
        allowed = walk.allowed
        if allowed.ordinary and choose.random() < 0.8:
            token = choose.randrange(199_998)
        else:
            token = choose.choice(sorted(allowed.tokens))
            written += allowed.ordinary
        walk.advance(token)
        ids.append(token)
    return ids


@pytest.mark.parametrize("conversation", [PLAIN, TOOLS], ids=["plain", "tools"])
def test_what_is_allowed_is_well_formed(encoding, conversation):
    heads = set(legal_heads(conversation))
    seen = set()
    for seed in range(300):
        messages, problems = parse(completions(conversation, encoding, seed), encoding, strict=True)
        assert problems == ()
        seen |= {MessageHead(m.channel, m.recipient, m.content_type) for m in messages}
    assert seen <= heads
    assert len(seen) > len(heads) * 0.8, "the walks should have met nearly all of them"


@pytest.mark.parametrize("conversation", [PLAIN, TOOLS], ids=["plain", "tools"])
def test_every_legal_head_as_it_is_rendered_gets_through(encoding, conversation):
    grammar = HeaderGrammar.for_conversation(conversation, encoding)
    for head in legal_heads(conversation):
        message = Message.assistant(
            "text", channel=head.channel, recipient=head.recipient, content_type=head.content_type
        )
        ids = render_message(message, encoding)[2:-1]  # without (start) assistant and the end
        walk = grammar.walk(ids)
        assert walk.head == head
        assert grammar.walk(grammar.spell(head)).head == head


@pytest.mark.parametrize("conversation", [PLAIN, TOOLS], ids=["plain", "tools"])
def test_spellings_are_all_the_headers_there_are(encoding, conversation):
    """Every path of the walk from the author's name to the message token is listed under the head that it leads to."""
    grammar = HeaderGrammar.for_conversation(conversation, encoding)
    found = {}
    pending = [()]
    while pending:
        path = pending.pop()
        walk = grammar.walk(path)
        if walk.head is None:
            pending += [(*path, token) for token in walk.allowed.tokens]
        else:
            found.setdefault(walk.head, set()).add(path)
    assert grammar.heads == legal_heads(conversation)
    assert {head: set(grammar.spellings(head)) for head in grammar.heads} == found
    assert all(grammar.spell(head) == grammar.spellings(head)[0] for head in grammar.heads)


def test_a_call_is_spelled_channel_first_and_recipient_first(encoding):
    grammar = HeaderGrammar.for_conversation(TOOLS, encoding)
    head = MessageHead("commentary", "functions.get", "<|constrain|>json")
    assert [encoding.decode(spelling) for spelling in grammar.spellings(head)] == [
        "<|channel|>commentary to=functions.get <|constrain|>json<|message|>",
        " to=functions.get<|channel|>commentary <|constrain|>json<|message|>",
        "<|channel|>commentary to=functions.get<|constrain|>json<|message|>",
        " to=functions.get<|channel|>commentary<|constrain|>json<|message|>",
    ]
    assert [encoding.decode(spelling) for spelling in grammar.spellings(MessageHead("final"))] == [
        "<|channel|>final<|message|>"
    ]


def test_end_tokens_and_author_are_what_the_walk_allows(encoding):
    grammar = HeaderGrammar.for_conversation(TOOLS, encoding)
    for head in grammar.heads:
        walk = grammar.walk(grammar.spell(head))
        assert walk.allowed.tokens == {grammar.end_token(head)}
        walk.advance(grammar.end_token(head))
        assert walk.is_done == (head.end is not Special.END)
        if not walk.is_done:
            for token in grammar.author:
                walk.advance(token)
            assert walk.allowed == grammar.walk().allowed
    assert encoding.decode(grammar.author) == "<|start|>assistant"


@pytest.mark.parametrize("of", ["spellings", "spell", "end_token"])
def test_a_head_that_is_not_legal_has_no_spelling(encoding, of):
    grammar = HeaderGrammar.for_conversation(PLAIN, encoding)
    with pytest.raises(HeaderError, match=r"functions\.get.*not among the legal headers"):
        getattr(grammar, of)(MessageHead("commentary", "functions.get"))


def test_recipients_are_the_tools_that_exist(encoding):
    def recipients(conversation):
        return {head.recipient for head in legal_heads(conversation)} - {None}

    assert recipients(PLAIN) == set()
    functions = {"functions.get", "functions.get_all", "functions.größe"}
    assert recipients(TOOLS) == functions | {"browser.search", "browser.open", "browser.find", "python"}
    odd = DeveloperContent().with_function_tools(ToolDescription("two words", ""), ToolDescription("<|end|>", ""))
    assert recipients(Conversation.of(Message.developer(odd))) == set()
    assert recipients(Conversation.of(Message.developer(DeveloperContent().with_function_tools()))) == set()


def test_each_tool_is_called_in_both_channels_first_in_its_own():
    for name, channels in (("functions.get", ["commentary", "analysis"]), ("python", ["analysis", "commentary"])):
        found = [head.channel for head in legal_heads(TOOLS) if head.recipient == name]
        assert list(dict.fromkeys(found)) == channels


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>analysis to=functions.get code",
        "<|channel|>analysis to=functions.get <|constrain|>json",
        "<|channel|>commentary to=functions.get code",
        "<|channel|>commentary to=functions.get<|constrain|>json",
        "<|channel|>analysis to=python <|constrain|>code",
        " to=functions.get<|channel|>analysis code",
    ],
)
def test_headers_that_models_write_are_legal_and_parsed(header, encoding):
    spelling = encoding.encode_with_special(f"{header}<|message|>")
    walk = HeaderGrammar.for_conversation(TOOLS, encoding).walk(spelling)
    assert walk.head is not None
    (message,), problems = parse([*spelling, *encoding.encode_with_special("x<|call|>")], encoding, strict=True)
    assert not problems
    assert (message.channel, message.recipient) == (walk.head.channel, walk.head.recipient)
    assert message.content_type == walk.head.content_type


def test_an_answer_may_name_json_where_a_format_is_asked_for():
    asked = Conversation.of(Message.developer(DeveloperContent(response_formats=(ResponseFormat("x", {}),))))
    head = MessageHead("final", content_type="<|constrain|>json")
    assert head in legal_heads(asked)
    assert head not in legal_heads(PLAIN)


def test_a_message_ends_as_its_kind_does(encoding):
    grammar = HeaderGrammar.for_conversation(TOOLS, encoding)

    def ends(head):
        allowed = grammar.walk(grammar.spell(head)).allowed
        assert allowed.ordinary
        return {encoding.special_name(token) for token in allowed.tokens}

    assert ends(MessageHead("analysis")) == ends(MessageHead("commentary")) == {Special.END}
    assert ends(MessageHead("final")) == {Special.RETURN}
    assert ends(MessageHead("analysis", "python", "code")) == {Special.CALL}


def test_after_a_message_comes_a_header_of_the_assistant(encoding):
    walk = HeaderGrammar.for_conversation(PLAIN, encoding).walk(
        encoding.encode_with_special("<|channel|>analysis<|message|>Hm.<|end|>")
    )
    forced = []
    while len(walk.allowed.tokens) == 1:
        forced += walk.allowed.tokens
        walk.advance(forced[-1])
    assert encoding.decode(forced) == "<|start|>assistant<|channel|>"


def test_nothing_comes_after_the_end(encoding):
    walk = HeaderGrammar.for_conversation(PLAIN, encoding).walk(
        encoding.encode_with_special("<|channel|>final<|message|>Yes.<|return|>")
    )
    assert walk.is_done
    assert walk.head is None
    assert walk.allowed.tokens == frozenset()
    with pytest.raises(HeaderError, match="after the end"):
        walk.advance(0)


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>thoughts",
        "<|channel|>final to=functions.get",
        " to=functions.set",
        "user<|message|>",
        "<|message|>",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>user",
        "<|channel|>commentary to=functions.get <|constrain|>xml",
    ],
)
def test_what_is_not_legal_is_refused(encoding, text):
    with pytest.raises(HeaderError, match="no legal header"):
        HeaderGrammar.for_conversation(TOOLS, encoding).walk(encoding.encode_with_special(text))
