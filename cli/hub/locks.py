"""Locks between processes, of the kind and in the places that the hub's library uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gptoss.cli.base.locking import says_no_locks

_FIRST_LOOK_S = 0.2


@contextmanager
def held(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock at `path`; `waiting` is called once if another process has it. The kernel frees it at any death."""
    from huggingface_hub.utils import WeakFileLock

    with ExitStack() as stack:
        if not _take(path, stack):
            waiting()
            stack.enter_context(WeakFileLock(path))
        yield


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock at `path` if no other process has it; whether that is so."""
    with ExitStack() as stack:
        yield _take(path, stack)


def _take(path: Path, stack: ExitStack) -> bool:
    """Let `stack` hold the lock, if it is free; whether it was. Where there are no locks, every one is free."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        stack.enter_context(WeakFileLock(path, timeout=_FIRST_LOOK_S))
    except Timeout:
        return False
    except OSError as error:
        if not says_no_locks(error):
            raise
    return True
