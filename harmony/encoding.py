"""Text to token ids and back. Special tokens are known by name; no id stands in the code.

Text never becomes a special token: ``encode`` knows none. Only ``encode_with_special`` reads ``<|start|>`` and the
like in a text as tokens, for tools whose input is a rendered prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Self

import tiktoken

from gptoss.harmony import o200k
from gptoss.harmony.errors import EncodingError
from gptoss.harmony.long_runs import KNOWN_PATTERNS, split_long_runs


class Special(StrEnum):
    """The special tokens that the format is made of (format guide, "Special Tokens"), and end-of-text."""

    START = "<|start|>"
    END = "<|end|>"
    MESSAGE = "<|message|>"
    CHANNEL = "<|channel|>"
    CONSTRAIN = "<|constrain|>"
    RETURN = "<|return|>"
    CALL = "<|call|>"
    END_OF_TEXT = "<|endoftext|>"


class BytePairs:
    """A byte-level BPE: text to ids of ordinary tokens.

    Args:
        ranks: the bytes of each token and its rank in merging; every single byte is a token.
        pattern: the regular expression that splits text into pieces before merging.
        ids: the id of each rank where ids are not ranks.

    Raises:
        EncodingError: tiktoken does not take the ranks or the pattern.
    """

    def __init__(self, ranks: dict[bytes, int], pattern: str, ids: Sequence[int] | None = None) -> None:
        try:
            self._tiktoken = tiktoken.Encoding("gptoss", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        except ValueError as error:
            raise EncodingError(f"the tokenizer cannot be built: {error}") from error
        self._pattern = pattern
        self._ids = ids
        # What a pattern does not match, tiktoken leaves out. The known ones match everything.
        self._lengths = None if pattern in KNOWN_PATTERNS else {rank: len(token) for token, rank in ranks.items()}

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; a lone surrogate, which no file can hold, is read as U+FFFD.

        Raises:
            EncodingError: the pattern leaves out some of the text, or tiktoken's regex engine gives up on it.
        """
        ranks: list[int] = []
        for part, is_piece in split_long_runs(text, self._pattern):
            ranks += self._encode_part(part, is_piece)
        if self._lengths is not None:
            size = len(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode())
            if sum(self._lengths[rank] for rank in ranks) != size:
                raise EncodingError("the tokenizer's splitting pattern leaves out some of the text")
        return ranks if self._ids is None else [self._ids[rank] for rank in ranks]

    def _encode_part(self, part: str, is_piece: bool) -> list[int]:
        try:
            if is_piece:
                return self._tiktoken._encode_single_piece(part)
            return self._tiktoken.encode_ordinary(part)
        except BaseException as error:
            # tiktoken's panics are no Exception; every other one (an interrupt) goes its way.
            if type(error).__name__ != "PanicException":
                raise
            raise EncodingError(f"the tokenizer cannot split a text of {len(part)} characters: {error}") from error


class Encoding:
    """A vocabulary with its special tokens.

    Args:
        name: what to call it in messages.
        pairs: the BPE of ordinary text.
        token_bytes: the bytes of each ordinary token by id; None where the id is none.
        specials: the special tokens' ids by name.
        vocab_size: the number of ids, those of no token included; by default one more than the highest.
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
        """Return the encoding of the gpt-oss models, built once a process from the shipped vocabulary.

        Raises:
            VocabularyError: the vocabulary in the package is missing or altered.
        """
        return _o200k_harmony()

    @classmethod
    def from_tokenizer_json(cls, path: str | Path) -> Encoding:
        """Return the encoding in a checkpoint's ``tokenizer.json``.

        Raises:
            VocabularyError: the file is not there, is no tokenizer, or asks for what is not honoured exactly.
        """
        from gptoss.harmony.tokenizer_json import load_tokenizer_json

        return load_tokenizer_json(Path(path))

    def with_specials(self, specials: Mapping[str, int]) -> Self:
        """Return the same encoding of text with other special tokens."""
        return type(self)(f"{self.name}, other specials", self._pairs, self._ordinary, specials)

    # Text to ids

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` as ordinary text, whatever it looks like."""
        return self._pairs.encode(text) if text else []

    def encode_with_special(self, text: str) -> list[int]:
        """Return the ids of ``text``, reading the names of special tokens in it as these tokens.

        For rendered prompts alone: text of a user, a file or a tool goes through ``encode``.
        """
        ids: list[int] = []
        for part in self._special_pattern.split(text):
            token = self._specials.get(part)
            ids += self.encode(part) if token is None else [token]
        return ids

    # Ids to text

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token; those of a special token are its name. Raise EncodingError for no token."""
        found = self._ordinary[token] if 0 <= token < len(self._ordinary) else None
        if found is not None:
            return found
        name = self._special_names.get(token)
        if name is None:
            raise EncodingError(f"{token} is no token of {self.name}")
        return name.encode()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ``ids``, special tokens as their names. Raise EncodingError for what is no token."""
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``, with U+FFFD for bytes that are no UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    # Special tokens

    def special(self, name: str) -> int:
        """Return the id of the special token ``name`` (``<|start|>``). Raise EncodingError where there is none."""
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
        """The special tokens' ids by name."""
        return dict(self._specials)

    @cached_property
    def stop_tokens(self) -> frozenset[int]:
        """The ids that end a generation: return, call and end-of-text, as far as the vocabulary has them."""
        names = (Special.RETURN, Special.CALL, Special.END_OF_TEXT)
        return frozenset(self._specials[name] for name in names if name in self._specials)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        # The longest first, should one name begin with another.
        names = sorted(self._specials, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, names))})" if names else r"(?!)")

    def __repr__(self) -> str:
        return f"<Encoding {self.name}, {self.vocab_size} ids>"


@cache
def _o200k_harmony() -> Encoding:
    ranks = o200k.load_vocabulary()
    pairs = BytePairs(ranks, o200k.PATTERN)
    return Encoding("o200k_harmony", pairs, tuple(ranks), o200k.SPECIAL_TOKENS, o200k.VOCABULARY_SIZE)
