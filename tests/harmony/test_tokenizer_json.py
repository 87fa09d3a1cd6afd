"""Encodings from ``tokenizer.json``, against the tokenizers library on the same file."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings, strategies as st

from gptoss.harmony import Encoding, EncodingError, Message, VocabularyError, o200k, parse, render_message
from gptoss.harmony.long_runs import CL100K_PATTERN, GPT2_PATTERN, KNOWN_PATTERNS
from gptoss.harmony.tokenizer_json import MAX_FILE_BYTES, MAX_IDS, byte_alphabet

Json = dict[str, Any]
SPECIALS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]
ALPHABET = byte_alphabet()
OWN_PATTERN = r"[0-9]| ?[A-Za-z]{1,24}(?: (?=[0-9]))?| ?[^A-Za-z0-9 \t\r\n]{1,12}|[\r\n]{1,12}|[ \t]{1,24}"
DIGIT_PATTERN = o200k.PATTERN.replace("{1,3}", "")


def pre_tokenizer(pattern: str) -> Json:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


def spelled(data: bytes) -> str:
    return "".join(ALPHABET[byte] for byte in data)


def tokenizer_json(vocab: dict[str, int], merges: list[Any], pattern: str = o200k.PATTERN) -> Json:
    first = max(vocab.values()) + 1
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": first + index, "content": name, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for index, name in enumerate(SPECIALS)
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer(pattern),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


def bytes_and(*tokens: bytes) -> dict[str, int]:
    return {spelled(token): index for index, token in enumerate([*(bytes([byte]) for byte in range(256)), *tokens])}


@pytest.fixture(scope="module")
def trained() -> Json:
    """A vocabulary that the tokenizers library learnt on this file: for each token one pair, its ids not ranks."""
    from tokenizers import decoders, models, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(o200k.PATTERN), "isolated")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [split, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIALS, initial_alphabet=sorted(ALPHABET.values()), show_progress=False
    )
    tokenizer.train_from_iterator([Path(__file__).read_text(encoding="utf-8")] * 3, trainer)
    data: Json = json.loads(tokenizer.to_str())
    return data


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Json], tuple[Encoding, tokenizers.Tokenizer]]:
    def load(data: Json) -> tuple[Encoding, tokenizers.Tokenizer]:
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return Encoding.from_tokenizer_json(path), tokenizers.Tokenizer.from_file(str(path))

    return load


@pytest.fixture(scope="module")
def both(trained: Json, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoding, tokenizers.Tokenizer]:
    path = tmp_path_factory.mktemp("trained") / "tokenizer.json"
    path.write_text(json.dumps(trained), encoding="utf-8")
    return Encoding.from_tokenizer_json(path), tokenizers.Tokenizer.from_file(str(path))


snippets = st.sampled_from(
    [
        *Path(__file__).read_text(encoding="utf-8").splitlines(),
        "\u1e9e ß\u017fs'S'\u017f",
        "'LL'll x'D",
        "\n\n \n",
        "Ⅷ½ ٣४",
    ]
)
texts = st.text(max_size=30) | st.text(" \n\ta'sS1é\u0301/-\x85\x1c\u3000", max_size=30) | snippets


@given(text=texts)
@settings(max_examples=300)
def test_ids_are_those_of_the_tokenizers_library(text, both):
    ours, theirs = both
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False).ids or any(name in text for name in SPECIALS)
    assert ours.decode(ids) == text


def test_special_tokens_are_taken_by_name(both, trained):
    ours, theirs = both
    for name in SPECIALS:
        assert ours.special(name) == theirs.token_to_id(name) == trained["model"]["vocab"][name]
    assert ours.vocab_size == 900
    message = Message.assistant("hi", channel="final")
    prompt = len([ours.special("<|start|>"), *ours.encode("assistant")])
    assert parse(render_message(message, ours)[prompt:], ours) == ((message,), ())


@pytest.mark.parametrize("pattern", [*KNOWN_PATTERNS, OWN_PATTERN])
def test_patterns(pattern, trained, load):
    ours, theirs = load(trained | {"pre_tokenizer": pre_tokenizer(pattern)})
    generator = random.Random(0)
    letters = "aZé中1٣½Ⅷ's\u017fK \n\r\t\x0b\x1c\x85\xa0\u2028\u3000-/.\u0301\u200d\U0001f600ǅʰª\u180e\ufeff"
    for _ in range(1500):
        text = "".join(generator.choices(letters, k=generator.randrange(12)))
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, ascii(text)


def test_a_byte_level_that_splits_by_itself(trained, load):
    alone = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    ours, theirs = load(trained | {"pre_tokenizer": alone})
    split, _ = load(trained | {"pre_tokenizer": pre_tokenizer(GPT2_PATTERN)})
    for text in ("I'll go,  there's 12345!\n\n ok", "don't  "):
        assert ours.encode(text) == split.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_merges_may_be_strings_or_lists(trained, load):
    merges = trained["model"]["merges"]
    assert isinstance(merges[0], list)
    joined = trained | {"model": trained["model"] | {"merges": [" ".join(pair) for pair in merges]}}
    text = Path(__file__).read_text(encoding="utf-8")
    assert load(joined)[0].encode(text) == load(trained)[0].encode(text)


def test_ids_need_not_be_ranks(trained, load):
    vocab = trained["model"]["vocab"]
    words = [word for word in vocab if word not in SPECIALS]
    shuffled = random.Random(1).sample([vocab[word] for word in words], len(words))
    data = trained | {"model": trained["model"] | {"vocab": vocab | dict(zip(words, shuffled, strict=True))}}
    ours, theirs = load(data)
    text = Path(__file__).read_text(encoding="utf-8").replace("<|", "")
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.decode(ours.encode(text)) == text


def test_a_pair_that_never_meets_makes_no_token(load):
    """``abc`` is there, but b and c are joined first, and a and bc are no pair; tiktoken alone would join them."""
    data = tokenizer_json(bytes_and(b"bc", b"ab", b"abc"), [["b", "c"], ["a", "b"], ["ab", "c"]], CL100K_PATTERN)
    ours, theirs = load(data)
    for text in ("abc", "ab", "xabc", "abcc"):
        assert ours.encode(text) == theirs.encode(text).ids
    assert ours.encode("abc") == [ord("a"), 256]
    assert ours.decode([258]) == "abc"


def test_a_token_that_no_merge_makes(load):
    ours, theirs = load(tokenizer_json(bytes_and(b"ab"), []))
    assert ours.encode("ab") == theirs.encode("ab").ids == [ord("a"), ord("b")]


def test_tokens_too_long_to_work_out_are_refused_at_once(load):
    """A small file could otherwise take hours."""
    pairs = [["a" * length, "a"] for length in range(1, 1000)]
    data = tokenizer_json(bytes_and(*(b"a" * length for length in range(2, 1001))), pairs)
    with pytest.raises(VocabularyError, match="its tokens are too long to derive their merge ranks"):
        load(data)
    fewer = tokenizer_json(bytes_and(*(b"a" * length for length in range(2, 101))), pairs[:99])
    ours, theirs = load(fewer)
    assert ours.encode("a" * 250) == theirs.encode("a" * 250).ids


@st.composite
def merge_lists(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Merges of any order: pairs that never meet, tokens made in two ways, pairs before those that make their parts."""
    tokens = [b"a", b"b", b"c"]
    pairs: list[tuple[bytes, bytes]] = []
    for _ in range(draw(st.integers(1, 10))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if pair not in pairs and len(pair[0] + pair[1]) < 9:
            pairs.append(pair)
            if pair[0] + pair[1] not in tokens:
                tokens.append(pair[0] + pair[1])
    if draw(st.booleans()):
        return pairs
    return [*draw(st.permutations(pairs)), *draw(st.lists(st.sampled_from(pairs), max_size=2))]


@given(pairs=merge_lists(), words=st.lists(st.text("abc", max_size=16), min_size=1, max_size=6))
@settings(max_examples=100)
def test_any_list_of_merges_is_honoured_exactly(pairs, words, tmp_path_factory):
    tokens = list(dict.fromkeys(left + right for left, right in pairs))
    data = tokenizer_json(bytes_and(*tokens), [[left.decode(), right.decode()] for left, right in pairs])
    path = tmp_path_factory.getbasetemp() / "merges.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    ours, theirs = Encoding.from_tokenizer_json(path), tokenizers.Tokenizer.from_file(str(path))
    for word in words:
        assert ours.encode(word) == theirs.encode(word).ids


# gpt-oss's own file


def _merges_of_o200k() -> list[list[str]]:
    """Every split of a token into two, in the order of transformers' converter from tiktoken."""
    vocabulary = o200k.load_vocabulary()
    merges: list[list[str]] = []
    for token in vocabulary:
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [cut for cut in cuts if cut[0] in vocabulary and cut[1] in vocabulary]
        known.sort(key=lambda cut: (vocabulary[cut[0]], vocabulary[cut[1]]))
        merges += [[spelled(left), spelled(right)] for left, right in known]
    return merges


@pytest.mark.long
def test_the_constants_of_the_shipped_vocabulary():
    """What a tokenizer.json of o200k_harmony is known by follows from the vocabulary."""
    vocabulary = o200k.load_vocabulary()
    words = {spelled(token): rank for token, rank in vocabulary.items()}
    merges = _merges_of_o200k()
    assert len(vocabulary) == o200k.ORDINARY_SIZE
    assert o200k._sha256(list(words)) == o200k.WORDS_SHA256
    assert len(merges) == o200k.MERGES
    assert o200k._sha256([" ".join(pair) for pair in merges]) == o200k.MERGES_SHA256


@pytest.mark.long
def test_what_is_taken_for_the_shipped_vocabulary(o200k_json):
    words, merges = o200k_json["model"]["vocab"], o200k_json["model"]["merges"]
    first, second = list(words)[:2]
    assert o200k.is_byte_level_form(words, set(), merges)
    # Another order for the same token, special tokens among the words, strings for lists.
    swapped = [merges[0], merges[2], merges[1], *merges[3:]]
    assert o200k.is_byte_level_form(words | {"<|end|>": 200007}, {200007}, [" ".join(pair) for pair in swapped])
    for other in (
        [merges[1], *merges[1:]],
        [merges[-1], *merges[1:-1], merges[0]],
        [["Ġ", "☃"], *merges[1:]],
        [["Ġ", "Ġ", "Ġ"], *merges[1:]],
        [3, *merges[1:]],
        merges[1:],
    ):
        assert not o200k.is_byte_level_form(words, set(), other)
    for change_of_words in (
        {first: words[second], second: words[first]},
        {list(words)[-1]: 200007},
        {first: None},
        {"another": []},
    ):
        assert not o200k.is_byte_level_form(words | change_of_words, {1}, merges)


@pytest.fixture(scope="module")
def o200k_json() -> Json:
    """The file that the gpt-oss models were published with, its keys in their order too."""
    words = {spelled(token): rank for token, rank in o200k.load_vocabulary().items()}
    usual = tokenizer_json(words, _merges_of_o200k())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    settings = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    model = {"type": "BPE", **settings, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True}
    return {
        **{"version": "1.0", "truncation": None, "padding": None},
        "added_tokens": [{"id": token, "content": name, **flags} for name, token in _hub_specials()],
        **{key: usual[key] for key in ("normalizer", "pre_tokenizer")},
        "post_processor": usual["decoder"] | {"trim_offsets": False},
        "decoder": usual["decoder"],
        "model": model | {key: usual["model"][key] for key in ("vocab", "merges")},
    }


def _hub_specials() -> list[tuple[str, int]]:
    named = {**o200k.NAMED_TOKENS, "<|endofprompt|>": 200018}
    names = {token: name for name, token in named.items()}
    return [(names.get(token, f"<|reserved_{token}|>"), token) for token in range(199998, 200019)]


def test_the_published_file_is_known_by_its_hash(o200k_json, tmp_path, monkeypatch):
    data = json.dumps(o200k_json, ensure_ascii=False, indent=2).encode()
    assert o200k.is_published_tokenizer_json(data)
    assert not o200k.is_published_tokenizer_json(data[:-1] + b" ")
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    monkeypatch.setattr("gptoss.harmony.tokenizer_json.json.loads", lambda _: pytest.fail("it was parsed"))
    assert Encoding.from_tokenizer_json(path) is Encoding.o200k_harmony()


@pytest.mark.long
def test_gpt_oss_own_file_is_the_shipped_encoding(o200k_json, load):
    """As another program would write it: not the published bytes, but all they say."""
    ours, theirs = load(o200k_json)
    assert ours is Encoding.o200k_harmony()
    assert ours.special_name(200018) == "<|reserved_200018|>"
    text = Path(__file__).read_text(encoding="utf-8").replace("<|", "")
    assert ours.encode(text) == theirs.encode(text).ids
    # Other special tokens: the same text, those tokens.
    o200k_json["added_tokens"][8]["id"], o200k_json["added_tokens"][9]["id"] = 200007, 200006
    other, _ = load(o200k_json)
    assert other.special("<|start|>") == 200007
    assert other.encode(text) == ours.encode(text)


# What is refused


def change(data: Json, place: str, value: Any) -> Json:
    copy: Json = json.loads(json.dumps(data))
    *parents, last = [int(each) if each.isdigit() else each for each in place.split(".")]
    inner: Any = copy
    for each in parents:
        inner = inner[each]
    inner[last] = value
    return copy


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ("model.type", "WordPiece", "not BPE"),
        ("model.dropout", 0.1, "model.dropout"),
        ("model.byte_fallback", True, "model.byte_fallback"),
        ("model.end_of_word_suffix", "</w>", "model.end_of_word_suffix"),
        ("model.vocab", [], "model.vocab is not a JSON object"),
        ("model.vocab.a", -1, "not an id"),
        ("model.vocab.a", MAX_IDS, "not an id"),
        ("model.vocab.a", True, "not an id"),
        ("model.vocab.a", 20, "same id"),
        ("model.vocab.☃", 5000, "not a byte-level token"),
        ("model.vocab." + "a" * 2000, 5000, "2000 bytes"),
        ("model.merges", {}, "model.merges is not a JSON list"),
        ("model.merges.0", "abc", r"model.merges\[0\] is not a pair"),
        ("model.merges.0", ["a", 1], r"model.merges\[0\] is not a pair"),
        ("model.merges.0", ["q", "Z"], "not in the vocabulary"),
        ("model.ignore_merges", True, "model.ignore_merges"),
        ("normalizer", {"type": "NFC"}, "normalizer changes the text"),
        ("decoder", {"type": "WordPiece"}, "decoder"),
        ("pre_tokenizer", None, "pre_tokenizer"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer"),
        ("pre_tokenizer.pretokenizers.1.add_prefix_space", True, "add_prefix_space"),
        ("pre_tokenizer.pretokenizers.1.use_regex", True, "pre_tokenizer"),
        ("pre_tokenizer.pretokenizers.0.behavior", "Removed", "behavior"),
        ("pre_tokenizer.pretokenizers.0.invert", True, "invert"),
        ("pre_tokenizer.pretokenizers.0.pattern", {"String": " "}, "no Regex"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", r"\w+|.", "read differently"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", r"(?i:ss)|x", "read differently"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", r"a++|x", "read differently"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", r"[a&&b]", "read differently"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", "(a", "cannot be built"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", "a" * 3000, "read differently"),
        ("added_tokens", {}, "added_tokens is not a JSON list"),
        ("added_tokens.0", 1, "added_tokens"),
        ("added_tokens.0.special", False, "not special"),
        ("added_tokens.0.lstrip", True, "text around"),
        ("added_tokens.0.content", "", "no content"),
        ("added_tokens.0.content", "<|end|>", "added twice"),
        ("added_tokens.0.id", None, "not an id"),
        ("added_tokens.0.id", 1, "share an id"),
        ("added_tokens.0.id", 8, "lets text become a special token"),
    ],
)
def test_what_is_not_honoured_exactly_is_refused(place, value, what, trained, load):
    if place == "model.ignore_merges":  # honoured, but not beside a token that no merge makes
        trained = change(trained, "model.vocab.qZ", 5000)
    with pytest.raises(VocabularyError, match=what) as caught:
        load(change(trained, place, value))
    assert "tokenizer.json" in str(caught.value)


def test_ignore_merges_is_honoured_where_it_changes_nothing(trained, load):
    ours, theirs = load(change(trained, "model.ignore_merges", True))
    assert ours.encode("hello there") == theirs.encode("hello there").ids


def test_a_vocabulary_without_some_byte_is_refused(load):
    vocab = bytes_and()
    del vocab[spelled(b"\xff")]
    with pytest.raises(VocabularyError, match="no token for the byte 255"):
        load(tokenizer_json(vocab, []))


def test_merges_that_make_a_special_token_are_refused(load):
    data = tokenizer_json(bytes_and(b"ab"), [["a", "b"]])
    data["added_tokens"][0] |= {"content": "ab", "id": 256}
    with pytest.raises(VocabularyError, match="lets text become a special token"):
        load(data)


def test_text_that_the_pattern_leaves_out_is_refused(trained, load):
    ours, theirs = load(trained | {"pre_tokenizer": pre_tokenizer("[a-z]+| ")})
    assert ours.encode("some words") == theirs.encode("some words").ids
    with pytest.raises(EncodingError, match="leaves out"):
        ours.encode("some Words")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot be read"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "the file is not a JSON object"),
        (b"{}", "model is not a JSON object"),
        (b"[" * 500_000, "nested too deeply"),
    ],
)
def test_files_that_are_no_tokenizer(content, what, tmp_path):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VocabularyError, match=what):
        Encoding.from_tokenizer_json(path)


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(VocabularyError, match="more than"):
        Encoding.from_tokenizer_json(path)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_a_regular_file_is_read(make, tmp_path):
    """A pipe would be waited for, a device read without an end."""
    path = tmp_path / "tokenizer.json"
    make(path)
    with pytest.raises(VocabularyError, match=r"tokenizer\.json: is not a regular file"):
        Encoding.from_tokenizer_json(path)


@pytest.mark.parametrize("path", ["null\0character", "x" * 300])
def test_a_path_that_no_file_can_have(path):
    with pytest.raises(VocabularyError, match="cannot be read"):
        Encoding.from_tokenizer_json(path)
