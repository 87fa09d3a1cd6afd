"""Keys that act while an answer is shown; what else is typed meanwhile waits for the next input line."""

from __future__ import annotations

import os
import select
import termios
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

_READ = 4096
_LOOK_S = 0.5
# A person's keys come one at a time. Those of a paste come in pieces, a few milliseconds after each other.
_QUIET_S = 0.03
_MOST = 1 << 20
_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"


class KeysMeanwhile:
    """Reads a terminal in a thread of its own, from `start` to `stop`, without echo; signals of keys stay as they are.

    Args:
        descriptor: of the terminal.
        actions: by control character; each must be fit to be called from another thread.
    """

    def __init__(self, descriptor: int, actions: Mapping[str, Callable[[], object]]) -> None:
        self._descriptor = descriptor
        self._actions = {key.encode("ascii"): action for key, action in actions.items()}
        self._typed = b""
        self._before: list[Any] = []
        self._thread: threading.Thread | None = None
        self._wake = (-1, -1)
        self._is_suspended = False

    def start(self) -> None:
        """Begin to read; nothing that was typed before is lost."""
        self._before = termios.tcgetattr(self._descriptor)
        self._set_modes()
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more, and leave the terminal as it was."""
        if self._thread is None:
            return
        os.write(self._wake[1], b"\0")
        self._thread.join()
        self._thread = None
        for end in self._wake:
            os.close(end)
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def suspend(self) -> None:
        """Leave the terminal as a shell wants it, until `resume`."""
        self._is_suspended = True
        with suppress(termios.error):
            modes = termios.tcgetattr(self._descriptor)
            modes[3] |= termios.ICANON | termios.ECHO | termios.IEXTEN
            termios.tcsetattr(self._descriptor, termios.TCSANOW, modes)

    def resume(self, seconds: float, *, surprised: bool) -> None:  # noqa: ARG002 - as `Suspendable` has it
        """Take the keys again, where the program has the terminal; else as soon as it has."""
        self._is_suspended = False
        with suppress(OSError, termios.error):
            self._keep_modes()

    def take(self) -> bytes:
        """Return what was typed, in the bytes of the terminal; a paste of several lines between the marks of one."""
        typed, self._typed = self._typed, b""
        return typed

    def _set_modes(self) -> None:
        modes: list[Any] = termios.tcgetattr(self._descriptor)
        modes[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, modes)

    def _keep_modes(self) -> None:
        """Set the modes again after a stop and `fg`: the shell has given the terminal back with its own."""
        is_ours = os.tcgetpgrp(self._descriptor) == os.getpgrp()
        if is_ours and termios.tcgetattr(self._descriptor)[3] & termios.ICANON:
            self._set_modes()

    def _read(self) -> None:
        while True:
            try:
                ready, _, _ = select.select([self._descriptor, self._wake[0]], [], [], _LOOK_S)
                if self._wake[0] in ready:
                    return
                if self._is_suspended:
                    continue
                self._keep_modes()
                if not ready:
                    continue
                data = self._read_burst()
            except (OSError, termios.error):  # the terminal has gone
                return
            if not data:
                return
            self._take(data)

    def _read_burst(self) -> bytes:
        """Return what was typed, or all of what was pasted: the terminal gives that in pieces."""
        data = os.read(self._descriptor, _READ)
        while 1 < len(data) < _MOST and select.select([self._descriptor], [], [], _QUIET_S)[0]:
            more = os.read(self._descriptor, _READ)
            if not more:
                break
            data += more
        return data

    def _take(self, data: bytes) -> None:
        # Nobody types two lines between two looks, and a key of a paste is none.
        if b"\n" in data.rstrip(b"\n"):
            self._typed += _PASTE_BEGINS + data.rstrip(b"\n") + _PASTE_ENDS
            return
        for number in range(len(data)):
            byte = data[number : number + 1]
            action = self._actions.get(byte)
            if action is None:
                self._typed += byte
            else:
                action()
