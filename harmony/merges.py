"""Convert the merges of the tokenizers library to the token ranks of tiktoken.

tokenizers merges pairs in the order of a list of pairs. tiktoken merges any two neighbours whose joined bytes are a
token, in the order of token ranks. Both agree on every text under this conversion: merge the bytes of each token by
themselves; rank the token by the position of the last pair merged; omit tokens whose bytes do not merge to one.

Proof sketch: no merge has crossed the ends of a token that appears in a text, so its bytes merged there as they do by
themselves. By themselves they go through a single sequence of states, and the state before the last is a pair. So a
token is always made by that pair; other pairs with the same joined bytes never become neighbours, in neither library.
This holds for any order of the list, even if a pair precedes the pairs that make its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from gptoss.harmony.errors import EncodingError

Pair = tuple[bytes, bytes]

MAX_WORK = 1 << 26
"""Maximum sum of squared token lengths, to which the time is proportional; o200k has 13 million."""


def ranks_from_merges(merges: Iterable[Pair]) -> dict[bytes, int]:
    """Return the rank of each token that can be made: 0 to 255 for single bytes, then by position in the list.

    Ranks have gaps for pairs that never become neighbours. Of equal pairs the last counts, as in tokenizers.

    Raises:
        EncodingError: the tokens are so long that this would take minutes.
    """
    places = {pair: place for place, pair in enumerate(merges, start=256)}
    tokens = {left + right for left, right in places}
    if sum(len(token) ** 2 for token in tokens) > MAX_WORK:
        raise EncodingError("its tokens are too long to derive their merge ranks")
    ranks = {bytes([byte]): byte for byte in range(256)}
    for token in tokens:
        pair = last_merge(token, places)
        if pair is not None:
            ranks[token] = places[pair]
    return ranks


def last_merge(data: bytes, places: Mapping[Pair, int]) -> Pair | None:
    """Return the last pair merged when ``data`` merges to one token by itself; None if it does not."""
    parts = [data[index : index + 1] for index in range(len(data))]
    pair = None
    while len(parts) > 1:
        # Merge the pair with the lowest position; of equal pairs the leftmost.
        found = [places.get(each) for each in pairwise(parts)]
        known = [place for place in found if place is not None]
        if not known:
            return None
        index = found.index(min(known))
        pair = (parts[index], parts[index + 1])
        parts[index : index + 2] = [pair[0] + pair[1]]
    return pair
