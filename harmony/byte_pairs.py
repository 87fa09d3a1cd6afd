"""Byte-level BPE on tiktoken, for texts of any kind and length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import tiktoken

from gptoss.harmony.errors import EncodingError
from gptoss.harmony.long_runs import KNOWN_PATTERNS, split_long_runs


class BytePairs:
    """A byte-level BPE: text to ids of ordinary tokens.

    Args:
        ranks: the bytes of each token and its merge rank; must include every single byte.
        pattern: the regular expression that splits text into pieces before merging.
        ids: the id of each rank; by default the rank itself.
        are_sound: tiktoken is known to accept them, so that it need not be asked before there is a text.

    Raises:
        EncodingError: tiktoken rejects the ranks or the pattern.
    """

    def __init__(
        self, ranks: dict[bytes, int], pattern: str, ids: Sequence[int] | None = None, *, are_sound: bool = False
    ) -> None:
        self._ranks = ranks
        self._pattern = pattern
        self._ids = ids
        # tiktoken drops text that the pattern does not match. The known patterns match everything.
        self._lengths = None if pattern in KNOWN_PATTERNS else {rank: len(token) for token, rank in ranks.items()}
        if not are_sound:
            self.prepare()

    @property
    def is_prepared(self) -> bool:
        """Whether the tables are built."""
        return "_tiktoken" in self.__dict__

    def prepare(self) -> None:
        """Build the tables, which takes 0.25 s for 200,000 tokens, in which no other thread can run.

        Raises:
            EncodingError: tiktoken rejects the ranks or the pattern.
        """
        _ = self._tiktoken

    @cached_property
    def _tiktoken(self) -> tiktoken.Encoding:
        try:
            return tiktoken.Encoding("gptoss", pat_str=self._pattern, mergeable_ranks=self._ranks, special_tokens={})
        except ValueError as error:
            raise EncodingError(f"the tokenizer cannot be built: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; a lone surrogate is read as U+FFFD.

        Raises:
            EncodingError: the pattern does not match all of the text, or tiktoken's regex engine fails on it.
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
            # tiktoken's panics are not Exceptions. Let everything else (KeyboardInterrupt) pass.
            if type(error).__name__ != "PanicException":
                raise
            raise EncodingError(f"the tokenizer cannot split a text of {len(part)} characters: {error}") from error
