"""Run an application until it is to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from gptoss.cli.server.app import Application
from gptoss.cli.server.protocol import protocol_class

_LAST_WORDS_S = 5  # for the errors that end the streams
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Serving:
    """One server: an application at a socket.

    Args:
        application: answers the requests.
        listener: where it listens; closed at the end.
        tls: certificate and key, each a file; None: without TLS.
    """

    def __init__(self, application: Application, listener: socket.socket, tls: tuple[Path, Path] | None = None) -> None:
        limits = application.served.limits
        self._application = application
        self._listener = listener
        # uvicorn logs for whoever runs it by its own command line.
        logger = logging.getLogger("uvicorn.error")
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        config = uvicorn.Config(
            application,
            http=protocol_class(limits),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(limits.idle_s),
            timeout_graceful_shutdown=math.ceil(limits.end_s) + _LAST_WORDS_S,
            ssl_certfile=None if tls is None else tls[0],
            ssl_keyfile=None if tls is None else str(tls[1]),
        )
        self._server = _Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        application.connections = lambda: len(self._server.server_state.connections)

    def run(self) -> None:
        """Serve until `end` is called or a signal ends it; running answers may finish, within their time."""
        try:
            asyncio.run(self._run())
        finally:
            self._listener.close()
            self._application.answering.close()

    def end(self) -> None:
        """End, from any thread: at the first call when the running answers are over, at the second at once."""
        is_second, self._server.should_exit = self._server.should_exit, True
        self._server.force_exit = is_second
        if self._loop is not None:
            wait_s = 0.0 if is_second else self._application.served.limits.end_s
            self._loop.call_soon_threadsafe(self._loop.call_later, wait_s, self._application.answering.cancel_all)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        for number in _ENDING:
            # One that is ignored stays so (nohup); only the main thread can handle any.
            if signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(ValueError, RuntimeError):
                    self._loop.add_signal_handler(number, self.end)
        await self._server.serve(sockets=[self._listener])


class _Server(uvicorn.Server):
    """uvicorn's server, whose signals are `Serving`'s."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
