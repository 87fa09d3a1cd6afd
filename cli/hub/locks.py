"""Locks between processes, of the kind and in the places that the hub's library uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FIRST_LOOK_S = 0.2


@contextmanager
def held(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock at `path`; `waiting` is called once if another process has it. The kernel frees it at any death."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with WeakFileLock(path, timeout=_FIRST_LOOK_S):
            yield
            return
    except Timeout:
        waiting()
    with WeakFileLock(path):
        yield


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock at `path` if no other process has it; whether that is so."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = WeakFileLock(path, timeout=_FIRST_LOOK_S)
    try:
        lock.__enter__()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.__exit__(None, None, None)
