"""Which tokenizer a checkpoint has: its own where there is one, held to what it claims to be."""

import os

import pytest

from gptoss.cli.startup.encodings import load_encoding
from gptoss.harmony import Encoding, VocabularyError, o200k
from gptoss.model import CheckpointError

NAMES = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]


def test_the_checkpoints_own_tokenizer(tmp_path, make_byte_tokenizer):
    make_byte_tokenizer(tmp_path, [*NAMES, "<|endoftext|>"])
    encoding = load_encoding(tmp_path, vocab_size=264)
    assert encoding.encode("a\n") == [97, 10]
    assert [encoding.special(name) for name in NAMES] == list(range(256, 263))
    assert encoding.stop_tokens == {261, 262, 263}


def test_without_one_it_is_the_shipped(tmp_path):
    for vocab_size in (None, 201088, 201216):  # rows of embeddings may be padded
        assert load_encoding(tmp_path, vocab_size) is Encoding.o200k_harmony()


def test_without_one_a_small_vocabulary_is_refused(tmp_path):
    with pytest.raises(VocabularyError, match=r"is missing, and the model's 50000 tokens are not gpt-oss's 201088"):
        load_encoding(tmp_path, 50000)


def test_ids_that_the_model_does_not_have(tmp_path, make_byte_tokenizer):
    make_byte_tokenizer(tmp_path, NAMES)
    assert load_encoding(tmp_path, 263).vocab_size == 263
    with pytest.raises(VocabularyError, match=r"has ids up to 262, but the model has 262 tokens"):
        load_encoding(tmp_path, 262)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"<|message|>": None}, r"the special token <\|message\|> is missing"),
        ({"<|start|>": 200007, "<|end|>": 200006}, r"the special token <\|start\|> has the id 200007, not 200006"),
        ({}, r"the token 0 is b'\\x00', not b'!'"),
    ],
)
def test_what_claims_to_be_o200k_harmony_is_held_to_it(tmp_path, make_byte_tokenizer, changes, difference):
    specials = o200k.NAMED_TOKENS | changes
    make_byte_tokenizer(tmp_path, {name: token for name, token in specials.items() if token is not None})
    with pytest.raises(VocabularyError, match=f"looks like o200k_harmony.* but {difference}: download it again"):
        load_encoding(tmp_path, 201088)


def test_a_tokenizer_that_lies_elsewhere_or_is_no_file(tmp_path, make_byte_tokenizer):
    other = make_byte_tokenizer(tmp_path / "other", NAMES)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tokenizer.json").symlink_to(other)
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        load_encoding(folder)
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_encoding(folder)
