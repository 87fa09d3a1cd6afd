"""Thousands of seeded mutations of a `tokenizer.json`: each ends in a typed error or in the right tokenizer.

Right is what the tokenizers library makes of the same file; where it refuses a file that is accepted here, encoding and
decoding must at least give every text back.
"""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from gptoss.harmony import Encoding, EncodingError, HarmonyError, VocabularyError, o200k

MUTANTS = 2000
SPECIALS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]
TEXTS = [
    "The quick brown fox jumps over the lazy dog, 12345 times.\n\n  And then? It's   done!\t",
    "na\u00efve caf\u00e9 \u4f60\u597d \U0001f469\u200d\U0001f680 \u0645\u0631\u062d\u0628\u0627 \r\n\r\n x = [1, 2];",
    "aaaaaaaaaaaaaaaa      bbbb\n\n\n",
]
NASTY: list[Any] = [
    *(0, 1, -1, 255, 256, 1 << 20, 1 << 31, 1 << 63, 10**30, 0.5, -1e300),
    *(None, True, False, "", "a", " ", "a b", "\u0120", "\ud800", "\x1b[2J", "x" * 3000, "\u0100\u0101"),
    *([], {}, [[]], ["a"], ["a", "b"], ["a", "b", "c"], {"a": 1}, [None] * 9),
    *(
        "BPE",
        "WordPiece",
        "ByteLevel",
        "Split",
        "Sequence",
        "Isolated",
        "Removed",
        "(a+)+$",
        "[",
        ".",
        r"\p{L}+|\P{L}+",
    ),
]


@pytest.fixture(scope="module")
def original() -> bytes:
    """A small tokenizer of the form of gpt-oss's, learnt on this file and the texts."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(o200k.PATTERN), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIALS,
        show_progress=False,
    )
    model.train_from_iterator([*TEXTS, Path(__file__).read_text(encoding="utf-8")], trainer)
    return model.to_str().encode()


def places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Change, remove, rename or exchange a few values, most of them outside of the long lists."""
    root = json.loads(content)
    vocab, merges = root["model"]["vocab"], root["model"]["merges"]
    anywhere = places(root)
    long_lists = {id(vocab), id(merges), *map(id, merges)}
    structure = [place for place in anywhere if id(place[0]) not in long_lists]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        parent, key = rng.choice(structure if rng.random() < 0.7 else anywhere)
        other, other_key = rng.choice(anywhere)
        try:
            match rng.randrange(6):
                case 0:
                    del parent[key]
                case 1 if isinstance(parent, dict):
                    parent[rng.choice([f"{key}x", "a", "\u0120"])] = parent.pop(key)
                case 2:
                    parent[key], other[other_key] = other[other_key], parent[key]
                case 3 if isinstance(parent, list):
                    parent.insert(rng.randrange(len(parent) + 1), parent[key])
                case 4:
                    rng.shuffle(merges)
                case _:
                    parent[key] = rng.choice(NASTY)
        except (KeyError, IndexError):
            continue  # an earlier change removed that place
    try:
        return json.dumps(root).encode()
    except (ValueError, RecursionError):  # an exchange put a value into itself
        return content


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, remove, repeat or insert a few bytes, or cut the rest off."""
    out = bytearray(content)
    at = rng.randrange(len(out))
    match rng.randrange(6):
        case 0:
            out[at] ^= 1 << rng.randrange(8)
        case 1:
            del out[at : at + rng.choice([1, 2, 8, 64])]
        case 2:
            out[at:at] = out[at : at + rng.choice([1, 8, 64])]
        case 3:
            out[at:at] = rng.choice([b"[" * 5000, b'{"a":' * 99999, b"9" * 5000, b"NaN", b"\xff", b'"\\ud800"'])
        case 4:
            del out[at:]
        case 5:
            out[at] = rng.choice(b'\0"{}[],:0123456789')
    return bytes(out)


def library_ids(path: Path) -> list[list[int]] | None:
    """What the tokenizers library makes of the texts; None: it refuses the file."""
    try:
        library = tokenizers.Tokenizer.from_file(str(path))
        return [library.encode(text, add_special_tokens=False).ids for text in TEXTS]
    except BaseException as error:
        # Its panics are no Exception.
        if isinstance(error, KeyboardInterrupt):
            raise
        return None


def compare(path: Path) -> str:
    """Load the mutant; how it ended."""
    try:
        encoding = Encoding.from_tokenizer_json(path)
        ids = [encoding.encode(text) for text in TEXTS]
    except VocabularyError as error:
        # Names of the file's own making are cut short.
        return "VocabularyError" if len(str(error)) < 500 else f"a message of {len(str(error))} characters"
    except EncodingError:
        return "EncodingError"
    assert [encoding.decode(each) for each in ids] == TEXTS
    assert all(0 <= token < encoding.vocab_size for each in ids for token in each)
    assert not any(encoding.is_special(token) for each in ids for token in each)
    for name, token in encoding.specials.items():
        assert encoding.special(name) == token
        encoding.token_bytes(token)
    # Text that looks like a special token becomes one there, and never here.
    if any(name in text for name in encoding.specials for text in TEXTS):
        return "right, its specials in the text"
    expected = library_ids(path)
    if expected is None:
        return "right, refused by the library"
    assert ids == expected
    return "right"


def test_every_mutant_ends_in_a_typed_error_or_the_right_tokenizer(original, tmp_path, capfd):
    rng = random.Random(7)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(original)
    assert compare(path) == "right"
    outcomes: Counter[str] = Counter()
    for number in range(MUTANTS):
        mutant = (mutate_json if rng.random() < 0.7 else mutate_bytes)(original, rng)
        path.write_bytes(mutant)
        try:
            outcomes[compare(path)] += 1
        except (Exception, HarmonyError) as error:
            raise AssertionError(f"mutant {number}: {type(error).__name__}: {error}") from error
    with capfd.disabled():
        print(f"\n{MUTANTS} mutants of a tokenizer.json: {dict(outcomes.most_common())}")
    assert outcomes.total() == MUTANTS
    assert outcomes["VocabularyError"] >= MUTANTS / 3
    assert outcomes["right"] >= MUTANTS / 10
