import random

import pytest
import tiktoken
import tokenizers

from gptoss.harmony.encoding import Encoding
from gptoss.model.nano import data
from gptoss.model.nano.other import other_text
from gptoss.model.nano.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer, learn_vocabulary


def texts() -> list[str]:
    rng = random.Random(5)
    made = [other_text(rng) for _ in range(600)]
    for _ in range(200):
        made += [message.text for message in data.make_example(rng).history]
    made += ["".join(chr(rng.choice((rng.randrange(1, 0x250), rng.randrange(0xE000, 0x20000)))) for _ in range(60))]
    made += ["", " ", "\n", "a" * 3000, "7" * 3000, " " * 3000, "\n" * 100, "é" * 500, "<|start|>user<|message|>"]
    made += ["  two  spaces ", "tab\there", "\r\n\r\n", "x = 3+ 4", "1 + 2", "end 5 ", "a 1 b 2", "don't", "\x1c \x85"]
    return made


@pytest.mark.parametrize("text", ["What is 347 + 85?", "héllo 漢字 😀", "<|end|>", "\x00\x1b[31m", ""])
def test_text_goes_there_and_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_byte_is_a_token_and_ids_are_ranks(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocabulary[:256] == [bytes([b]) for b in range(256)]
    assert len(set(tokenizer.vocabulary)) == len(tokenizer.vocabulary)
    for token in tokenizer.vocabulary[256:]:
        rank = tokenizer.ranks[token]
        cuts = range(1, len(token))
        assert any(max(tokenizer.ranks.get(p, rank) for p in (token[:c], token[c:])) < rank for c in cuts), token


def test_a_digit_is_always_a_token_of_its_own(tokenizer: Tokenizer) -> None:
    assert not [token for token in tokenizer.vocabulary if len(token) > 1 and any(chr(b).isdigit() for b in token)]


def test_special_tokens_have_ids_of_their_own_and_no_text_makes_them(tokenizer: Tokenizer) -> None:
    first = len(tokenizer.vocabulary)
    assert sorted(tokenizer.special.values()) == list(range(first, first + len(SPECIAL_TOKENS)))
    assert all(max(tokenizer.encode(name)) < first for name in SPECIAL_TOKENS)


def test_tokenizers_tiktoken_and_harmony_give_the_same_ids(tokenizer: Tokenizer, checkpoint) -> None:
    file = checkpoint / "tokenizer.json"
    hugging_face = tokenizers.Tokenizer.from_file(str(file))
    # Off for a test: there, unlike here, the name of a special token in a text is that token.
    plain = tiktoken.Encoding("nano", pat_str=PATTERN, mergeable_ranks=tokenizer.ranks, special_tokens={})
    harmony = Encoding.from_tokenizer_json(file)
    for text in texts():
        ids = tokenizer.encode(text)
        assert plain.encode_ordinary(text) == ids, text
        assert harmony.encode(text) == ids, text
        if "<|" not in text:
            assert hugging_face.encode(text, add_special_tokens=False).ids == ids, text
            assert hugging_face.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids), text
    for name, id_ in tokenizer.special.items():
        assert hugging_face.token_to_id(name) == id_


def test_the_default_system_message_is_short(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(data.system_text(data.Effort.MEDIUM, "2026-11-23"))) <= 64


def test_merges_are_learnt_by_frequency() -> None:
    vocabulary = learn_vocabulary(["ab ab ab abc"], 259)
    assert vocabulary[256:] == [b"ab", b" ab", b" abc"]


def test_learning_stops_for_no_text_without_pairs() -> None:
    with pytest.raises(ValueError, match="no pair is left"):
        learn_vocabulary(["a"], 300)
