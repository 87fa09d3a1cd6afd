"""One interpreter for a conversation: cells in, output and an ending out."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

from gptoss.cli.sandbox.sandbox import Confined, Sandbox
from gptoss.cli.tools.output import PACE_S, PacedOutput

Ending = Literal["done", "timeout", "cancelled", "ended", "memory", "disk", "processes"]

_WORKER = Path(__file__).with_name("worker.py")
# How long an interrupted cell may take to end before the interpreter is killed.
_GRACE_S = 3.0
_CHUNK = 1 << 16


class Interpreter:
    """A Python interpreter in a sandbox, which keeps its state between cells.

    Args:
        sandbox: confines it.
        folder: where it works.
        program: the interpreter's path.

    Raises:
        OSError, SandboxError: it cannot be started.
    """

    def __init__(self, sandbox: Sandbox, folder: Path, program: Path | None = None) -> None:
        there, self._requests = os.pipe()
        self._responses, answering = os.pipe()
        python = str(program or sys.executable)
        command = [python, "-B", str(_WORKER), str(there), str(answering)]
        self._confined: Confined | None = None
        try:
            self._confined = sandbox.start(command, folder, read=[_WORKER], pass_fds=(there, answering))
        except BaseException:
            os.close(self._requests)
            os.close(self._responses)
            raise
        finally:
            os.close(there)
            os.close(answering)
        self._buffer = b""
        self._is_cancelled = False

    def run(self, code: str, seconds: float) -> Generator[str, None, Ending]:
        """Run a cell; yield what it writes.

        Args:
            code: of the cell.
            seconds: after which it is interrupted.

        Returns:
            how it ended; `is_alive` says whether the interpreter can take another cell.
        """
        confined = self._confined
        assert confined is not None
        self._is_cancelled = False
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        written = PacedOutput()
        if not self._send({"code": code}):
            return "ended"
        output = confined.process.stdout
        assert output is not None
        deadline = time.monotonic() + seconds
        ending: Ending | None = None
        while True:
            now = time.monotonic()
            if ending is None and (now >= deadline or self._is_cancelled):
                ending = "cancelled" if self._is_cancelled else "timeout"
                self._send({"interrupt": True})
                deadline = now + _GRACE_S
            elif ending is not None and now >= deadline:
                self.close()
                break
            waiting: list[Any] = [output, self._responses]
            ready, _, _ = select.select(waiting, [], [], min(PACE_S, max(0.0, deadline - now)))
            if piece := written.take():
                yield piece
            if output in ready:
                data = os.read(output.fileno(), _CHUNK)
                if data:
                    written.add(decoder.decode(data))
                    continue  # all output before the word that the cell is done
                if self._responses not in ready:
                    ready = [self._responses]
            if self._responses in ready:
                done = self._answered()
                if done is None:
                    ending = self._reason()
                    break
                if done:
                    yield from self._rest(written, decoder)
                    ending = ending or "done"
                    break
        written.add(decoder.decode(b"", final=True))
        if piece := written.take(all_of_it=True):
            yield piece
        return ending

    @property
    def is_alive(self) -> bool:
        """Whether another cell can be run."""
        return self._confined is not None and self._confined.process.poll() is None

    def cancel(self) -> None:
        """Interrupt the cell that runs, from any thread or a signal handler."""
        self._is_cancelled = True

    def close(self) -> None:
        """End the interpreter and all that it has started."""
        confined, self._confined = self._confined, None
        if confined is None:
            return
        confined.close()
        for descriptor in (self._requests, self._responses):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _send(self, request: dict[str, object]) -> bool:
        data = json.dumps(request).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._requests, data) :]
        except OSError:
            return False
        return True

    def _answered(self) -> bool | None:
        """Read an answer; None: the interpreter is gone. What is no answer is passed over: a cell can write there."""
        try:
            data = os.read(self._responses, _CHUNK)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[-_CHUNK:]
        return b'{"done": true}' in lines

    def _rest(self, written: PacedOutput, decoder: codecs.IncrementalDecoder) -> Generator[str, None, None]:
        """Yield what was written before the end, and is still in the pipe."""
        assert self._confined is not None
        output = self._confined.process.stdout
        assert output is not None
        limit = time.monotonic() + 1.0  # a process that the cell has left may write for ever
        while time.monotonic() < limit and select.select([output], [], [], 0)[0]:
            data = os.read(output.fileno(), _CHUNK)
            if not data:
                return
            written.add(decoder.decode(data))
            if piece := written.take():
                yield piece

    def _reason(self) -> Ending:
        assert self._confined is not None
        confined = self._confined
        confined.kill()
        reason = confined.reason
        self.close()
        return reason if reason in ("memory", "disk", "processes") else "ended"  # type: ignore[return-value]
