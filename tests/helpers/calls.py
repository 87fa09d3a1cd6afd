"""Which kernels a backend has called."""

from collections import Counter
from weakref import WeakKeyDictionary

from gptoss.model.ops import Ops

_seen: WeakKeyDictionary[Ops, Counter[str]] = WeakKeyDictionary()


def new_calls(ops: Ops) -> dict[str, int]:
    """The backend's counts since this function was last asked, or since it was made."""
    counts = Counter(ops.counts())
    new = counts - _seen.get(ops, Counter())
    _seen[ops] = counts
    return dict(new)
