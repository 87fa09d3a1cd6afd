"""nano's byte-level BPE: learnt here, used by the training program, written as a Hugging Face `tokenizer.json`.

Ids are ranks: 0..255 are the bytes, then the merges in the order in which they were learnt, then the special
tokens. So tiktoken (which merges by the rank of the joined bytes) and the `tokenizers` library (which merges by a
list of pairs) give the same ids, provided that the list names *every* pair that joins to a token.

The pattern is plain ASCII with bounded repetition: every regex engine reads it alike, a digit is always a piece of
its own, and no input makes a piece that is long.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

# A space goes with the word after it, or with what stands before a digit ("+ 5"), as a digit takes none.
PATTERN = (
    r"[0-9]"
    r"| ?[A-Za-z]{1,24}(?: (?=[0-9]))?"
    r"| ?[^A-Za-z0-9 \t\r\n]{1,12}(?: (?=[0-9]))?"
    r"|[\r\n]{1,12}"
    r"|[ \t]{1,24}"
)

SPECIAL_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)


def learn_vocabulary(texts: Iterable[str], size: int) -> list[bytes]:
    """Return the 256 bytes and the `size` - 256 merges that byte-pair encoding learns on `texts`, in order.

    Ties are broken by the bytes of the pair, so that equal texts give an equal vocabulary.
    Source: Sennrich et al. 2016, on bytes.

    Raises:
        ValueError: the texts have too few pairs for so many merges.
    """
    counts = Counter(piece for text in texts for piece in re.findall(PATTERN, text))
    words = [([bytes([b]) for b in piece.encode()], count) for piece, count in sorted(counts.items())]
    pair_counts: Counter[tuple[bytes, bytes]] = Counter()
    where: defaultdict[tuple[bytes, bytes], set[int]] = defaultdict(set)
    for index, (word, count) in enumerate(words):
        for pair in itertools.pairwise(word):
            pair_counts[pair] += count
            where[pair].add(index)

    vocabulary = [bytes([b]) for b in range(256)]
    known = set(vocabulary)
    while len(vocabulary) < size:
        best = max(pair_counts, key=lambda pair: (pair_counts[pair], pair), default=None)
        if best is None or pair_counts[best] == 0:
            raise ValueError(f"no pair is left to merge at {len(vocabulary)} of {size} tokens: give more text")
        token = best[0] + best[1]
        if token not in known:
            known.add(token)
            vocabulary.append(token)
        for index in where.pop(best):
            word, count = words[index]
            for pair in itertools.pairwise(word):
                pair_counts[pair] -= count
            word[:] = _join(word, best)
            for pair in itertools.pairwise(word):
                pair_counts[pair] += count
                where[pair].add(index)
        del pair_counts[best]
    return vocabulary


def _join(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    joined: list[bytes] = []
    for part in word:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


class Tokenizer:
    """Text to ids and back; `special` maps the name of a special token to its id.

    Text never becomes a special token: those are put in by id.
    """

    def __init__(self, vocabulary: list[bytes]) -> None:
        self.vocabulary = vocabulary
        self.ranks = {token: rank for rank, token in enumerate(vocabulary)}
        self.special = {name: len(vocabulary) + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.size = len(vocabulary) + len(SPECIAL_TOKENS)
        self._names = {id_: name for name, id_ in self.special.items()}
        self._encode_piece = lru_cache(maxsize=65536)(self._merge)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`."""
        return [id_ for piece in re.findall(PATTERN, text) for id_ in self._encode_piece(piece)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, special tokens by their names, broken UTF-8 as replacement characters."""
        parts = (self._names[i].encode() if i in self._names else self.vocabulary[i] for i in ids)
        return b"".join(parts).decode("utf-8", errors="replace")

    def _merge(self, piece: str) -> tuple[int, ...]:
        parts = [bytes([b]) for b in piece.encode()]
        while len(parts) > 1:
            rank, at = min(
                (self.ranks.get(left + right, len(self.ranks)), i)
                for i, (left, right) in enumerate(itertools.pairwise(parts))
            )
            if rank == len(self.ranks):
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self.ranks[part] for part in parts)

    def to_json(self) -> dict[str, Any]:
        """Return the `tokenizer.json` of the Hugging Face `tokenizers` library, in the form gpt-oss's own has."""
        letters = _byte_letters()

        def spell(token: bytes) -> str:
            return "".join(letters[b] for b in token)

        merges = [
            [spell(token[:cut]), spell(token[cut:])]
            for token in self.vocabulary[256:]
            for cut in range(1, len(token))
            if token[:cut] in self.ranks and token[cut:] in self.ranks
        ]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": id_,
                    "content": name,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for name, id_ in self.special.items()
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": True,
                "vocab": {spell(token): rank for rank, token in enumerate(self.vocabulary)},
                "merges": merges,
            },
        }

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Return the tokenizer that `to_json` wrote to `path`."""
        bytes_of = {letter: b for b, letter in enumerate(_byte_letters())}
        vocab = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        return cls([bytes(bytes_of[c] for c in token) for token in sorted(vocab, key=vocab.__getitem__)])


def _byte_letters() -> list[str]:
    """Return the printable letter of every byte, as GPT-2 chose them: a byte that prints is itself."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return [chr(b) if b in printing else chr(next(spare)) for b in range(256)]
