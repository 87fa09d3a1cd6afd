"""What carries the messages: the streams of a process, in the sandbox or not, and HTTP to one origin.

Imports the SDK, so this module is imported when a server is opened. The SDK starts processes itself too, but reads
lines of any length, passes their standard error on to the terminal, and cannot start them in a sandbox.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from gptoss.cli.sandbox.sandbox import Confined
from gptoss.cli.tools.mcp.servers import Server

_CHUNK = 1 << 16
_MOST_BYTES = 1 << 24  # of one message
_MOST_STDERR = 1 << 12
_LEAVE_S, _TERM_S = 0.5, 1.0  # grace after the end of its input, and after SIGTERM
_POLL_S = 0.01
_CONNECT_S = 30.0
_INHERITED = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")

Streams = tuple[Any, Any]
"""Where messages of the SDK come from, and where they go."""


class Process:
    """A server that runs here, with its streams.

    Args:
        start: starts it, with pipes on all its streams.

    Attributes:
        is_hurried: whether it is ended without a moment to end by itself.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, start: Callable[[], Confined]) -> None:
        self._confined = start()
        self._stderr: deque[bytes] = deque()
        self.is_hurried = False
        self._is_over = self._is_endless = False

    @property
    def fault(self) -> str | None:
        """What it did wrong: how it ended by itself, with the last that it wrote on standard error; None: nothing."""
        if self._is_endless:
            return f"it wrote more than {_MOST_BYTES >> 20} MiB without the end of a line"
        status = self._confined.process.poll() if self._is_over else None
        if status is None:
            return None
        reason = self._confined.reason
        how = f"the sandbox ended it for its {reason}" if reason else f"exit status {status}"
        said = b"".join(self._stderr).decode("utf-8", "replace").strip().splitlines()
        return f"it has ended ({how}: {said[-1].strip()})" if said else f"it has ended ({how})"

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[Streams, None]:
        """Carry messages as long as the context lasts; then the process ends, and what it has left in its group."""
        deliver, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write_stream, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, deliver)
                tasks.start_soon(self._write, outgoing)
                tasks.start_soon(self._note_errors)
                try:
                    yield read_stream, write_stream
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._stop()
            for stream in (deliver, read_stream, write_stream, outgoing):
                stream.close()

    async def _read(self, deliver: anyio.abc.ObjectSendStream[SessionMessage | Exception]) -> None:
        """Deliver each line; what is no message is passed over. An end, or a line without end, ends the connection."""
        assert self._confined.process.stdout is not None
        source = self._confined.process.stdout.fileno()
        line = bytearray()
        async with deliver:
            while data := await _received(source):
                first, *others = data.split(b"\n")
                line += first
                for other in others:
                    if message := _message(bytes(line)):
                        try:
                            await deliver.send(message)
                        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                            return
                    line = bytearray(other)
                if len(line) > _MOST_BYTES:
                    self._is_endless = True
                    return
            self._is_over = True

    async def _write(self, outgoing: anyio.abc.ObjectReceiveStream[SessionMessage]) -> None:
        assert self._confined.process.stdin is not None
        target = self._confined.process.stdin.fileno()
        os.set_blocking(target, False)
        with contextlib.suppress(OSError, anyio.ClosedResourceError, anyio.BrokenResourceError):
            async with outgoing:
                async for each in outgoing:
                    text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                    data = memoryview(text.encode() + b"\n")
                    while data:
                        try:
                            data = data[os.write(target, data) :]
                        except BlockingIOError:
                            await anyio.wait_writable(target)

    async def _note_errors(self) -> None:
        assert self._confined.process.stderr is not None
        source = self._confined.process.stderr.fileno()
        kept = 0
        while data := await _received(source):
            self._stderr.append(data[-_MOST_STDERR:])
            kept += len(self._stderr[-1])
            while kept - len(self._stderr[0]) >= _MOST_STDERR:
                kept -= len(self._stderr.popleft())

    async def _stop(self) -> None:
        """End the process: by the end of its input, then by SIGTERM, then for certain. A supervisor does the rest."""
        process = self._confined.process
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        await self._leaves(_LEAVE_S)
        if not self._confined.is_supervised:
            if process.poll() is None and not self.is_hurried:
                _signal_group(process, signal.SIGTERM)
                await self._leaves(_TERM_S)
            _signal_group(process, signal.SIGKILL)
        await anyio.to_thread.run_sync(self._confined.close)

    async def _leaves(self, seconds: float) -> None:
        """Wait for the end, but not when there is a hurry."""
        with anyio.move_on_after(seconds):
            while self._confined.process.poll() is None and not self.is_hurried:
                await anyio.sleep(_POLL_S)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)


async def _received(source: int) -> bytes:
    await anyio.wait_readable(source)
    try:
        return os.read(source, _CHUNK)
    except OSError:
        return b""


def _message(line: bytes) -> SessionMessage | None:
    if not line.strip():
        return None
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None
    return SessionMessage(message)


def launch(server: Server) -> Confined:
    """Start a server with the person's rights, in a session of its own.

    It gets the few variables that programs need, and those that its entry has; no others, which can have keys.

    Raises:
        OSError: it cannot be started.
    """
    variables = {key: os.environ[key] for key in _INHERITED if key in os.environ}
    process = subprocess.Popen(
        server.command,
        env={**variables, **server.variables},
        cwd=server.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    return Confined(process, None, None)


@asynccontextmanager
async def http_streams(server: Server) -> AsyncGenerator[Streams, None]:
    """Carry messages to a server's address and nowhere else, as long as the context lasts."""
    assert server.url is not None
    async with (
        _client(server) as client,
        streamable_http_client(server.url, http_client=client) as (incoming, outgoing),
    ):
        yield incoming, outgoing


def _client(server: Server) -> httpx2.AsyncClient:
    origin = _origin(httpx2.URL(server.url or ""))

    async def guard(request: httpx2.Request) -> None:
        """Add the keys; a request to another origin, as a redirect can ask for, is not made."""
        if _origin(request.url) != origin:
            raise httpx2.UnsupportedProtocol("it sent the request on to another address", request=request)
        request.headers.update(server.headers)

    async def bound(response: httpx2.Response) -> None:
        """Refuse what could grow: a body of unknown or great length that is no stream of events, or a packed one.

        The SDK reports every refusal of a server in the same words, so one for want of a key is told here.
        """
        if response.status_code in (401, 403):
            text = f"it wants another key (HTTP {response.status_code}); keys are headers of its entry in mcp.json"
            raise httpx2.RemoteProtocolError(text, request=response.request)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError("its response is compressed, which was not asked for", request=response.request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Bounded(response.stream)  # type: ignore[arg-type]

    return httpx2.AsyncClient(
        headers={"accept-encoding": "identity"},
        timeout=httpx2.Timeout(_CONNECT_S, read=server.seconds + _CONNECT_S),
        event_hooks={"request": [guard], "response": [bound]},
    )


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


class _Bounded(httpx2.AsyncByteStream):
    """A response's body that ends with an error where it is too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        size = 0
        async for data in self._stream:
            size += len(data)
            if size > _MOST_BYTES:
                raise httpx2.ReadError("its response is too long")
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()
