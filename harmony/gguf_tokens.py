"""The tokenizer in a GGUF file, checked as a ``tokenizer.json`` is: it has the same words, merges and specials."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptoss.harmony import o200k
from gptoss.harmony.errors import VocabularyError
from gptoss.harmony.long_runs import GPT2_PATTERN
from gptoss.harmony.tokenizer_json import TokenizerJson, parse_tokenizer_json

# llama_token_type in llama.h
_CONTROL, _USER_DEFINED, _NORMAL = 3, 4, 1
_UNUSED = (2, 5)
_SPECIAL = re.compile(r"<\|[^|]{1,60}\|>")
_PATTERNS = {"gpt-4o": o200k.PATTERN, "gpt-2": GPT2_PATTERN}


def tokenizer_of_gguf(
    path: Path,
    model: str,
    splitting: str,
    words: Sequence[str],
    kinds: Sequence[int] | None,
    merges: Sequence[str] | None,
) -> TokenizerJson:
    """Check the vocabulary of a GGUF file.

    Args:
        path: of the file, for messages.
        model: the kind of tokenizer.
        splitting: llama.cpp's name of the splitting pattern.
        words: the tokens by id.
        kinds: the kind of each token; None: names such as ``<|start|>`` are special.
        merges: pairs separated by a space; None: those of o200k, if the words are.

    Raises:
        VocabularyError: it is another kind of tokenizer, or not a sound one.
    """
    values = _values(path, model, splitting, words, kinds, merges)
    if merges is None:
        if values["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] != o200k.PATTERN or not o200k.is_words(
            list(values["model"]["vocab"])
        ):
            raise VocabularyError(f"{path}: the tokenizer has no merges")
        return TokenizerJson({each["content"]: each["id"] for each in values["added_tokens"]}, None)
    return parse_tokenizer_json(path, values)


def tokenizer_json_of_gguf(
    path: Path,
    model: str,
    splitting: str,
    words: Sequence[str],
    kinds: Sequence[int] | None,
    merges: Sequence[str] | None,
) -> dict[str, Any] | None:
    """Return the content of a ``tokenizer.json`` with the vocabulary of a GGUF file; None: the file has no merges.

    Args: as ``tokenizer_of_gguf``.

    Raises:
        VocabularyError: as ``tokenizer_of_gguf``.
    """
    tokenizer_of_gguf(path, model, splitting, words, kinds, merges)
    return None if merges is None else _values(path, model, splitting, words, kinds, merges)


def _values(
    path: Path,
    model: str,
    splitting: str,
    words: Sequence[str],
    kinds: Sequence[int] | None,
    merges: Sequence[str] | None,
) -> dict[str, Any]:
    if model != "gpt2":
        raise VocabularyError(f"{path}: the tokenizer is {ascii(model)[:60]}, not the byte-level BPE of gpt-oss models")
    pattern = _PATTERNS.get(splitting)
    if pattern is None:
        raise VocabularyError(
            f"{path}: the tokenizer splits text as {ascii(splitting)[:60]}; gpt-oss models split it as 'gpt-4o'"
        )
    if kinds is not None and len(kinds) != len(words):
        raise VocabularyError(f"{path}: the tokenizer has {len(words)} tokens, but the kinds of {len(kinds)}")
    vocab: dict[str, int] = {}
    specials: list[dict[str, Any]] = []
    for token, word in enumerate(words):
        kind = (_CONTROL if _SPECIAL.fullmatch(word) else _NORMAL) if kinds is None else kinds[token]
        if kind in _UNUSED:
            continue
        if kind in (_CONTROL, _USER_DEFINED):
            specials.append(
                {"content": word, "id": token, "special": kind == _CONTROL or bool(_SPECIAL.fullmatch(word))}
            )
        elif kind != _NORMAL:
            raise VocabularyError(f"{path}: the token {token} is of the kind {kind}, which is not supported")
        elif word in vocab:
            raise VocabularyError(f"{path}: the tokens {vocab[word]} and {token} are the same")
        else:
            vocab[word] = token
    whole = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [each | whole for each in specials],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes_]},
        "post_processor": bytes_,
        "decoder": bytes_,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [] if merges is None else list(merges),
        },
    }
