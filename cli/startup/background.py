"""Work in a thread of its own, which a person who leaves does not wait for."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

_T = TypeVar("_T")
_SWITCH_S = 0.001

_lock = threading.Lock()
_running: list[threading.Thread] = []
_usual_switch_s = sys.getswitchinterval()


class Background(Generic[_T]):
    """A function that runs in a thread of its own, from now on; other threads wait little for the interpreter's lock.

    Args:
        work: the function.
        then: called in that thread with this object when `work` has ended, however it did.

    Raises:
        RuntimeError: the system starts no more threads.
    """

    def __init__(self, work: Callable[[], _T], then: Callable[[Background[_T]], object] | None = None) -> None:
        self._work, self._then = work, then
        self._results: list[_T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Whether there is a result, or an error."""
        return self._done.is_set()

    @property
    def error(self) -> BaseException | None:
        """The exception that ended the work."""
        return self._error

    def result(self) -> _T:
        """Wait, and return what the function returned; signals are handled meanwhile.

        Raises: what the function raised.
        """
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        _count(begins=True)
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - for the thread that waits
            self._error = error
        finally:
            _count(begins=False)
            self._done.set()
        if self._then is not None:
            self._then(self)


def _count(*, begins: bool) -> None:
    thread = threading.current_thread()
    with _lock:
        if begins:
            _running.append(thread)
        else:
            _running.remove(thread)
        sys.setswitchinterval(_SWITCH_S if _running else _usual_switch_s)


def leave(status: int) -> NoReturn:
    """End the process with a status, also while such work goes on.

    An interpreter that ends in the midst of an import in another thread aborts with words of torch's own.
    """
    if not _running:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)
