"""Reads a checkpoint's ``tokenizer.json``, the file format of the tokenizers library.

Supports the form of gpt-oss's own file: a byte-level BPE over pieces split by one pattern, with special tokens added
by name. Anything that is not supported exactly is refused with its place and the reason, because an almost correct
tokenizer gives almost correct answers. ``post_processor``, ``truncation`` and ``padding`` are ignored: the harmony
format decides where special tokens go.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gptoss.harmony import o200k
from gptoss.harmony.errors import EncodingError, VocabularyError
from gptoss.harmony.long_runs import GPT2_PATTERN, KNOWN_PATTERNS
from gptoss.harmony.merges import ranks_from_merges

MAX_FILE_BYTES = 128 * 2**20
"""Maximum size of the file; gpt-oss's own has 28 MB."""
MAX_IDS = 2**21
"""Maximum number of token ids."""
MAX_TOKEN_BYTES = 1024
"""Maximum length of a token; deriving merge ranks takes time quadratic in it."""

# The syntax allowed in unknown patterns: what the regex engines of tiktoken (Rust) and tokenizers (Oniguruma) read
# alike. Excludes case-insensitive groups, possessive quantifiers, nested classes, \w.
_PATTERN_PARTS = re.compile(
    r"""(?:
        \\[pP]\{[A-Z][a-z]?\} | \\[rntsSdD] | \\[\\^$.*+?()\[\]{}|/'"-]  # an escaped class or character
      | \[\^?(?:\\[pP]\{[A-Z][a-z]?\} | \\[rntsSdD] | \\[]\[\\^.*+/'"-] | [^]\[\\&~])+\]  # a class
      | \(\?[:=!] | \((?!\?) | \) | \|
      | (?:[?*+] | \{\d{1,3}(?:,\d{0,3})?\})(?![?*+{])  # one quantifier
      | [^\\\[\](){}?*+|^$.]  # a literal character
    )*""",
    re.VERBOSE,
)
_MAX_PATTERN = 2000


@dataclass(frozen=True)
class OrdinaryTokens:
    """The BPE of ordinary text.

    Attributes:
        pattern: the regular expression that splits text into pieces before merging.
        ranks: the bytes of each token that can be merged, and its rank.
        ids: the id of each rank; -1 for unused ranks.
        token_bytes: the bytes of each token by id; None where an id is not an ordinary token.
    """

    pattern: str
    ranks: dict[bytes, int]
    ids: Sequence[int]
    token_bytes: Sequence[bytes | None]


@dataclass(frozen=True)
class TokenizerJson:
    """The contents of a ``tokenizer.json``.

    Attributes:
        specials: the ids of the special tokens by name.
        ordinary: the BPE of ordinary text; None if it is that of o200k_harmony.
    """

    specials: Mapping[str, int]
    ordinary: OrdinaryTokens | None


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """Read a ``tokenizer.json``.

    Raises:
        VocabularyError: the file cannot be read, is not a regular file, is larger than ``MAX_FILE_BYTES``, is not a
            tokenizer, or uses a feature that is not supported exactly.
    """
    data = _read(path)
    if o200k.is_published_tokenizer_json(data):
        return TokenizerJson(o200k.NAMED_TOKENS, None)
    return parse_tokenizer_json(path, _parse(path, data))


def parse_tokenizer_json(path: Path, content: Any) -> TokenizerJson:
    """Return the tokenizer of a parsed ``tokenizer.json``; `path` is for messages.

    Raises:
        VocabularyError: it is not a tokenizer, or uses a feature that is not supported exactly.
    """
    return _Reader(path, content).read()


def _read(path: Path) -> bytes:
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a null character in the path
        raise VocabularyError(f"{path}: cannot be read ({error})") from error
    try:
        # Before a file object is made: that of a folder cannot be.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise VocabularyError(f"{path}: is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise VocabularyError(f"{path}: has more than {MAX_FILE_BYTES} bytes")
    return data


def _parse(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise VocabularyError(f"{path}: the file is nested too deeply") from None
    except ValueError as error:
        beginning = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
        if beginning.startswith(b"version http"):
            raise VocabularyError(
                f"{path}: the file is a Git LFS pointer, not the file itself (git lfs pull fetches it)"
            ) from None
        if beginning.startswith(b"<"):
            raise VocabularyError(
                f"{path}: the file is a web page, such as an error or a login: download it again"
            ) from None
        raise VocabularyError(f"{path}: is not JSON ({error}): download it again") from error


class _Reader:
    """Reads one file. Every error names the file and the place in it."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        self._file = self._object(content, "the file")
        self._model = self._object(self._file.get("model"), "model")

    def read(self) -> TokenizerJson:
        self._check_settings()
        pattern = self._pattern()
        specials = self._specials()
        if pattern == o200k.PATTERN and self._is_o200k(specials):
            return TokenizerJson(specials, None)
        return TokenizerJson(specials, self._ordinary(pattern, specials))

    def _is_o200k(self, specials: Mapping[str, int]) -> bool:
        """Whether text is encoded as with the shipped vocabulary; its merge ranks are then known."""
        vocab = self._object(self._model.get("vocab"), "model.vocab")
        merges = self._list(self._model.get("merges"), "model.merges")
        return o200k.is_byte_level_form(vocab, set(specials.values()), merges)

    def _ordinary(self, pattern: str, specials: Mapping[str, int]) -> OrdinaryTokens:
        vocab, merges = self._vocab(), self._merges()
        special_ids = set(specials.values())
        words = {word: token for word, token in vocab.items() if token not in special_ids}
        data = {word: self._bytes(word) for word in words}
        pairs = []
        for index, (left, right) in enumerate(merges):
            token = vocab.get(left + right)
            if token is None or left not in vocab or right not in vocab:
                self._refuse(f"model.merges[{index}]", "joins tokens, or makes one, that are not in the vocabulary")
            if left + right not in words or left not in words or right not in words:
                self._refuse(f"model.merges[{index}]", "lets text become a special token")
            pairs.append((data[left], data[right]))
        ids = {data[word]: token for word, token in words.items()}
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            self._refuse("model.vocab", f"has no token for the byte {missing[0]}")
        try:
            ranks = ranks_from_merges(pairs)
        except EncodingError as error:
            raise VocabularyError(f"{self._path}: {error}") from error
        if self._model.get("ignore_merges") and any(token not in ranks for token in ids):
            self._refuse("model.ignore_merges", "is set while some tokens are not made by the merges")
        by_rank = [-1] * (max(ranks.values()) + 1)
        for token_bytes, rank in ranks.items():
            by_rank[rank] = ids[token_bytes]
        ordinary: list[bytes | None] = [None] * (max(words.values()) + 1)
        for token_bytes, token in ids.items():
            ordinary[token] = token_bytes
        return OrdinaryTokens(pattern, ranks, by_rank, ordinary)

    # Reading

    def _vocab(self) -> dict[str, int]:
        vocab = self._object(self._model.get("vocab"), "model.vocab")
        for word, token in vocab.items():
            self._id(token, f"model.vocab[{ascii(word)[:60]}]")
            if not word or len(word) > MAX_TOKEN_BYTES:
                self._refuse("model.vocab", f"has a token of {len(word)} bytes")
        if len(set(vocab.values())) != len(vocab):
            self._refuse("model.vocab", "gives two tokens the same id")
        return dict(vocab)

    def _merges(self) -> list[tuple[str, str]]:
        merges = []
        for index, pair in enumerate(self._list(self._model.get("merges"), "model.merges")):
            parts = pair.split(" ") if isinstance(pair, str) else pair
            if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
                self._refuse(f"model.merges[{index}]", "is not a pair of tokens")
            merges.append((parts[0], parts[1]))
        return merges

    def _specials(self) -> dict[str, int]:
        specials: dict[str, int] = {}
        for index, value in enumerate(self._list(self._file.get("added_tokens", []), "added_tokens")):
            where = f"added_tokens[{index}]"
            added = self._object(value, where)
            content = added.get("content")
            if not isinstance(content, str) or not content:
                self._refuse(where, "has no content")
            token = self._id(added.get("id"), f"{where}.id")
            if not added.get("special"):
                self._refuse(where, "is matched in text though it is not special, which is not supported")
            if any(added.get(each) for each in ("lstrip", "rstrip", "single_word")):
                self._refuse(where, "matches text around it, which is not supported")
            if content in specials:
                self._refuse(where, "is added twice")
            specials[content] = token
        return specials

    def _pattern(self) -> str:
        """Return the splitting pattern of a Split followed by a ByteLevel, or of a ByteLevel alone."""
        steps = self._steps("pre_tokenizer", "pretokenizers")
        if not steps or steps[-1].get("type") != "ByteLevel" or len(steps) > 2:
            self._refuse("pre_tokenizer", "is not a Split followed by a ByteLevel")
        if steps[-1].get("add_prefix_space", True):
            self._refuse("pre_tokenizer", "puts a space before the text (add_prefix_space)")
        own_pattern = steps[-1].get("use_regex", True)
        if len(steps) == 1:
            if not own_pattern:
                self._refuse("pre_tokenizer", "does not split the text")
            return GPT2_PATTERN
        split = steps[0]
        if split.get("type") != "Split" or own_pattern:
            self._refuse("pre_tokenizer", "is not one Split followed by a ByteLevel")
        if split.get("behavior") != "Isolated" or split.get("invert"):
            self._refuse("pre_tokenizer", "drops what it matches, or what it does not match (behavior, invert)")
        pattern = self._object(split.get("pattern"), "pre_tokenizer.pattern").get("Regex")
        if not isinstance(pattern, str):
            self._refuse("pre_tokenizer", "has no Regex to split by")
        readable = _PATTERN_PARTS.match(pattern[:_MAX_PATTERN])
        end = readable.end() if readable else 0
        if pattern not in KNOWN_PATTERNS and end < len(pattern):
            part = ascii(pattern[end:])[:60]
            self._refuse("pre_tokenizer", f"splits by a pattern that regex engines may read differently: {part}")
        return pattern

    def _steps(self, name: str, members: str) -> list[Mapping[str, Any]]:
        """Return the steps of a member that may be null, one step, or a sequence of steps."""
        part = self._file.get(name)
        if part is None:
            return []
        part = self._object(part, name)
        if part.get("type") != "Sequence":
            return [part]
        return [self._object(each, name) for each in self._list(part.get(members), name)]

    def _check_settings(self) -> None:
        if self._model.get("type", "BPE") != "BPE":
            self._refuse("model.type", f"is {ascii(self._model.get('type'))[:60]}, not BPE")
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
            if self._model.get(name):
                self._refuse(f"model.{name}", "is set, which is not supported")
        if self._steps("normalizer", "normalizers"):
            self._refuse("normalizer", "changes the text, which is not supported")
        if any(step.get("type") != "ByteLevel" for step in self._steps("decoder", "decoders")):
            self._refuse("decoder", "is not ByteLevel")

    # Checking

    def _bytes(self, word: str) -> bytes:
        try:
            return bytes(_BYTE_OF[letter] for letter in word)
        except KeyError:
            self._refuse("model.vocab", f"has {ascii(word)[:60]}, which is not a byte-level token")

    def _id(self, value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_IDS:
            self._refuse(where, f"is {ascii(value)[:60]}, not an id from 0 to {MAX_IDS - 1}")
        return value

    def _object(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._refuse(where, "is not a JSON object")
        return value

    def _list(self, value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            self._refuse(where, "is not a JSON list")
        return value

    def _refuse(self, where: str, what: str) -> NoReturn:
        raise VocabularyError(f"{self._path}: {where} {what}")


def byte_alphabet() -> dict[int, str]:
    """Return the character that stands for each byte in byte-level vocabularies (GPT-2's ``bytes_to_unicode``).

    Printable bytes stand for themselves; the others map, in order, to the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in printable else next(others)) for byte in range(256)}


_BYTE_OF = {letter: byte for byte, letter in byte_alphabet().items()}
