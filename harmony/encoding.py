"""Text to token ids and back. Special tokens are looked up by name; no id is hard-coded.

Text never becomes a special token: ``encode`` knows none of them. Only ``encode_with_special`` reads names such as
``<|start|>`` as tokens, for tools whose input is a rendered prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Self

from gptoss.harmony import o200k
from gptoss.harmony.byte_pairs import BytePairs
from gptoss.harmony.errors import EncodingError, VocabularyError
from gptoss.harmony.gguf_tokens import tokenizer_of_gguf
from gptoss.harmony.tokenizer_json import TokenizerJson, read_tokenizer_json

TOKENIZER_FILE = "tokenizer.json"
"""Name of the tokenizer's file in a checkpoint's folder."""


class Special(StrEnum):
    """The special tokens of the format (format guide, "Special Tokens"), and end-of-text."""

    START = "<|start|>"
    END = "<|end|>"
    MESSAGE = "<|message|>"
    CHANNEL = "<|channel|>"
    CONSTRAIN = "<|constrain|>"
    RETURN = "<|return|>"
    CALL = "<|call|>"
    END_OF_TEXT = "<|endoftext|>"


_REQUIRED = tuple(each for each in Special if each is not Special.END_OF_TEXT)
_RESERVED = re.compile(r"<\|reserved_\d+\|>")


class Encoding:
    """A vocabulary with its special tokens.

    Args:
        name: for messages.
        pairs: the BPE of ordinary text.
        token_bytes: the bytes of each ordinary token by id; None where an id is not an ordinary token.
        specials: the ids of the special tokens by name.
        vocab_size: the number of ids, unused ones included; by default the highest id plus one.

    Raises:
        EncodingError: two tokens share an id.
    """

    def __init__(
        self,
        name: str,
        pairs: BytePairs,
        token_bytes: Sequence[bytes | None],
        specials: Mapping[str, int],
        vocab_size: int | None = None,
    ) -> None:
        self.name = name
        self._pairs = pairs
        self._ordinary = token_bytes
        self._specials = dict(specials)
        self._special_names = {token: text for text, token in self._specials.items()}
        if len(self._special_names) != len(self._specials):
            raise EncodingError(f"{name}: two special tokens share an id")
        for token, text in self._special_names.items():
            if token < len(token_bytes) and token_bytes[token] is not None:
                raise EncodingError(f"{name}: the special token {text} has the id {token} of ordinary text")
        needed = max(len(token_bytes), *(token + 1 for token in self._special_names), 0)
        self.vocab_size = needed if vocab_size is None else vocab_size

    @classmethod
    def o200k_harmony(cls) -> Encoding:
        """Return the encoding of the gpt-oss models, built once per process from the shipped vocabulary.

        Raises:
            VocabularyError: the vocabulary in the package is missing or altered.
        """
        return _o200k_harmony()

    @classmethod
    def for_checkpoint(cls, folder: str | Path, vocab_size: int | None = None) -> Encoding:
        """Return the encoding of a checkpoint: its own ``tokenizer.json``, or without one o200k_harmony.

        The file may be a symbolic link, as in the hub's cache. Where it leads is not checked.

        Args:
            folder: the checkpoint's folder.
            vocab_size: the model's number of token ids (``vocab_size`` in its ``config.json``), if known.

        Raises:
            VocabularyError: there is no such folder, the file cannot be used (see ``from_tokenizer_json``), the
                tokenizer has ids that the model does not have, or it looks like o200k_harmony but differs from it.
        """
        folder = Path(folder)
        path = folder / TOKENIZER_FILE
        if _has_tokenizer(folder):
            return cls.from_tokenizer_json(path)._checked(path, vocab_size)
        encoding = cls.o200k_harmony()
        if vocab_size is not None and vocab_size < encoding.vocab_size:
            raise VocabularyError(
                f"{path} is missing, and the model's {vocab_size} tokens are not gpt-oss's {encoding.vocab_size}: "
                "download this file too"
            )
        return encoding._checked(path, vocab_size)

    @classmethod
    def for_gguf(
        cls,
        path: Path,
        *,
        model: str,
        splitting: str,
        words: Sequence[str],
        kinds: Sequence[int] | None,
        merges: Sequence[str] | None,
        vocab_size: int | None = None,
    ) -> Encoding:
        """Return the encoding in a GGUF file; see `gptoss.harmony.gguf_tokens.tokenizer_of_gguf`.

        Args:
            path: of the file, for messages.
            model, splitting, words, kinds, merges: its vocabulary.
            vocab_size: the model's number of token ids, if known.

        Raises:
            VocabularyError: as ``for_checkpoint``.
        """
        file = tokenizer_of_gguf(path, model, splitting, words, kinds, merges)
        return cls._of_tokenizer(path, file)._checked(path, vocab_size)

    def _checked(self, path: Path, vocab_size: int | None) -> Encoding:
        """Return the encoding for a model of so many token ids.

        Raises:
            VocabularyError: as ``for_checkpoint``.
        """
        encoding = self
        difference = encoding._difference_from_o200k()
        if difference is not None:
            raise VocabularyError(
                f"{path}: looks like o200k_harmony, the tokenizer of gpt-oss, but {difference}: download it again"
            )
        if vocab_size is not None and encoding.vocab_size > vocab_size:
            # A model that was resized to its tokenizer has no rows for the reserved ids, which no file lists.
            encoding = encoding._without_reserved_from(vocab_size)
        if vocab_size is not None and encoding.vocab_size > vocab_size:
            raise VocabularyError(
                f"{path} has ids up to {encoding.vocab_size - 1}, but the model has {vocab_size} tokens: "
                "model and tokenizer are not of one checkpoint"
            )
        lacking = next((each for each in _REQUIRED if each not in encoding.specials), None)
        if lacking is not None:
            raise VocabularyError(
                f"{path} has no special token {lacking.value}: it is not the tokenizer of a gpt-oss model; download "
                "that of this model"
            )
        return encoding

    def _without_reserved_from(self, vocab_size: int) -> Encoding:
        """Return a copy without the reserved special tokens from an id on; itself if it has none."""
        kept = {
            name: token for name, token in self.specials.items() if token < vocab_size or not _RESERVED.fullmatch(name)
        }
        return self if len(kept) == len(self.specials) else type(self)(self.name, self._pairs, self._ordinary, kept)

    @classmethod
    def from_tokenizer_json(cls, path: str | Path) -> Encoding:
        """Return the encoding in a ``tokenizer.json``.

        Raises:
            VocabularyError: the file cannot be read, is not a regular file, is too large, is not a tokenizer, or uses
                a feature that is not supported exactly.
        """
        path = Path(path)
        return cls._of_tokenizer(path, read_tokenizer_json(path))

    @classmethod
    def _of_tokenizer(cls, path: Path, file: TokenizerJson) -> Encoding:
        try:
            return cls._of_file(path.name, file)
        except VocabularyError:
            raise
        except EncodingError as error:
            raise VocabularyError(f"{path}: {error}") from error

    @classmethod
    def _of_file(cls, name: str, file: TokenizerJson) -> Encoding:
        text = file.ordinary
        if text is not None:
            pairs = BytePairs(text.ranks, text.pattern, text.ids)
            return cls(name, pairs, text.token_bytes, file.specials)
        shipped = cls.o200k_harmony()
        if not o200k.NAMED_TOKENS.items() <= file.specials.items():
            return shipped.with_specials(file.specials)
        own = o200k.own_tokens(file.specials)
        others = {name: token for name, token in shipped.specials.items() if token not in own.values()}
        return shipped.with_specials(others | own) if own else shipped

    def with_specials(self, specials: Mapping[str, int]) -> Self:
        """Return a copy with other special tokens.

        Raises:
            EncodingError: two tokens share an id.
        """
        return type(self)(f"{self.name}, other specials", self._pairs, self._ordinary, specials)

    # Text to ids

    @property
    def is_prepared(self) -> bool:
        """Whether the tables that the first text needs are built."""
        return self._pairs.is_prepared

    def prepare(self) -> None:
        """Build the tables that the first text needs; of o200k_harmony in 0.25 s, in which no other thread can run."""
        self._pairs.prepare()

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` as ordinary text, whatever it looks like.

        Raises:
            EncodingError: the tokenizer's pattern does not match all of the text, or its regex engine fails on it.
        """
        return self._pairs.encode(text) if text else []

    def encode_with_special(self, text: str) -> list[int]:
        """Return the ids of ``text``, reading names of special tokens as these tokens.

        For rendered prompts only: text of a user, a file or a tool must go through ``encode``.
        """
        ids: list[int] = []
        for part in self._special_pattern.split(text):
            token = self._specials.get(part)
            ids += self.encode(part) if token is None else [token]
        return ids

    # Ids to text

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token; for a special token, its name.

        Raises:
            EncodingError: the id is not a token.
        """
        found = self._ordinary[token] if 0 <= token < len(self._ordinary) else None
        if found is not None:
            return found
        name = self._special_names.get(token)
        if name is None:
            raise EncodingError(f"{token} is not a token of {self.name}")
        return name.encode()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ``ids``, with special tokens as their names.

        Raises:
            EncodingError: an id is not a token.
        """
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``, with U+FFFD for bytes that are not UTF-8.

        Raises:
            EncodingError: an id is not a token.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    # Tokens

    def special(self, name: str) -> int:
        """Return the id of the special token ``name`` (``<|start|>``).

        Raises:
            EncodingError: there is no such token.
        """
        try:
            return self._specials[name]
        except KeyError:
            raise EncodingError(f"{self.name} has no special token {name}, which the harmony format needs") from None

    @cached_property
    def ordinary_tokens(self) -> frozenset[int]:
        """The ids of ordinary text."""
        return frozenset(token for token, text in enumerate(self._ordinary) if text is not None)

    def is_special(self, token: int) -> bool:
        """Whether ``token`` is a special token."""
        return token in self._special_names

    def special_name(self, token: int) -> str | None:
        """Return the name of a special token, or None for any other id."""
        return self._special_names.get(token)

    @property
    def specials(self) -> Mapping[str, int]:
        """The ids of the special tokens by name."""
        return dict(self._specials)

    @cached_property
    def stop_tokens(self) -> frozenset[int]:
        """The ids that end a generation: those of return, call and end-of-text that the vocabulary has."""
        names = (Special.RETURN, Special.CALL, Special.END_OF_TEXT)
        return frozenset(self._specials[name] for name in names if name in self._specials)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        # Longest first: one name may be a prefix of another.
        names = sorted(self._specials, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, names))})" if names else r"(?!)")

    def _difference_from_o200k(self) -> str | None:
        """Describe the first difference from o200k_harmony; None if there is none, or if this is another vocabulary.

        An encoding claims to be o200k_harmony if one of the format's special tokens has its id there.
        """
        if not o200k.NAMED_TOKENS.items() & self._specials.items():
            return None
        shipped = self.o200k_harmony()
        if self is shipped:
            return None
        for name, token in o200k.NAMED_TOKENS.items():
            found = self._specials.get(name)
            if found != token:
                is_what = "is missing" if found is None else f"has the id {found}, not {token}"
                return f"the special token {name} {is_what}"
        if self._pairs is shipped._pairs:
            return None  # further special tokens of its own
        for token in range(o200k.ORDINARY_SIZE):
            expected, actual = shipped.token_bytes(token), self._bytes_or_none(token)
            if actual != expected:
                return f"the token {token} is {'missing' if actual is None else ascii(actual)}, not {expected!a}"
        return "splits or merges text in another way"

    def _bytes_or_none(self, token: int) -> bytes | None:
        try:
            return self.token_bytes(token)
        except EncodingError:
            return None

    def __repr__(self) -> str:
        return f"<Encoding {self.name}, {self.vocab_size} ids>"


@cache
def _o200k_harmony() -> Encoding:
    ranks = o200k.load_vocabulary()
    pairs = BytePairs(ranks, o200k.PATTERN, are_sound=True)
    return Encoding("o200k_harmony", pairs, tuple(ranks), o200k.SPECIAL_TOKENS, o200k.VOCABULARY_SIZE)


def _has_tokenizer(folder: Path) -> bool:
    """Whether the folder has an entry of this name, a broken link included.

    Raises:
        VocabularyError: there is no such folder, or it cannot be read.
    """
    try:
        if not folder.is_dir():
            raise VocabularyError(f"there is no folder {folder}: name a folder with a checkpoint")
        path = folder / TOKENIZER_FILE
        return path.is_symlink() or path.exists()
    except OSError as error:
        raise VocabularyError(f"{folder} cannot be read: {error.strerror}") from error
