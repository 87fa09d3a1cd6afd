"""Run a command with arguments on standard input and a time limit, and end all that it has started."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptoss.cli.tools.output import PACE_S, PacedOutput

_CHUNK = 1 << 16
_GRACE_S = 2.0


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        how: by itself, by its time limit, or by `cancel`.
        status: its exit status; negative for a signal.
    """

    how: Literal["done", "timeout", "cancelled"]
    status: int


class Command:
    """One run of a command, in a process group of its own.

    Args:
        line: the program and its arguments; no shell reads them.
        folder: where it runs.
        variables: its environment; None: that of this program.
    """

    def __init__(self, line: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self._line = list(line)
        self._folder = folder
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._is_cancelled = False

    def run(self, given: bytes, seconds: float) -> Generator[str, None, Ended]:
        """Run; yield what it writes on standard output and standard error.

        Args:
            given: for its standard input.
            seconds: after which it is ended.

        Raises:
            OSError: it cannot be started.
        """
        process = subprocess.Popen(
            self._line,
            cwd=self._folder,
            env=self._variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        writer = threading.Thread(target=_write, args=(process, given), daemon=True)
        writer.start()
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        written = PacedOutput()
        deadline = time.monotonic() + seconds
        how: Literal["done", "timeout", "cancelled"] = "done"
        try:
            while True:
                if self._is_cancelled:
                    how = "cancelled"
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    how = "timeout"
                    break
                has_ended = process.poll() is not None  # asked first: its last words are in the pipe by then
                is_ready = bool(select.select([process.stdout], [], [], min(PACE_S, left))[0])
                if piece := written.take():
                    yield piece
                if is_ready:
                    data = os.read(process.stdout.fileno(), _CHUNK)
                    if not data:
                        break
                    written.add(decoder.decode(data))
                elif has_ended:  # something that it has left holds its standard output open
                    break
            written.add(decoder.decode(b"", final=True))
            if piece := written.take(all_of_it=True):
                yield piece
            if how == "done":
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.05, deadline - time.monotonic()))
        finally:
            self._end(process)
        return Ended(how, process.returncode)

    def cancel(self) -> None:
        """End the run, from any thread or a signal handler."""
        self._is_cancelled = True

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for number, wait in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number if process.poll() is None else signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _write(process: subprocess.Popen[bytes], given: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(given)
        process.stdin.close()
