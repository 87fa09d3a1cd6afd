"""Models whose vocabulary was resized to their tokenizer, and tokenizers of other models."""

import json

import pytest

from gptoss.harmony import Encoding, VocabularyError, o200k
from gptoss.harmony.tokenizer_json import TokenizerJson


@pytest.mark.parametrize("vocab_size", [200019, 200020, 200064, 201088])
def test_reserved_ids_beyond_the_model_do_not_count(monkeypatch, tmp_path, vocab_size):
    encoding = Encoding.o200k_harmony()
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(Encoding, "from_tokenizer_json", lambda path: encoding)
    found = Encoding.for_checkpoint(tmp_path, vocab_size)
    assert found.vocab_size <= vocab_size
    assert found.encode("Hello") == encoding.encode("Hello")
    assert found.specials["<|call|>"] == 200012


def test_own_tokens_beyond_the_model_do(monkeypatch, tmp_path):
    encoding = Encoding.o200k_harmony()
    own = encoding.with_specials({**{n: i for n, i in encoding.specials.items() if i < 200019}, "<|mine|>": 200019})
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(Encoding, "from_tokenizer_json", lambda path: own)
    assert Encoding.for_checkpoint(tmp_path, 200020).specials["<|mine|>"] == 200019
    with pytest.raises(VocabularyError, match="has ids up to 200019, but the model has 200019 tokens"):
        Encoding.for_checkpoint(tmp_path, 200019)


def published(**own: int) -> TokenizerJson:
    """What is read of a published tokenizer.json with tokens of its own."""
    return TokenizerJson(o200k.NAMED_TOKENS | {"<|reserved_200000|>": 200000, "<|endofprompt|>": 200018} | own, None)


def test_own_tokens_of_a_file_count_and_have_their_names(monkeypatch, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr("gptoss.harmony.encoding.read_tokenizer_json", lambda path: published())
    assert Encoding.for_checkpoint(tmp_path, 201088) is Encoding.o200k_harmony()
    for own, vocab_size in (
        ({"<|mine|>": 200019}, 200020),
        ({"<|mine|>": 200013}, 200019),
        ({"<|mine|>": 201088}, 201152),
    ):
        monkeypatch.setattr("gptoss.harmony.encoding.read_tokenizer_json", lambda path, own=own: published(**own))
        encoding = Encoding.for_checkpoint(tmp_path, vocab_size)
        (token,) = own.values()
        assert encoding.specials["<|mine|>"] == token
        assert encoding.special_name(token) == "<|mine|>"
        assert encoding.vocab_size <= vocab_size
        with pytest.raises(VocabularyError, match=f"has ids up to {token}, but the model has {token} tokens"):
            Encoding.for_checkpoint(tmp_path, token)


def test_second_name_of_a_token_of_the_format_is_none(monkeypatch, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr("gptoss.harmony.encoding.read_tokenizer_json", lambda path: published(**{"<|im_end|>": 200007}))
    assert Encoding.for_checkpoint(tmp_path, 201088) is Encoding.o200k_harmony()


def test_tokenizer_without_the_tokens_of_the_format_is_named(monkeypatch, tmp_path):
    encoding = Encoding.o200k_harmony()
    other = encoding.with_specials({"<|im_start|>": 199999, "<|start|>": 200000})
    (tmp_path / "tokenizer.json").write_text(json.dumps({}))
    monkeypatch.setattr(Encoding, "from_tokenizer_json", lambda path: other)
    with pytest.raises(VocabularyError, match=r"tokenizer\.json has no special token <\|end\|>: it is not the"):
        Encoding.for_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html>", "is a web page"),
        (b"<Error/>", "is a web page"),
        (b"Entry not found", "is not JSON .* download it again"),
    ],
)
def test_what_a_download_left_in_place_of_the_tokenizer_is_named(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(VocabularyError, match=message):
        Encoding.for_checkpoint(tmp_path)
