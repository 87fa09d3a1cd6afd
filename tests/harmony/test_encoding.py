"""Text to ids and back; special tokens; the shipped vocabulary; long runs."""

from __future__ import annotations

import random
import time
from functools import partial

import pytest
from hypothesis import given, settings, strategies as st

from gptoss.harmony import (
    Conversation,
    Encoding,
    EncodingError,
    Message,
    Special,
    StreamableParser,
    VocabularyError,
    loads_conversation,
    o200k,
    parse,
    render,
)
from gptoss.harmony.byte_pairs import BytePairs
from gptoss.harmony.long_runs import KNOWN_PATTERNS, MAX_RUN, split_long_runs

texts = st.text() | st.text(alphabet=" \n\r\t\x0b\x1c\x85\xa0\u2028\u3000aA1-/'é\u0301", max_size=30)


# o200k_harmony


def test_special_tokens_of_o200k_harmony(encoding):
    """The table of the official library, written out once more."""
    named = {
        "startoftext": 199998,
        "endoftext": 199999,
        "return": 200002,
        "constrain": 200003,
        "channel": 200005,
        "start": 200006,
        "end": 200007,
        "message": 200008,
        "call": 200012,
    }
    for token in range(199998, 201088):
        name = next((f"<|{each}|>" for each, id_ in named.items() if id_ == token), f"<|reserved_{token}|>")
        assert encoding.special(name) == token
        assert encoding.special_name(token) == name
        assert encoding.is_special(token)
        assert encoding.token_bytes(token) == name.encode()
    assert encoding.vocab_size == 201088
    assert not encoding.is_special(199997)
    assert encoding.special_name(199997) is None
    assert encoding.stop_tokens == {199999, 200002, 200012}


def test_special_tokens_are_the_official_ones(encoding, official):
    for token in range(199998, 201088):
        assert official.encoding.decode([token]) == encoding.decode([token])
        assert official.encoding.is_special_token(token)


def test_200018_has_the_official_name(encoding):
    """tiktoken's own o200k_harmony calls it endofprompt as well; text of that name is text."""
    assert encoding.special_name(200018) == "<|reserved_200018|>"
    with pytest.raises(EncodingError, match="endofprompt"):
        encoding.special("<|endofprompt|>")


@pytest.mark.parametrize("token", [-1, 201088, 2**40])
def test_ids_that_are_no_tokens(token, encoding):
    with pytest.raises(EncodingError, match=str(token)):
        encoding.decode([token])
    assert not encoding.is_special(token)


@given(text=texts)
@settings(max_examples=300)
def test_text_is_encoded_as_officially(text, encoding, official):
    ids = encoding.encode(text)
    assert ids == official.encoding.encode(text, disallowed_special=())
    assert encoding.decode(ids) == text
    assert encoding.decode_bytes(ids) == text.encode()


@given(names=st.lists(st.sampled_from([*o200k.SPECIAL_TOKENS, "<|endofprompt|>", "x"]), max_size=4))
def test_text_never_becomes_a_special_token(names, encoding):
    text = "".join(names)
    ids = encoding.encode(text)
    assert not any(encoding.is_special(token) for token in ids)
    assert encoding.decode(ids) == text


def test_special_tokens_are_read_from_text_on_request_only(encoding):
    text = "<|start|>user<|message|>hi<|end|>"
    start, message, end = map(encoding.special, (Special.START, Special.MESSAGE, Special.END))
    ids = encoding.encode_with_special(text)
    assert ids == [start, *encoding.encode("user"), message, *encoding.encode("hi"), end]
    assert encoding.decode(ids) == text


def test_a_lone_surrogate_is_read_as_a_replacement_character(encoding):
    assert encoding.decode(encoding.encode("a\ud800b")) == "a\ufffdb"


def test_the_encoding_is_built_once():
    assert Encoding.o200k_harmony() is Encoding.o200k_harmony()


def test_an_altered_vocabulary_is_refused():
    with pytest.raises(VocabularyError, match="altered"):
        o200k.parse_vocabulary(b"IQ== 0\n")


def test_a_missing_vocabulary_is_refused(monkeypatch):
    monkeypatch.setattr(o200k, "VOCABULARY_FILE", "absent.tiktoken")
    with pytest.raises(VocabularyError, match=r"absent\.tiktoken is missing"):
        o200k.load_vocabulary()


def test_building_takes_no_longer_than_stated():
    """0.17 s were measured; the bound leaves room for a loaded machine."""
    started = time.process_time()
    BytePairs(o200k.load_vocabulary(), o200k.PATTERN)
    assert time.process_time() - started < 2


# No id is written into the code


@pytest.fixture(scope="module", params=[1, 2])
def permuted(request, encoding) -> Encoding:
    names = list(o200k.SPECIAL_TOKENS)
    shuffled = list(names)
    random.Random(request.param).shuffle(shuffled)
    return encoding.with_specials({new: o200k.SPECIAL_TOKENS[old] for old, new in zip(names, shuffled, strict=True)})


def test_permuted_ids_render_and_parse_alike(scenario, load_golden, encoding, permuted):
    conversation = loads_conversation(load_golden(scenario)[0])
    plain, other = render(conversation, encoding), render(conversation, permuted)
    assert permuted.decode(other) == encoding.decode(plain)
    renamed = [
        permuted.special(encoding.special_name(token)) if encoding.is_special(token) else token for token in plain
    ]
    assert other == renamed
    assert other != plain
    assert parse(other, permuted, None) == parse(plain, encoding, None)
    assert {permuted.special_name(token) for token in permuted.stop_tokens} == {
        encoding.special_name(token) for token in encoding.stop_tokens
    }


def test_an_encoding_without_the_formats_tokens_says_so(encoding):
    bare = encoding.with_specials({"<|endoftext|>": 199999})
    assert bare.stop_tokens == {199999}
    with pytest.raises(EncodingError, match=r"<\|start\|>"):
        render(Conversation.of(Message.user("hi")), bare)
    with pytest.raises(EncodingError, match="harmony format needs"):
        StreamableParser(bare)


def test_special_tokens_that_clash_are_refused(encoding):
    with pytest.raises(EncodingError, match="share an id"):
        encoding.with_specials({"<|a|>": 200000, "<|b|>": 200000})
    with pytest.raises(EncodingError, match="ordinary text"):
        encoding.with_specials({"<|a|>": 17})


# Long runs

MEGABYTE = 1_000_000


@pytest.mark.parametrize("character", [" ", "\n", "\u3000", "a", "-", "é", "\U0001f600"])
def test_a_megabyte_of_one_character(character, encoding):
    text = character * (MEGABYTE // len(character.encode()))
    started = time.process_time()
    ids = encoding.encode(text)
    assert time.process_time() - started < 10
    assert encoding.decode(ids) == text


@pytest.mark.parametrize(("before", "after"), [("", "b"), ("a ", ""), ("-\n", "\nb"), ("é\u0301", "-"), ("a", "'s")])
def test_a_run_just_above_the_limit_has_tiktokens_ids(before, after, encoding):
    text = before + " " * (MAX_RUN + 5) + after
    assert len(list(split_long_runs(text, o200k.PATTERN))) == (1 if after.startswith("\n") else 3)
    assert encoding.encode(text) == encoding._pairs._tiktoken.encode_ordinary(text)


@given(text=texts | st.text(alphabet=" \n\r\ta-\u0301/", max_size=40))
@settings(max_examples=300)
def test_cutting_out_runs_keeps_the_ids(text, encoding):
    """With a limit of two characters in the place of ``MAX_RUN``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gptoss.harmony.byte_pairs.split_long_runs", partial(split_long_runs, max_run=2))
        ids = encoding.encode(text)
    assert ids == encoding._pairs._tiktoken.encode_ordinary(text)


@given(text=texts | st.text(alphabet=" \n\r\ta-\u0301/", max_size=40), pattern=st.sampled_from(list(KNOWN_PATTERNS)))
@settings(max_examples=500)
def test_splitting_at_runs_keeps_the_pieces(text, pattern):
    """With runs of more than two characters cut out, the pieces are those of the whole text."""
    import regex  # tiktoken's own dependency

    def pieces(part: str) -> list[str]:
        return [match.group() for match in regex.finditer(pattern, part)]

    parts = list(split_long_runs(text, pattern, max_run=2))
    assert "".join(part for part, _ in parts) == text
    assert [piece for part, is_piece in parts for piece in ([part] if is_piece else pieces(part))] == pieces(text)


def test_what_tiktoken_gives_up_on_is_a_typed_error(encoding, monkeypatch):
    """Without the cutting its regex engine panics, with an error that is no Exception."""
    monkeypatch.setattr("gptoss.harmony.byte_pairs.split_long_runs", lambda text, pattern: [(text, False)])
    with pytest.raises(EncodingError, match="1000001 characters"):
        encoding.encode(" " * MEGABYTE + "x")
