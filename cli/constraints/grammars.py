"""Grammars for the content of messages, and the engine that holds sampling to them (llguidance)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptoss.cli.constraints.json_keys import JsonNames
from gptoss.harmony import Encoding
from gptoss.model.constraint import Masked
from gptoss.model.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor


_DEAD_END = "NoExtensionBias"  # llguidance's name for a text that nothing can follow


@dataclass(frozen=True)
class Grammar:
    """A grammar in the engine's own notation; `is_json` tells whether its texts are JSON."""

    source: str
    is_json: bool


def fits_nothing(source: str) -> bool:
    """Whether no text follows a grammar that the engine takes, as far as a text's first byte tells."""
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte"), source, log_level=0)
    matcher.compute_bitmask()
    return matcher.get_error().startswith(_DEAD_END)


class GrammarEngine:
    """Makes matchers for one vocabulary.

    Its table of 201,088 tokens takes most of a second to build. That is done once, when `warm` or the first matcher
    asks for it; llguidance lets other threads go on meanwhile.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self._tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._escapes: tuple[Tensor, Tensor]

    def warm(self) -> None:
        """Build all that matchers need, in a thread of its own."""
        # No daemon: at its exit Python would unwind the thread through the frames of llguidance, which aborts.
        threading.Thread(target=self._get_tokenizer, name="grammar engine").start()

    def matcher(self, grammar: Grammar) -> Matcher:
        """A new matcher at the beginning of a text.

        Raises:
            ConstraintError: the engine does not take the grammar, which was not checked before.
        """
        from llguidance import LLMatcher

        tokenizer = self._get_tokenizer()
        matcher = LLMatcher(tokenizer, grammar.source, log_level=0)
        if matcher.is_error():
            raise ConstraintError(f"the grammar engine does not take the grammar: {matcher.get_error()}")
        return Matcher(matcher, self.encoding, (JsonNames(), *self._escapes) if grammar.is_json else None)

    def _get_tokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                from llguidance import LLTokenizer

                vocabulary: Any = _Vocabulary(self.encoding)
                self._escapes = self._find_escapes()
                self._tokenizer = LLTokenizer(vocabulary, eos_token=sorted(self.encoding.stop_tokens))
            return self._tokenizer

    def _find_escapes(self) -> tuple[Tensor, Tensor]:
        """The tokens with a numbered escape in them, and those that can go on in an escape that has begun."""
        import torch

        texts = [(token, self.encoding.token_bytes(token)) for token in sorted(self.encoding.ordinary_tokens)]
        begin = [token for token, text in texts if b"\\u" in text]
        go_on = [token for token, text in texts if text[:1] in b"u0123456789abcdefABCDEF"]
        return torch.tensor(begin, dtype=torch.long), torch.tensor(go_on, dtype=torch.long)


class Matcher:
    """One text that grows token by token, and what may come next in it."""

    def __init__(self, matcher: LLMatcher, encoding: Encoding, names: tuple[JsonNames, Tensor, Tensor] | None) -> None:
        import torch

        self._matcher = matcher
        self._encoding = encoding
        self._names = names
        self._bits = torch.empty(-(-encoding.vocab_size // 32), dtype=torch.int32)

    def next(self) -> Masked:
        """What may come; of the special tokens only those that end a completion, where the text may end.

        Raises:
            ConstraintError: the engine has reached a limit of its own.
        """
        self._matcher.unsafe_compute_mask_ptr(self._bits.data_ptr(), self._bits.numel() * self._bits.element_size())
        if self._matcher.is_error():
            raise ConstraintError(f"the grammar engine cannot go on: {self._matcher.get_error()}")
        if self._names is not None:
            self._forbid_second_spellings(self._bits, *self._names)
        return Masked(self._bits)

    def accept(self, token_id: int) -> None:
        """A token of the text has come.

        Raises:
            ConstraintError: it does not follow the grammar, or the engine has reached a limit of its own.
        """
        if not self._matcher.consume_token(token_id):
            raise ConstraintError(f"the grammar engine cannot go on: {self._matcher.get_error()}")
        if self._names is not None:
            self._names[0].read(self._encoding.token_bytes(token_id))

    def _forbid_second_spellings(self, bits: Tensor, names: JsonNames, begin: Tensor, go_on: Tensor) -> None:
        tokens = go_on if names.in_escape else begin
        allowed = tokens[((bits[tokens >> 5] >> (tokens & 31)) & 1).bool()].tolist()
        for token in allowed:
            if not names.copy().read(self._encoding.token_bytes(token)):
                word, bit = divmod(token, 32)
                held = int(bits[word])
                bits[word] = held & 0x7FFFFFFF if bit == 31 else held & ~(1 << bit)


class _Vocabulary:
    """The vocabulary as llguidance reads it (its `TokenizerWrapper`)."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, encoding: Encoding) -> None:
        self._encode: Callable[[str], list[int]] = encoding.encode
        ordinary = encoding.ordinary_tokens
        ids = range(encoding.vocab_size)
        # An id that is no ordinary token is one that no text of a grammar can hold.
        self.tokens = [encoding.token_bytes(i) if i in ordinary else f"<|{i}|>".encode() for i in ids]
        self.special_token_ids = [i for i in ids if i not in ordinary]
        self.eos_token_id = min(encoding.stop_tokens)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
