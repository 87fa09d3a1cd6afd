"""Run a command with arguments on standard input and a time limit, and end all that it has started."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gptoss.cli.sandbox.sandbox import Confined, Sandbox
from gptoss.cli.tools.output import PACE_S, PacedOutput

_CHUNK = 1 << 16
_GRACE_S = 2.0


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        how: by itself, by its time limit, or by `cancel`.
        status: its exit status; negative for a signal.
        reason: the limit of the sandbox for which it was ended: memory, disk or processes.
    """

    how: Literal["done", "timeout", "cancelled"]
    status: int
    reason: str | None = None


@dataclass(frozen=True)
class Confinement:
    """The sandbox that a command runs in, and what it can read there beside the program itself."""

    sandbox: Sandbox
    read: tuple[Path, ...] = ()


class Command:
    """One run of a command, in a process group of its own.

    Args:
        line: the program and its arguments; no shell reads them.
        folder: where it runs.
        variables: its environment; None: that of this program. In a sandbox it has that of the sandbox.
        confinement: the sandbox; None: it runs with the rights of this program.
    """

    def __init__(
        self,
        line: Sequence[str],
        folder: Path,
        variables: Mapping[str, str] | None = None,
        confinement: Confinement | None = None,
    ) -> None:
        self._confinement = confinement
        self._confined: Confined | None = None
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
        process = self._process = self._started()
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
            reason = self._confined.reason if self._confined is not None else None
            self._end(process)
        return Ended(how, process.returncode, reason)

    def cancel(self) -> None:
        """End the run, from any thread or a signal handler."""
        self._is_cancelled = True

    def _started(self) -> subprocess.Popen[bytes]:
        if self._confinement is not None:
            program = shutil.which(self._line[0])
            if program is None:
                raise FileNotFoundError(f"there is no program {self._line[0]}")
            self._confined = self._confinement.sandbox.start(
                [program, *self._line[1:]], self._folder, read=self._confinement.read, stdin=subprocess.PIPE
            )
            return self._confined.process
        return subprocess.Popen(
            self._line,
            cwd=self._folder,
            env=self._variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if self._confined is not None:
            self._confined.close()
            return
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
