"""o200k_harmony: its special tokens, its splitting pattern, and its shipped vocabulary.

Source of ids and names: ``openai-harmony`` 0.0.8. The vocabulary is OpenAI's public ``o200k_base`` (MIT).
"""

from __future__ import annotations

import hashlib
from binascii import a2b_base64
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from itertools import chain
from typing import Any

from gptoss.harmony.errors import VocabularyError

VOCABULARY_FILE = "o200k_base.tiktoken"
VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
VOCABULARY_SIZE = 201088
"""The number of ids, including reserved ones, as in the models' configs."""

# The same vocabulary as a tokenizer.json: the hash of its words, one per line; the number of its merges, which are all
# the ways to make a token of two others; the hash of the merges, one per line, in the order of transformers' converter.
# All are derived from the vocabulary; a test recomputes them.
WORDS_SHA256 = "0fc8da96e9c1e979d83a0ad79129255c04f3d2806273de8cba33bbc584ed23fe"
MERGES = 446189
MERGES_SHA256 = "fbb4bf8ec1a0dec603d12b4f4f7ff2939ff6ae1a8d94e6df0380b74b1c90f66f"

# The file published with gpt-oss-20b and gpt-oss-120b; a test reproduces it byte for byte.
PUBLISHED_TOKENIZER_JSON_BYTES = 27868174
PUBLISHED_TOKENIZER_JSON_SHA256 = "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3"

PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)

_NAMED = {
    199998: "startoftext",
    199999: "endoftext",
    200002: "return",
    200003: "constrain",
    200005: "channel",
    200006: "start",
    200007: "end",
    200008: "message",
    200012: "call",
}
ORDINARY_SIZE = min(_NAMED)
"""The number of ordinary tokens; their ids are 0, 1, 2, ..."""

NAMED_TOKENS: dict[str, int] = {f"<|{name}|>": token for token, name in _NAMED.items()}
"""The special tokens with a meaning."""

_SECOND_NAME = "<|endofprompt|>"  # of a reserved id, in the published tokenizer.json and in tiktoken

SPECIAL_TOKENS: dict[str, int] = {
    f"<|{_NAMED.get(token, f'reserved_{token}')}|>": token for token in range(ORDINARY_SIZE, VOCABULARY_SIZE)
}
"""All special tokens: the named ones, and a reserved one at every other id from the first named one on."""


def own_tokens(specials: Mapping[str, int]) -> dict[str, int]:
    """Return the special tokens that a model has beside the published ones; the named ids have no other names."""
    named = NAMED_TOKENS.values()
    return {
        name: token
        for name, token in specials.items()
        if name not in SPECIAL_TOKENS and name != _SECOND_NAME and token not in named
    }


def load_vocabulary() -> dict[bytes, int]:
    """Return the shipped vocabulary: bytes to rank, in the order of the ranks.

    Raises:
        VocabularyError: the file is missing from the package or was altered.
    """
    try:
        data = resources.files(__package__).joinpath("data", VOCABULARY_FILE).read_bytes()
    except OSError as error:
        raise VocabularyError(
            f"the vocabulary {VOCABULARY_FILE} is missing from the installation ({error}); reinstall gptoss"
        ) from error
    return parse_vocabulary(data)


def parse_vocabulary(data: bytes) -> dict[bytes, int]:
    """Parse the vocabulary file.

    Raises:
        VocabularyError: the data is not that of the shipped file.
    """
    digest = hashlib.sha256(data).hexdigest()
    if digest != VOCABULARY_SHA256:
        raise VocabularyError(
            f"the vocabulary {VOCABULARY_FILE} was altered (sha256 {digest}, not {VOCABULARY_SHA256}); reinstall gptoss"
        )
    # The hash matched, so the lines are "<base64> <rank>" for ranks 0, 1, 2, ... in this order.
    return {token: rank for rank, token in enumerate(map(a2b_base64, data.split()[::2]))}


def is_published_tokenizer_json(data: bytes) -> bool:
    """Whether these are the bytes of the ``tokenizer.json`` published with the gpt-oss models.

    Hashing takes a tenth of the time of parsing its half a million merges.
    """
    if len(data) != PUBLISHED_TOKENIZER_JSON_BYTES:
        return False
    return hashlib.sha256(data).hexdigest() == PUBLISHED_TOKENIZER_JSON_SHA256


def is_byte_level_form(vocab: Mapping[str, Any], specials: Collection[int], merges: Sequence[Any]) -> bool:
    """Whether the words and merges of a ``tokenizer.json`` are those of this vocabulary.

    A file converted from a tiktoken vocabulary lists every way to make a token of two others, in the order of the
    tokens made. So any two neighbours that join to a token are listed, and tiktoken merges exactly as listed.

    Args:
        vocab: the words and their ids, possibly with special tokens; values are unchecked.
        specials: the ids of special tokens.
        merges: the pairs, as lists or as strings separated by a space; values are unchecked.
    """
    try:
        if len(vocab) != ORDINARY_SIZE:
            vocab = {word: token for word, token in vocab.items() if token not in specials}
        words = sorted(vocab, key=vocab.__getitem__)
        if len(words) != ORDINARY_SIZE or len(merges) != MERGES or _sha256(words) != WORDS_SHA256:
            return False
        if [vocab[word] for word in words] != list(range(ORDINARY_SIZE)):
            return False
        # The words matched the hash, so none contains a space.
        pairs = merges if isinstance(merges[0], str) else list(map(" ".join, merges))
        return _sha256(pairs) == MERGES_SHA256 or _is_every_merge(pairs, vocab)
    except (TypeError, AttributeError, UnicodeEncodeError):
        return False


def is_words(words: Sequence[str]) -> bool:
    """Whether these are the words of this vocabulary, in the order of their ids."""
    try:
        return len(words) == ORDINARY_SIZE and _sha256(words) == WORDS_SHA256
    except UnicodeEncodeError:
        return False


def _is_every_merge(pairs: Sequence[str], vocab: Mapping[str, int]) -> bool:
    """Whether ``pairs`` are the expected ones, in any order among pairs that make the same token."""
    parts = [pair.split(" ") for pair in pairs]
    made = [vocab.get("".join(each), -1) for each in parts]
    return (
        len(set(pairs)) == MERGES
        and all(len(each) == 2 for each in parts)
        and set(chain.from_iterable(parts)) <= vocab.keys()
        and min(made) >= 0
        and made == sorted(made)
    )


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
