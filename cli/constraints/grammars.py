"""Grammars for the content of messages, and the matchers that enforce them (llguidance)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gptoss.cli.constraints.property_names import PropertyNames
from gptoss.harmony import Encoding
from gptoss.model.constraint import LogitMask
from gptoss.model.constraint_description import ContentGrammar, JsonSchema
from gptoss.model.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor


_DEAD_END = "NoExtensionBias"  # llguidance's name for a text that nothing can follow


@dataclass(frozen=True)
class Grammar:
    """A grammar that llguidance accepts.

    Attributes:
        source: llguidance's own notation of it.
        content: the same grammar for other engines.
    """

    source: str
    content: ContentGrammar

    @property
    def is_json(self) -> bool:
        """Whether its texts are JSON."""
        return isinstance(self.content, JsonSchema)


def is_unsatisfiable(source: str) -> bool:
    """Return whether no text follows a grammar that llguidance accepts, judged by the first byte of a text."""
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte"), source, log_level=0)
    matcher.compute_bitmask()
    return matcher.get_error().startswith(_DEAD_END)


class GrammarEngine:
    """Makes matchers for one vocabulary. Threads may share it.

    llguidance's table of 201,088 tokens takes most of a second to build. `warm` or the first matcher builds it once;
    llguidance lets other threads run meanwhile.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self._tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._is_warming = False
        self._escapes: _Escapes

    def warm(self) -> None:
        """Build what matchers need in a thread of its own; return at once."""
        if self._is_warming:
            return
        self._is_warming = True
        # No daemon: at exit Python would unwind the thread through the frames of llguidance, which aborts.
        threading.Thread(target=self._get_tokenizer, name="grammar engine").start()

    def matcher(self, grammar: Grammar) -> Matcher:
        """Return a new matcher at the beginning of a text.

        Raises:
            ConstraintError: llguidance does not accept the grammar.
        """
        return self.matcher_of(grammar.source, is_json=grammar.is_json)

    def matcher_of(self, source: str, *, is_json: bool = False) -> Matcher:
        """Return a new matcher for a grammar in llguidance's notation; see `matcher`."""
        from llguidance import LLMatcher

        tokenizer = self._get_tokenizer()
        matcher = LLMatcher(tokenizer, source, log_level=0)
        if matcher.is_error():
            raise ConstraintError(f"the grammar engine does not accept the grammar: {matcher.get_error()}")
        return Matcher(matcher, self.encoding, (PropertyNames(), self._escapes) if is_json else None)

    def _get_tokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._escapes = _Escapes(self.encoding)
                self._tokenizer = llguidance_tokenizer(self.encoding)
            return self._tokenizer


class _Escapes:
    """The tokens of a vocabulary that matter to numbered escapes.

    Attributes:
        begin: the tokens with a numbered escape in them, int64.
        go_on: those that can continue an escape, int64.
    """

    def __init__(self, encoding: Encoding) -> None:
        texts = [(token, encoding.token_bytes(token)) for token in sorted(encoding.ordinary_tokens)]
        self._begin = [token for token, text in texts if b"\\u" in text]
        self._go_on = [token for token, text in texts if text[:1] in b"u0123456789abcdefABCDEF"]

    @cached_property
    def begin(self) -> Tensor:
        return _as_tensor(self._begin)

    @cached_property
    def go_on(self) -> Tensor:
        return _as_tensor(self._go_on)


def _as_tensor(tokens: list[int]) -> Tensor:
    import torch

    return torch.tensor(tokens, dtype=torch.long)


class Matcher:
    """One text that grows token by token, and what may come next in it."""

    def __init__(self, matcher: LLMatcher, encoding: Encoding, names: tuple[PropertyNames, _Escapes] | None) -> None:
        self._matcher = matcher
        self._encoding = encoding
        self._names = names
        self._bits: Tensor | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether the text has ended."""
        return bool(self._matcher.is_stopped())

    def next(self) -> LogitMask:
        """Return what may come; of the special tokens only stop tokens, where the text may end.

        Raises:
            ConstraintError: llguidance has reached one of its limits.
        """
        if self._bits is None:
            self._bits = _new_bits(self._encoding.vocab_size)
        self._matcher.unsafe_compute_mask_ptr(self._bits.data_ptr(), self._bits.numel() * self._bits.element_size())
        if self._matcher.is_error():
            raise ConstraintError(f"the grammar engine cannot continue: {self._matcher.get_error()}")
        if self._names is not None:
            self._forbid_second_spellings(self._bits, *self._names)
        return LogitMask(self._bits)

    def allows(self, token_id: int) -> bool:
        """Return whether the text continues with this token, or may end here if the token is no text.

        Raises:
            ConstraintError: llguidance has reached one of its limits.
        """
        is_text = token_id in self._encoding.ordinary_tokens
        is_legal = self._matcher.validate_tokens([token_id]) == 1 if is_text else self._matcher.is_accepting()
        if self._matcher.is_error():
            raise ConstraintError(f"the grammar engine cannot continue: {self._matcher.get_error()}")
        if not (is_legal and is_text) or self._names is None:
            return is_legal
        return self._names[0].copy().read(self._encoding.token_bytes(token_id))

    def accept(self, token_id: int) -> None:
        """Take a token of the text.

        Raises:
            ConstraintError: it does not follow the grammar, or llguidance has reached one of its limits.
        """
        if not self._matcher.consume_token(token_id):
            raise ConstraintError(f"the grammar engine cannot continue: {self._matcher.get_error()}")
        if self._names is not None:
            self._names[0].read(self._encoding.token_bytes(token_id))

    def _forbid_second_spellings(self, bits: Tensor, names: PropertyNames, escapes: _Escapes) -> None:
        tokens = escapes.go_on if names.in_escape else escapes.begin
        allowed = tokens[((bits[tokens >> 5] >> (tokens & 31)) & 1).bool()].tolist()
        for token in allowed:
            if not names.copy().read(self._encoding.token_bytes(token)):
                word, bit = divmod(token, 32)
                value = int(bits[word])
                bits[word] = value & 0x7FFFFFFF if bit == 31 else value & ~(1 << bit)


def _new_bits(vocab_size: int) -> Tensor:
    import torch

    return torch.empty(-(-vocab_size // 32), dtype=torch.int32)


def llguidance_tokenizer(encoding: Encoding) -> LLTokenizer:
    """Return the vocabulary as llguidance needs it; a table that takes most of a second for 201,088 tokens."""
    from llguidance import LLTokenizer

    vocabulary: Any = _Vocabulary(encoding)
    return LLTokenizer(vocabulary, eos_token=sorted(encoding.stop_tokens))


class _Vocabulary:
    """The vocabulary as llguidance reads it (its `TokenizerWrapper`)."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, encoding: Encoding) -> None:
        self._encode: Callable[[str], list[int]] = encoding.encode
        ordinary = encoding.ordinary_tokens
        ids = range(encoding.vocab_size)
        # No text of a grammar can have an id that is not an ordinary token.
        self.tokens = [encoding.token_bytes(i) if i in ordinary else f"<|{i}|>".encode() for i in ids]
        self.special_token_ids = [i for i in ids if i not in ordinary]
        self.eos_token_id = min(encoding.stop_tokens)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
