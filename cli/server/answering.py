"""From a request's body to its response: admission, a worker thread, hang-ups, limits of time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from gptoss.cli.server.admission import Admission
from gptoss.cli.server.errors import ApiError, api_error
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.work import Abandoned, Answer, CancelReason, Work

_STACK = 512 << 20
_JSON = (b"content-type", b"application/json")
_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_TIMEOUT = ApiError("the answer took longer than this server allows", status=504, kind="server_error", code="timeout")
_ENDING = ApiError("the server is ending", status=503, kind="server_error", code="server_ending")


class HungUp(Exception):  # noqa: N818 - nobody is left to read an error
    """The client has gone."""


class Answering:
    """Computes the answers of one server.

    Args:
        limits: of time and number.
        internal_error: called with a fault of the program.
        after_first: called in a thread of its own when the first answer is out.
    """

    def __init__(
        self,
        limits: Limits,
        internal_error: Callable[[BaseException], None],
        after_first: Callable[[], None] | None = None,
    ) -> None:
        self._limits = limits
        self._internal_error = internal_error
        self._after_first = after_first
        self._pool = _pool_with_large_stacks(limits.parallel)
        self._works: set[Work] = set()
        self.admission = Admission(limits.parallel, limits.waiting)

    def cancel_all(self) -> None:
        """End the running answers at their next token."""
        for work in list(self._works):
            work.cancel("end")

    def close(self) -> None:
        """End the running answers and wait for their threads."""
        self.cancel_all()
        self._pool.shutdown(cancel_futures=True)

    async def respond(self, answer: Answer, receive: Receive, send: Send) -> None:
        """Compute an answer and send it.

        Raises:
            ApiError: nothing of it was sent yet, and it failed.
            HungUp: the client has gone.
        """
        hung_up = asyncio.create_task(_until_hung_up(receive))
        try:
            await self._admitted(hung_up)
            await self._answered(answer, hung_up, send)
        finally:
            hung_up.cancel()

    async def _admitted(self, hung_up: asyncio.Task[None]) -> None:
        entering = asyncio.create_task(self.admission.enter())
        try:
            done, _ = await asyncio.wait(
                {entering, hung_up}, timeout=self._limits.queue_s, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            await self._withdrawn(entering)
            raise
        if entering in done:
            entering.result()
            return
        await self._withdrawn(entering)
        if hung_up in done:
            raise HungUp
        raise _TIMEOUT

    async def _withdrawn(self, entering: asyncio.Task[None]) -> None:
        """Take a request out of the queue; a slot that it was given in the same moment goes to the next."""
        entering.cancel()
        with contextlib.suppress(asyncio.CancelledError, ApiError):
            await entering
            self.admission.leave(0)

    async def _answered(self, answer: Answer, hung_up: asyncio.Task[None], send: Send) -> None:
        loop = asyncio.get_running_loop()
        work = Work(loop)
        began = time.monotonic()
        self._works.add(work)
        future = loop.run_in_executor(self._pool, self._compute, answer, work)

        def finished(_: object) -> None:
            # However the request ends, its slot is free when its thread is.
            self._works.discard(work)
            self.admission.leave(time.monotonic() - began)
            work.wake()
            after, self._after_first = self._after_first, None
            if after is not None:
                loop.run_in_executor(None, after)

        future.add_done_callback(finished)
        hung_up.add_done_callback(lambda _: work.cancel("hang-up"))
        timer = loop.call_later(self._limits.answer_s, work.cancel, "timeout")
        try:
            if answer.is_streamed:
                await self._stream(answer, work, future, send)
            else:
                await self._send_whole(work, future, send)
        finally:
            timer.cancel()
            if not future.done():
                work.cancel("hang-up")

    def _compute(self, answer: Answer, work: Work) -> dict[str, Any] | None:
        try:
            return answer.compute(work)
        except Abandoned:
            return None

    async def _send_whole(self, work: Work, future: asyncio.Future[dict[str, Any] | None], send: Send) -> None:
        try:
            result = await future
        except Exception as error:  # noqa: BLE001 - each becomes a response
            raise self._error(error) from None
        _check(work)
        await send_json(send, 200, result, self._limits.stall_s)

    async def _stream(
        self, answer: Answer, work: Work, future: asyncio.Future[dict[str, Any] | None], send: Send
    ) -> None:
        """Send pieces as they come. The status waits for the first, so that an error before it has its own."""
        is_begun = False
        while True:
            try:
                async with asyncio.timeout(self._limits.heartbeat_s):
                    await work.news()
                pieces = b""
            except TimeoutError:
                pieces = b": computing\n\n"
            is_done = future.done()
            pieces += b"".join(work.take())
            error = self._outcome(work, future) if is_done else None
            if error is not None and not is_begun and not pieces:
                raise error
            if not is_begun:
                await _send(send, {"type": "http.response.start", "status": 200, "headers": _STREAM}, 0)
                is_begun = True
            if error is not None:
                pieces += answer.failed(error.body)
            body = {"type": "http.response.body", "body": pieces, "more_body": not is_done}
            if work.cancelled != "hang-up" and not await _send(send, body, self._limits.stall_s):
                work.cancel("hang-up")
            if work.cancelled == "hang-up":
                raise HungUp
            if is_done:
                return

    def _outcome(self, work: Work, future: asyncio.Future[dict[str, Any] | None]) -> ApiError | None:
        error = future.exception()
        if error is not None:
            return self._error(error)
        try:
            _check(work)
        except ApiError as cancelled:
            return cancelled
        return None

    def _error(self, error: BaseException) -> ApiError:
        known = api_error(error)
        if known.status == 500:
            self._internal_error(error)
        return known


def _pool_with_large_stacks(threads: int) -> ThreadPoolExecutor:
    """Return a pool whose threads are started.

    llguidance recurses along the references of a schema and the rules of a grammar, and where the stack ends, the
    process does: of the usual 8 MiB at about a thousand levels, which a request may have. Only used pages take memory.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="answer")
    usual = threading.stack_size(_STACK)
    try:
        together = threading.Barrier(threads + 1)
        for _ in range(threads):
            pool.submit(together.wait)
        together.wait()
    finally:
        threading.stack_size(usual)
    return pool


def _check(work: Work) -> None:
    """Raise what a cancelled answer ends with."""
    reason: CancelReason | None = work.cancelled
    if reason == "hang-up":
        raise HungUp
    if reason is not None:
        raise _TIMEOUT if reason == "timeout" else _ENDING


async def _until_hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, message: Message, stall_s: float) -> bool:
    """Send a message; False where the client did not read for so long."""
    if not stall_s:
        await send(message)
        return True
    try:
        async with asyncio.timeout(stall_s):
            await send(message)
    except TimeoutError:
        return False
    return True


async def send_json(
    send: Send, status: int, value: object, stall_s: float, headers: MutableMapping[str, str] | None = None
) -> None:
    """Send a whole response.

    Raises:
        HungUp: the client does not read it.
    """
    body = json.dumps(value).encode()
    fields = [_JSON, (b"content-length", str(len(body)).encode())]
    fields += [(name.lower().encode(), text.encode()) for name, text in (headers or {}).items()]
    await _send(send, {"type": "http.response.start", "status": status, "headers": fields}, 0)
    if not await _send(send, {"type": "http.response.body", "body": body}, stall_s):
        raise HungUp


class AnswerResponse:
    """An answer as a response of an endpoint."""

    def __init__(self, answering: Answering, answer: Answer) -> None:
        self._answering = answering
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - of ASGI
        """Compute and send it."""
        await self._answering.respond(self._answer, receive, send)
