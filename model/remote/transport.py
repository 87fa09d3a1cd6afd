"""HTTP to one server: JSON, and streams of server-sent events. No redirects are followed.

`http.client` of the standard library: importing an HTTP library takes as long as the whole start of this program may.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from gptoss.model.errors import ModelError, quote
from gptoss.model.remote.address import ServerAddress

MAX_JSON_BYTES = 64 << 20
"""Of one answer that is no stream."""
MAX_EVENT_BYTES = 4 << 20
"""Of one event of a stream."""

_MAX_MESSAGE = 300
_END_S = 2.0


class RemoteError(ModelError):
    """A server cannot be reached, refuses, or does not do what was asked of it.

    Attributes:
        status: of the HTTP answer; None: there was none, or the stream failed.
        retry_after_s: seconds after which the server wants to be asked again.
    """

    def __init__(self, message: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class ConnectionFailed(RemoteError):  # noqa: N818 - the noun is `RemoteError`'s
    """The connection could not be made, or broke off."""


class Transport:
    """Requests to one server.

    Args:
        address: of the server.
        key: sent as a bearer token; None: none.
        connect_s: seconds for the connection.
        read_s: seconds without a byte; the first request to a server may compile kernels.
    """

    def __init__(
        self, address: ServerAddress, key: str | None = None, connect_s: float = 10.0, read_s: float = 600.0
    ) -> None:
        self.address = address
        self._key = key
        self._connect_s = connect_s
        self._read_s = read_s

    def get(self, path: str) -> Any:
        """Return the JSON at a path.

        Raises:
            RemoteError: there is none.
        """
        return self._whole("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON that answers a body.

        Raises:
            RemoteError: there is none.
        """
        return self._whole("POST", path, body)

    def stream(self, path: str, body: dict[str, Any]) -> EventStream:
        """Begin a stream of events; nothing is sent before its first event is asked for."""
        return EventStream(self, path, body)

    def open(self) -> http.client.HTTPConnection:
        """Return a connection that is connected.

        Raises:
            ConnectionFailed: it cannot be made.
        """
        host, port = self.address.host, self.address.port
        connection: http.client.HTTPConnection
        if self.address.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=self._connect_s)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._connect_s)
        try:
            connection.connect()
        except OSError as error:
            raise ConnectionFailed(f"{self.address.origin} cannot be reached: {_reason(error)}") from None
        assert connection.sock is not None
        connection.sock.settimeout(self._read_s)
        with suppress(OSError):
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None
    ) -> http.client.HTTPResponse:
        """Send a request and return the answer, whose status is 200.

        Raises:
            RemoteError: any other status.
        """
        headers = {"Accept": "application/json, text/event-stream", "User-Agent": "gptoss"}
        data = None
        if body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body).encode()
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        connection.request(method, f"{self.address.path}{path}", data, headers)
        response = connection.getresponse()
        if response.status != 200:
            with response:
                raise self._error(response, path)
        return response

    def broken(self, error: BaseException) -> ConnectionFailed:
        """Return the error of a connection that broke off."""
        if isinstance(error, TimeoutError):
            return ConnectionFailed(f"{self.address.origin} sent nothing for {self._read_s:g} s")
        return ConnectionFailed(f"the connection to {self.address.origin} broke off: {_reason(error)}")

    def _whole(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        connection = self.open()
        try:
            with self.send(connection, method, path, body) as response:
                data = response.read(MAX_JSON_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self.broken(error) from None
        finally:
            connection.close()
        if len(data) > MAX_JSON_BYTES:
            raise RemoteError(f"{self.address.origin}{path} answers with more than {MAX_JSON_BYTES >> 20} MiB")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise RemoteError(f"{self.address.origin}{path} answers with something that is not JSON") from None

    def _error(self, response: http.client.HTTPResponse, path: str) -> RemoteError:
        status, where = response.status, f"{self.address.origin}{self.address.path}{path}"
        data = response.read(1 << 16)
        told = _message(data)
        reason = f": {told}" if told else ""
        if 300 <= status < 400:
            return RemoteError(f"{where} redirects elsewhere, which is not followed: give the address itself", status)
        if status in (401, 403):
            return RemoteError(f"{where} wants a key, or another one ({status}{reason})", status)
        after = response.headers.get("Retry-After", "")
        wait_s = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None
        return RemoteError(f"{where} answered {status}{reason}", status, wait_s)


class EventStream(Iterator[dict[str, Any]]):
    """The JSON objects of a stream of server-sent events, until `[DONE]`.

    `close` may be called from any thread, and ends waiting.
    """

    def __init__(self, transport: Transport, path: str, body: dict[str, Any]) -> None:
        self._transport, self._path, self._body = transport, path, body
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._is_closed = self._is_ending = False

    def __next__(self) -> dict[str, Any]:
        """Return the next event.

        Raises:
            RemoteError: the server refuses, reports an error in the stream, or the connection breaks off.
        """
        try:
            if self._response is None:
                self._open()
            while not self._is_closed:
                line = self._line()
                if line is None:
                    raise StopIteration
                if line.startswith(b"data:"):
                    return self._event(line[5:].strip())
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # The last two: what `http.client` raises where another thread has closed its files.
            self._free()
            if self._is_closed or self._is_ending:
                raise StopIteration from None
            raise self._transport.broken(error) from None
        except RemoteError:
            self._free()
            if self._is_closed:
                raise StopIteration from None
            raise
        except StopIteration:
            self._free()
            raise
        self._free()
        raise StopIteration

    def expect_end(self) -> None:
        """Wait only shortly from now on: all that is needed has come."""
        self._is_ending = True
        if self._socket is not None:
            self._socket.settimeout(_END_S)

    def close(self) -> None:
        """End the stream; the server then frees the request."""
        with self._lock:
            self._is_closed = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._free()

    def _free(self) -> None:
        for each in (self._response, self._connection):
            if each is not None:
                with suppress(Exception):  # another thread is reading from it
                    each.close()

    def _open(self) -> None:
        connection = self._transport.open()
        with self._lock:
            self._connection, self._socket = connection, connection.sock
            if self._is_closed:
                connection.close()
                raise StopIteration
        self._response = self._transport.send(connection, "POST", self._path, self._body)

    def _line(self) -> bytes | None:
        assert self._response is not None
        line = self._response.readline(MAX_EVENT_BYTES + 1)
        if len(line) > MAX_EVENT_BYTES:
            raise RemoteError(
                f"{self._transport.address.origin} sent an event of more than {MAX_EVENT_BYTES >> 20} MiB"
            )
        return line or None

    def _event(self, data: bytes) -> dict[str, Any]:
        origin = self._transport.address.origin
        if data == b"[DONE]":
            raise StopIteration
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise RemoteError(f"{origin} sent an event that is not JSON") from None
        if not isinstance(event, dict):
            raise RemoteError(f"{origin} sent an event that is no object")
        if event.get("error"):
            raise RemoteError(f"{origin} failed: {_message(data) or 'it does not say why'}")
        return event


def _message(data: bytes) -> str:
    """Return what an error says, in one line, whatever its form."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    for _ in range(3):
        if not isinstance(found, dict):
            break
        found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), "")
    return quote(" ".join(found.split())[:_MAX_MESSAGE])[1:-1] if isinstance(found, str) else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).split("\n")[0]
