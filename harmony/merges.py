"""From a list of merges, as the tokenizers library has it, to ranks of tokens, as tiktoken has them.

tokenizers merges pairs in the order of a list of pairs; tiktoken merges any two neighbours whose joined bytes are a
token, in the order of the tokens. The two agree on every text if a token is ranked where the pair stands by which its
own bytes, merged alone, become it, and tokens that their own bytes do not become are left out:

The bytes within a token merge in a text as they would alone, for no merge has crossed its ends. Merged alone they go
through one sequence of states only, whose last but one is a pair. So a token ever comes about by that one pair; other
pairs that would give it never meet, in neither program. This holds for any order of the list, one in which a pair
stands before those that make its parts included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from gptoss.harmony.errors import EncodingError

Pair = tuple[bytes, bytes]

MAX_WORK = 1 << 26
"""Bound of the summed squares of the tokens' lengths, which the time goes with; o200k has 13 million."""


def ranks_from_merges(merges: Iterable[Pair]) -> dict[bytes, int]:
    """Return the rank of each token that can come about: single bytes from 0 to 255, then by place in the list.

    Ranks have gaps where a pair of the list never meets. Of equal pairs the last counts, as in tokenizers.

    Raises:
        EncodingError: the tokens are so long that this would take minutes.
    """
    places = {pair: place for place, pair in enumerate(merges, start=256)}
    tokens = {left + right for left, right in places}
    if sum(len(token) ** 2 for token in tokens) > MAX_WORK:
        raise EncodingError("its tokens are too long to work out their merges")
    ranks = {bytes([byte]): byte for byte in range(256)}
    for token in tokens:
        pair = last_merge(token, places)
        if pair is not None:
            ranks[token] = places[pair]
    return ranks


def last_merge(data: bytes, places: Mapping[Pair, int]) -> Pair | None:
    """Return the pair by which the bytes, merged alone, become one token; None where they do not."""
    parts = [data[index : index + 1] for index in range(len(data))]
    pair = None
    while len(parts) > 1:
        # The pair that stands first in the list is joined first, the leftmost of them.
        found = [places.get(each) for each in pairwise(parts)]
        known = [place for place in found if place is not None]
        if not known:
            return None
        index = found.index(min(known))
        pair = (parts[index], parts[index + 1])
        parts[index : index + 2] = [pair[0] + pair[1]]
    return pair
