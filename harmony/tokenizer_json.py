"""An encoding from a checkpoint's ``tokenizer.json``, the file of the tokenizers library.

Honoured is the form of gpt-oss's own file: a byte-level BPE over pieces that one pattern splits, with special
tokens added by name. What is not honoured exactly is refused, with its place and the reason: a tokenizer that is
nearly right gives answers that are nearly right. How special tokens would be put around a text (``post_processor``)
and how long it may be (``truncation``, ``padding``) is left aside; the harmony format decides that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from gptoss.harmony import o200k
from gptoss.harmony.encoding import BytePairs, Encoding
from gptoss.harmony.errors import EncodingError, VocabularyError
from gptoss.harmony.long_runs import GPT2_PATTERN, KNOWN_PATTERNS
from gptoss.harmony.merges import ranks_from_merges

MAX_FILE_BYTES = 128 * 2**20
"""Size up to which a file is read; gpt-oss's own has 28 MB."""
MAX_IDS = 2**21
"""Number of ids up to which a vocabulary is believed."""
MAX_TOKEN_BYTES = 1024
"""Length up to which a token is believed: working out merges takes the square of it."""

# What a pattern that is not a well-known one may be made of: what tiktoken's regex engine (Rust) and that of
# tokenizers (Oniguruma) read alike. Not case-insensitive groups, possessive quantifiers, classes in classes, \w.
_PATTERN_PARTS = re.compile(
    r"""(?:
        \\[pP]\{[A-Z][a-z]?\} | \\[rntsSdD] | \\[\\^$.*+?()\[\]{}|/'"-]  # a class or a character by escape
      | \[\^?(?:\\[pP]\{[A-Z][a-z]?\} | \\[rntsSdD] | \\[]\[\\^.*+/'"-] | [^]\[\\&~])+\]  # a class
      | \(\?[:=!] | \((?!\?) | \) | \|
      | (?:[?*+] | \{\d{1,3}(?:,\d{0,3})?\})(?![?*+{])  # a quantifier, and no second one
      | [^\\\[\](){}?*+|^$.]  # a character for itself
    )*""",
    re.VERBOSE,
)
_MAX_PATTERN = 2000


def load_tokenizer_json(path: Path) -> Encoding:
    """Return the encoding in a ``tokenizer.json``.

    Raises:
        VocabularyError: the file cannot be read, is no tokenizer, or asks for what is not honoured exactly.
    """
    data = _read(path)
    if o200k.is_published_tokenizer_json(data):
        return Encoding.o200k_harmony()
    try:
        return _Reader(path, data).encoding()
    except VocabularyError:
        raise
    except EncodingError as error:
        raise VocabularyError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise VocabularyError(f"{path}: the file has {size} bytes, more than {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror})") from error


class _Reader:
    """One file, on its way to an encoding. Its methods refuse with the file's name and the place in it."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._file = self._object(self._parse(data), "the file")
        self._model = self._object(self._file.get("model"), "model")

    def encoding(self) -> Encoding:
        self._check_settings()
        pattern = self._pattern()
        specials = self._specials()
        if pattern == o200k.PATTERN and self._is_o200k(specials):
            # The official library's names win over others that the file gives the reserved ids.
            shipped = Encoding.o200k_harmony()
            agrees = all(specials.get(name) == token for name, token in o200k.NAMED_TOKENS.items())
            return shipped if agrees else shipped.with_specials(specials)
        return self._build(pattern, specials)

    def _is_o200k(self, specials: Mapping[str, int]) -> bool:
        """Whether text is encoded as by the shipped vocabulary, which then need not be worked out anew."""
        vocab = self._object(self._model.get("vocab"), "model.vocab")
        merges = self._list(self._model.get("merges"), "model.merges")
        return o200k.is_byte_level_form(vocab, set(specials.values()), merges)

    def _build(self, pattern: str, specials: Mapping[str, int]) -> Encoding:
        vocab, merges = self._vocab(), self._merges()
        special_ids = set(specials.values())
        words = {word: token for word, token in vocab.items() if token not in special_ids}
        data = {word: self._bytes(word) for word in words}
        pairs = []
        for index, (left, right) in enumerate(merges):
            token = vocab.get(left + right)
            if token is None or left not in vocab or right not in vocab:
                self._refuse(f"model.merges[{index}]", "joins or makes what is not in the vocabulary")
            if left + right not in words or left not in words or right not in words:
                self._refuse(f"model.merges[{index}]", "lets text become a special token")
            pairs.append((data[left], data[right]))
        ids = {data[word]: token for word, token in words.items()}
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            self._refuse("model.vocab", f"has no token for the byte {missing[0]}")
        ranks = ranks_from_merges(pairs)
        if self._model.get("ignore_merges") and any(token not in ranks for token in ids):
            self._refuse("model.ignore_merges", "is set while some tokens are not made by the merges")
        by_rank = [-1] * (max(ranks.values()) + 1)
        for token_bytes, rank in ranks.items():
            by_rank[rank] = ids[token_bytes]
        ordinary: list[bytes | None] = [None] * (max(words.values()) + 1)
        for token_bytes, token in ids.items():
            ordinary[token] = token_bytes
        return Encoding(self._path.name, BytePairs(ranks, pattern, by_rank), ordinary, specials)

    # Reading

    def _parse(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except RecursionError:
            self._refuse("the file", "is nested too deeply")
        except ValueError as error:
            raise VocabularyError(f"{self._path}: is no JSON ({error})") from error

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
                self._refuse(f"model.merges[{index}]", "is no pair of tokens")
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
                self._refuse(where, "is matched in text though it is not special, which is not done here")
            if any(added.get(each) for each in ("lstrip", "rstrip", "single_word")):
                self._refuse(where, "takes the text around it into account, which is not done here")
            if content in specials:
                self._refuse(where, "is added twice")
            specials[content] = token
        return specials

    def _pattern(self) -> str:
        """Return the pattern that splits text, from a Split and a ByteLevel after it, or a ByteLevel alone."""
        steps = self._steps("pre_tokenizer", "pretokenizers")
        if not steps or steps[-1].get("type") != "ByteLevel" or len(steps) > 2:
            self._refuse("pre_tokenizer", "is not a Split with a ByteLevel after it")
        if steps[-1].get("add_prefix_space", True):
            self._refuse("pre_tokenizer", "puts a blank before the text (add_prefix_space)")
        own_pattern = steps[-1].get("use_regex", True)
        if len(steps) == 1:
            if not own_pattern:
                self._refuse("pre_tokenizer", "does not split the text")
            return GPT2_PATTERN
        split = steps[0]
        if split.get("type") != "Split" or own_pattern:
            self._refuse("pre_tokenizer", "is not one Split with a ByteLevel after it")
        if split.get("behavior") != "Isolated" or split.get("invert"):
            self._refuse("pre_tokenizer", "drops what it matches, or what it does not (behavior, invert)")
        pattern = self._object(split.get("pattern"), "pre_tokenizer.pattern").get("Regex")
        if not isinstance(pattern, str):
            self._refuse("pre_tokenizer", "has no Regex to split by")
        readable = _PATTERN_PARTS.match(pattern[:_MAX_PATTERN])
        end = readable.end() if readable else 0
        if pattern not in KNOWN_PATTERNS and end < len(pattern):
            part = ascii(pattern[end:])[:60]
            self._refuse("pre_tokenizer", f"splits by a pattern that programs may read differently: {part}")
        return pattern

    def _steps(self, name: str, members: str) -> list[Mapping[str, Any]]:
        """Return the steps of a part of the file that may be nothing, one step, or a sequence of them."""
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
                self._refuse(f"model.{name}", "is set, which is not done here")
        if self._steps("normalizer", "normalizers"):
            self._refuse("normalizer", "changes the text, which is not done here")
        if any(step.get("type") != "ByteLevel" for step in self._steps("decoder", "decoders")):
            self._refuse("decoder", "is not ByteLevel")

    # Refusing

    def _bytes(self, word: str) -> bytes:
        try:
            return bytes(_BYTE_OF[letter] for letter in word)
        except KeyError:
            self._refuse("model.vocab", f"has {ascii(word)[:60]}, which is no byte-level token")

    def _id(self, value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_IDS:
            self._refuse(where, f"is {ascii(value)[:60]}, no id from 0 to {MAX_IDS - 1}")
        return value

    def _object(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._refuse(where, "is no JSON object")
        return value

    def _list(self, value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            self._refuse(where, "is no JSON list")
        return value

    def _refuse(self, where: str, what: str) -> NoReturn:
        raise VocabularyError(f"{self._path}: {where} {what}")


def byte_alphabet() -> dict[int, str]:
    """Return the letter in which a byte-level vocabulary writes each byte (GPT-2's ``bytes_to_unicode``).

    Printable bytes stand for themselves, the others, in their order, for the letters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in printable else next(others)) for byte in range(256)}


_BYTE_OF = {letter: byte for byte, letter in byte_alphabet().items()}
