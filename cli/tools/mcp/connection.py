"""A connection with one server, on a thread of its own loop: opened, opened anew when it has ended, closed.

Nothing that a server does raises here but `ServerError`: it dies, hangs, writes no end, asks for what is refused.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from gptoss.cli.base.errors import CliError
from gptoss.cli.base.text import one_line
from gptoss.cli.sandbox.sandbox import Confined
from gptoss.cli.tools.mcp.servers import Server

if TYPE_CHECKING:
    from anyio import CancelScope
    from mcp import Client

    from gptoss.cli.tools.mcp.transports import Process, Streams

OPEN_S = 60.0
"""Time for a server to start and to list its tools; a program may be fetched first."""

_MOST_PAGES, _MOST_LISTED = 20, 512
_QUOTED = 300
_CLOSE_S = 7.0
_ENDING_S, _POLL_S = 3.0, 0.01
T = TypeVar("T")


class ServerError(CliError):
    """A server does not do its part; the text says how, on one line and without keys."""


class MissingSdkError(CliError):
    """The SDK is not installed."""


@dataclass(frozen=True)
class Listed:
    """A tool as the server has it: hostile."""

    name: str
    description: str | None
    schema: dict[str, Any]


@dataclass(frozen=True)
class Returned:
    """The result of a call: its text, and whether the server says that it failed."""

    text: str
    is_error: bool


class Loop:
    """An event loop on a thread, for all connections of a program.

    Raises:
        MissingSdkError: the extra is not installed.
    """

    def __init__(self) -> None:
        try:
            from mcp import Client  # noqa: F401 - takes a second; 1.x has no such name
        except ImportError:
            raise MissingSdkError("MCP servers need an extra: pip install 'gptoss[mcp]'") from None
        # Their records quote the server, and would go to standard error.
        for name in ("mcp", "httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True)
        self._thread.start()

    def start(self, doing: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(doing, self._loop)

    def soon(self, doing: Callable[[], None]) -> None:
        """Call a function on the loop, from another thread."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(doing)

    def close(self) -> None:
        """End the loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_S)
            if not self._thread.is_alive():
                self._loop.close()


class _Serving:
    """One time that a connection is open.

    Attributes:
        scope: keeps it open until it is cancelled; None before it begins.
        ended: set when nothing is left of it.
        client: None before it is connected, and after.
        process: the server's, if it runs here.
        failure: why it ended, if not by `close`.
    """

    def __init__(self) -> None:
        self.scope: CancelScope | None = None
        self.is_ending = False
        self.ended = threading.Event()
        self.client: Client | None = None
        self.process: Process | None = None
        self.failure: ServerError | None = None

    def end(self) -> None:
        """Begin to end it, on the loop."""
        self.is_ending = True
        if self.scope is not None:
            self.scope.cancel()


class Connection:
    """A connection with one server. All methods are called from other threads than the loop's.

    Args:
        server: which.
        loop: where it lives.
        start: starts the server's process; unused for one with an address.
    """

    def __init__(self, server: Server, loop: Loop, start: Callable[[], Confined]) -> None:
        self.server = server
        self._loop = loop
        self._start = start
        self._serving: _Serving | None = None
        self._listed: tuple[Listed, ...] = ()
        self._is_stale = False

    @property
    def is_open(self) -> bool:
        """Whether the server can be asked; what it does at that is another question."""
        return self._serving is not None and self._serving.client is not None

    @property
    def is_stale(self) -> bool:
        """Whether the server has said that its tools are others now."""
        return self._is_stale

    @property
    def listed(self) -> tuple[Listed, ...]:
        """The server's tools, as they were listed last."""
        return self._listed

    def open(self) -> concurrent.futures.Future[None]:
        """Connect and list the tools; the future is done then, with a `ServerError` where that fails."""
        self.drop()
        opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._serving = _Serving()
        self._loop.start(self._serve(self._serving, opened))
        return opened

    def list(self) -> concurrent.futures.Future[None]:
        """List the tools anew."""
        return self._loop.start(self._list_anew())

    def call(self, name: str, arguments: dict[str, Any]) -> concurrent.futures.Future[Returned]:
        """Call a tool. To cancel the future tells the server, which need not care."""
        return self._loop.start(self._call(name, arguments))

    def drop(self) -> None:
        """End the connection at once, and the server's process with its group. It can be opened anew."""
        if self._serving is not None and self._serving.process is not None:
            self._serving.process.is_hurried = True
        self.end()
        self.wait()

    def end(self) -> None:
        """Begin to end the connection; a process gets a moment to end by itself."""
        if self._serving is not None:
            self._loop.soon(self._serving.end)

    def wait(self) -> None:
        """Wait until the connection has ended."""
        if self._serving is not None:
            self._serving.ended.wait(_CLOSE_S)

    async def _serve(self, serving: _Serving, opened: concurrent.futures.Future[None]) -> None:
        """Keep the connection open until this is cancelled, or the connection ends."""
        import anyio
        from mcp import Client
        from mcp.types import Implementation, ToolListChangedNotification

        async def note(message: Any) -> None:
            if isinstance(message, ToolListChangedNotification):
                self._is_stale = True

        over = asyncio.Event()
        try:
            ours = Implementation(name="gptoss", version=version("gptoss"))
            # Without callbacks the client declares neither sampling, elicitation nor roots, and refuses them.
            client = Client(self._transport(serving, over), client_info=ours, message_handler=note, cache=None)
            # Scopes of anyio, and no cancelling of the task, which would cut short how the process is ended.
            with anyio.CancelScope() as serving.scope, anyio.fail_after(OPEN_S) as limit:
                if serving.is_ending:
                    serving.scope.cancel()
                async with client:
                    await self._list(client)
                    limit.deadline = math.inf
                    serving.client = client
                    opened.set_result(None)
                    await over.wait()
            if serving.scope.cancelled_caught:
                serving.failure = ServerError("it was ended")
        except BaseException as error:  # noqa: BLE001 - whatever the SDK raises, in groups or not
            serving.failure = self._failure(serving, error)
        finally:
            serving.client = None
            failure = serving.failure or self._failure(serving, ConnectionError("it has ended the connection"))
            serving.failure = failure
            if not opened.done():
                opened.set_exception(failure)
            serving.ended.set()

    @asynccontextmanager
    async def _transport(self, serving: _Serving, over: asyncio.Event) -> AsyncIterator[Streams]:
        import anyio

        from gptoss.cli.tools.mcp.transports import Process, http_streams

        streams: AbstractAsyncContextManager[Streams]
        if self.server.url is None:
            serving.process = Process(self._start)
            streams = serving.process.streams()
        else:
            streams = http_streams(self.server)
        deliver, incoming = anyio.create_memory_object_stream[Any](0)

        async def forward(source: Any) -> None:
            """Pass messages on, for the end of the connection shows here alone."""
            async with deliver:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    async for message in source:
                        await deliver.send(message)
            over.set()

        async with streams as (source, outgoing), anyio.create_task_group() as tasks, incoming:
            tasks.start_soon(forward, source)
            yield incoming, outgoing
            tasks.cancel_scope.cancel()

    async def _list_anew(self) -> None:
        serving = self._serving
        try:
            async with asyncio.timeout(OPEN_S):
                await self._list(_client_of(serving))
        except Exception as error:  # noqa: BLE001 - as above
            raise await self._failed(serving, error) from None

    async def _list(self, client: Client) -> None:
        from mcp.types import ListToolsRequest, ListToolsResult, PaginatedRequestParams

        self._is_stale = False
        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            request = ListToolsRequest(params=PaginatedRequestParams(cursor=cursor))
            page = await client.session.send_request(request, ListToolsResult)
            found += [self._as_listed(tool) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None or len(found) > _MOST_LISTED:
                break
        self._listed = tuple(found[:_MOST_LISTED])

    def _as_listed(self, tool: Any) -> Listed:
        description = None if tool.description is None else self.server.redacted(tool.description)
        return Listed(tool.name, description, tool.input_schema)

    async def _call(self, name: str, arguments: dict[str, Any]) -> Returned:
        from mcp.types import CallToolRequest, CallToolRequestParams, InputRequiredResult

        from gptoss.cli.tools.mcp.results import result_type, text_of

        serving = self._serving
        request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=arguments))
        try:
            # Not by `call_tool`, which would check the result against a schema of the server's.
            result = await _client_of(serving).session.send_request(request, result_type())
        except Exception as error:  # noqa: BLE001 - as above
            raise await self._failed(serving, error) from None
        if isinstance(result, InputRequiredResult):
            raise ServerError("it asked for input (sampling, elicitation or roots), which is refused")
        return Returned(self.server.redacted(text_of(result)), bool(result.is_error))

    async def _failed(self, serving: _Serving | None, error: BaseException) -> ServerError:
        """Return why a request failed: where the connection has ended over it, the reason for that."""
        from mcp.types import CONNECTION_CLOSED

        if getattr(error, "code", None) == CONNECTION_CLOSED and serving is not None:
            for _ in range(round(_ENDING_S / _POLL_S)):
                if serving.ended.is_set():
                    break
                await asyncio.sleep(_POLL_S)
            if serving.failure is not None:
                return serving.failure
        return self._failure(serving, error)

    def _failure(self, serving: _Serving | None, error: BaseException) -> ServerError:
        """Return what happened, in the server's words where there are some."""
        process = serving.process if serving is not None else None
        fault = process.fault if process is not None else None
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        text = one_line(self.server.redacted(fault or _said(error)))
        return ServerError(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")


def _client_of(serving: _Serving | None) -> Client:
    if serving is None or serving.client is None:
        raise ConnectionError("it is not connected")
    return serving.client


def _said(error: BaseException) -> str:
    from pydantic import ValidationError

    if isinstance(error, TimeoutError):
        return f"it did not answer within {OPEN_S:g} s"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"its answer is not valid: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be started: {error.strerror}"
    return str(error) or type(error).__name__
