"""From a list of merges, as the tokenizers library has it, to ranks of tokens, as tiktoken has them.

tokenizers merges pairs in the order of a list of pairs; tiktoken merges any two neighbours whose joined bytes are a
token, in the order of the tokens. The two agree on every text if a token is ranked where the pair stands by which its
own bytes, merged alone, become it, and tokens that their own bytes do not become are left out:

The bytes within a token merge in a text as they would alone, for no merge has crossed its ends. Merged alone they go
through one sequence of states only, whose last but one is a pair. So a token ever comes about by that one pair; other
pairs that would give it never meet, in neither program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Pair = tuple[bytes, bytes]


def ranks_from_merges(merges: Iterable[Pair]) -> dict[bytes, int]:
    """Return the rank of each token that can come about: single bytes from 0 to 255, then by place in the list.

    Ranks have gaps where a pair of the list never meets.
    """
    ranks = {bytes([byte]): byte for byte in range(256)}
    for place, (left, right) in enumerate(merges, start=256):
        token = left + right
        if token not in ranks and merge(token, ranks) == [left, right]:
            ranks[token] = place
    return ranks


def merge(data: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Return the tokens of one piece: the neighbours of the lowest rank are joined first, from the left."""
    parts = [data[index : index + 1] for index in range(len(data))]
    while len(parts) > 1:
        found = [ranks.get(parts[index] + parts[index + 1]) for index in range(len(parts) - 1)]
        known = [rank for rank in found if rank is not None]
        if not known:
            break
        index = found.index(min(known))
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return parts
