"""HTTP/1.1 for hostile clients: uvicorn's protocol on h11, with bounds of time and number that it lacks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.limits import Limits


def protocol_class(limits: Limits) -> type[H11Protocol]:
    """Return the class of connections that keep to these limits."""

    class Bounded(_BoundedProtocol):
        bounds = limits

    return Bounded


class _BoundedProtocol(H11Protocol):
    """A connection.

    - More than `connections` are closed at once.
    - The head of a request has `head_s` to come, however it is spread.
    - A connection that is being closed does not wait longer than `stall_s` for a client that reads nothing.
    """

    bounds = Limits()
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            if self._head_timer is None and not self.transport.is_closing():
                self._await_head()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._close_in_time()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
            self._close_in_time()
        else:
            self.cycle.keep_alive = False

    def timeout_keep_alive_handler(self) -> None:
        self.transport.close()
        self._close_in_time()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # in the midst of an answer
            self.transport.abort()
            return
        body = json.dumps(ApiError("this is no valid HTTP request").body).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        events: list[Any] = [h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
        self._close_in_time()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.bounds.head_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _close_in_time(self) -> None:
        if self.transport.is_closing():
            self.loop.call_later(self.bounds.stall_s, self.transport.abort)
