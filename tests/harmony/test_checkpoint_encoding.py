"""From a checkpoint's folder to its encoding: its own tokenizer, else o200k_harmony; held to what it claims to be."""

from __future__ import annotations

import os

import pytest

from gptoss.harmony import Encoding, VocabularyError, o200k

NAMES = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]


def test_its_own_tokenizer(tmp_path, make_byte_tokenizer):
    make_byte_tokenizer(tmp_path, NAMES)
    for folder in (tmp_path, str(tmp_path)):
        encoding = Encoding.for_checkpoint(folder, vocab_size=263)
        assert encoding.encode("a\n") == [97, 10]
        assert encoding.vocab_size == 263


def test_a_link_is_followed(tmp_path, make_byte_tokenizer):
    """The hub's cache consists of links."""
    file = make_byte_tokenizer(tmp_path / "blobs", NAMES)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "tokenizer.json").symlink_to(file)
    assert Encoding.for_checkpoint(tmp_path / "snapshot").vocab_size == 263


def test_without_one_it_is_o200k_harmony(tmp_path):
    for vocab_size in (None, 201088, 201216):  # rows of embeddings may be padded
        assert Encoding.for_checkpoint(tmp_path, vocab_size) is Encoding.o200k_harmony()
    with pytest.raises(VocabularyError, match=r"is missing, and the model's 50000 tokens are not gpt-oss's 201088"):
        Encoding.for_checkpoint(tmp_path, 50000)


def test_ids_that_the_model_does_not_have(tmp_path, make_byte_tokenizer):
    make_byte_tokenizer(tmp_path, NAMES)
    with pytest.raises(VocabularyError, match=r"has ids up to 262, but the model has 262 tokens"):
        Encoding.for_checkpoint(tmp_path, 262)


def test_what_claims_to_be_o200k_harmony_is_held_to_it(tmp_path, make_byte_tokenizer):
    make_byte_tokenizer(tmp_path, o200k.NAMED_TOKENS | {"<|start|>": 200007, "<|end|>": 200006})
    with pytest.raises(VocabularyError, match=r"looks like o200k_harmony.*<\|start\|> has the id 200007, not 200006"):
        Encoding.for_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["missing", "file", "null\0character", "file/below"])
def test_no_folder(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(VocabularyError, match=r"there is no folder .*: name a folder with a checkpoint"):
        Encoding.for_checkpoint(tmp_path / name)


def test_a_folder_that_cannot_be_read(tmp_path):
    with pytest.raises(VocabularyError, match="cannot be read: "):
        Encoding.for_checkpoint(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read"),
        (lambda path: path.write_text("{}"), "model is not a JSON object"),
    ],
)
def test_a_tokenizer_that_is_there_is_never_passed_over(tmp_path, make, what):
    make(tmp_path / "tokenizer.json")
    with pytest.raises(VocabularyError, match=rf"tokenizer\.json: {what}"):
        Encoding.for_checkpoint(tmp_path, 201088)
