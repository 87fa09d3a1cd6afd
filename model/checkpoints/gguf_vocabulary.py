"""Reads the vocabulary in a GGUF file, as plain data. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gptoss.model.checkpoints.gguf_header import GgufArray, GgufError, Value, gguf_errors, read_header
from gptoss.model.config import MAX_VOCABULARY

_PREFIX = "tokenizer.ggml."


@dataclass(frozen=True)
class GgufVocabulary:
    """The vocabulary of a file; nothing of it is checked yet.

    Attributes:
        model: how text becomes tokens: `gpt2` is a byte-level BPE.
        splitting: llama.cpp's name of the pattern that splits text before merging.
        words: the tokens by id, bytes as the characters of GPT-2.
        kinds: the kind of each token, as `llama_token_type` has them; None: the file does not say.
        merges: pairs separated by a space; None: the file has none.
    """

    model: str
    splitting: str
    words: list[str]
    kinds: list[int] | None
    merges: list[str] | None


def read_vocabulary(path: Path) -> GgufVocabulary:
    """Read the vocabulary of a file, or of the first part of a split model.

    Raises:
        CheckpointError: the file cannot be read, is not a valid GGUF file, or has no vocabulary.
    """
    metadata = read_header(path).metadata
    with gguf_errors(path):
        words = _array(metadata, "tokens")
        if words is None:
            raise GgufError("has no vocabulary (tokenizer.ggml.tokens)")
        kinds, merges = _array(metadata, "token_type"), _array(metadata, "merges")
        return GgufVocabulary(
            model=_text(metadata, "model"),
            # Ollama's first files name none, or another one, and are read as gpt-oss's all the same.
            splitting="gpt-4o" if metadata.get("general.architecture") == "gptoss" else _text(metadata, "pre"),
            words=list(words.texts()),
            kinds=None if kinds is None else [int(kind) for kind in kinds.numbers()],
            merges=None if merges is None else list(merges.texts()),
        )


def _array(metadata: Mapping[str, Value], name: str) -> GgufArray | None:
    found = metadata.get(_PREFIX + name)
    if found is not None and not isinstance(found, GgufArray):
        raise GgufError(f"has a value that is no list as {_PREFIX}{name}")
    if found is not None and found.count > MAX_VOCABULARY:
        raise GgufError(f"has {found.count} entries in {_PREFIX}{name}; {MAX_VOCABULARY} are the most")
    return found


def _text(metadata: Mapping[str, Value], name: str) -> str:
    found = metadata.get(_PREFIX + name, "")
    if not isinstance(found, str):
        raise GgufError(f"has a value that is no text as {_PREFIX}{name}")
    return found
