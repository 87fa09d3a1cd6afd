"""The application: routes, what every request goes through, and the line that says how it went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from gptoss.cli.base.text import one_line
from gptoss.cli.server.answering import Answering, AnswerResponse, HungUp, send_json
from gptoss.cli.server.chat import Chat
from gptoss.cli.server.completions import Completions
from gptoss.cli.server.errors import ApiError, api_error
from gptoss.cli.server.fields import Fields, parse_body
from gptoss.cli.server.gate import Gate
from gptoss.cli.server.metrics import CONTENT_TYPE
from gptoss.cli.server.responses import Responses
from gptoss.cli.server.served import Served
from gptoss.cli.server.tokenizing import Tokenize
from gptoss.cli.server.work import Answer

_HUNG_UP = 499
"""The status in the log and the metrics where nobody was left to read one (nginx's)."""
_BODY = "gptoss.body"

Reader = Callable[[Fields, Served], Answer]


@dataclass(frozen=True)
class Seen:
    """One request for the access log; nothing of its contents.

    Attributes:
        method: of HTTP.
        route: the path of the route; None: there is no such route.
        status: of the response; 499: the client had gone.
        seconds: from the head of the request to the end of the response.
        client: the client's address; None: a unix socket.
    """

    method: str
    route: str | None
    status: int
    seconds: float
    client: str | None


@dataclass
class Application:
    """The ASGI application of one server.

    Attributes:
        served: the model.
        gate: who may ask.
        seen: called with each request that is over.
        complain: called with a line about a fault of the program.
        connections: returns how many are open.
    """

    served: Served
    gate: Gate = field(default_factory=Gate)
    seen: Callable[[Seen], None] = lambda _: None
    complain: Callable[[str], None] = lambda _: None
    connections: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        # Made before threads share them.
        _ = self.served.calls, self.served.responses, self.served.model.constraints
        # The next start is quicker then. Of the prompts nothing is stored.
        retain = self.served.model.engine.retain
        self.answering = Answering(self.served.limits, self._fault, lambda: retain(()))
        self._bodies = 0
        self._readers: dict[str, Reader] = {
            "/v1/completions": Completions.read,
            "/v1/chat/completions": Chat.read,
            "/v1/responses": Responses.read,
            "/tokenize": Tokenize.read,
        }
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/v1/responses/{response_id}", self._stored),
            Route("/v1/responses/{response_id}", self._delete_stored, methods=["DELETE"]),
            # What codex --oss and other programs of Ollama's users ask first.
            Route("/api/version", self._ollama_version),
            Route("/api/tags", self._ollama_tags),
            *(Route(path, self._answer(read), methods=["POST"]) for path, read in self._readers.items()),
        ]
        self._paths = {route.path for route in routes}
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        began, status = time.monotonic(), 0
        limits = self.served.limits

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        failure: ApiError | None = None
        try:
            self.gate.check(scope["method"], scope["path"], _headers(scope))
            scope["app"] = self  # with it the router raises what is wrong, and sends no text of its own
            await self._router(scope, receive, observed)
        except HungUp:
            status = _HUNG_UP
        except asyncio.CancelledError:
            status = status or _HUNG_UP
            raise
        except HTTPException as error:
            failure = ApiError(error.detail, status=error.status_code)
        except Exception as error:  # noqa: BLE001 - each becomes a response
            failure = api_error(error)
            if failure.status == 500:
                self._fault(error)
        finally:
            self._bodies -= scope.pop(_BODY, 0)
            if failure is None:
                self._note(scope, status, began)
        if failure is not None:
            if not status:
                try:
                    await send_json(observed, failure.status, failure.body, limits.stall_s, failure.headers)
                except HungUp:
                    status = _HUNG_UP
            self._note(scope, status, began)

    def _note(self, scope: Scope, status: int, began: float) -> None:
        path = scope["path"]
        if path not in self._paths:
            path = next((each for each in self._paths if "{" in each and path.startswith(each.partition("{")[0])), None)
        self.served.metrics.request(path or "other", status)
        client = scope.get("client")
        self.seen(Seen(scope["method"], path, status, time.monotonic() - began, client[0] if client else None))

    def _fault(self, error: BaseException) -> None:
        self.complain(f"internal error, {type(error).__name__}: {one_line(str(error))}")

    # Endpoints

    def _answer(self, read: Reader) -> Callable[[Request], Awaitable[Any]]:
        async def endpoint(request: Request) -> AnswerResponse:
            body = await self._body(request)
            return AnswerResponse(self.answering, read(parse_body(body), self.served))

        return endpoint

    async def _body(self, request: Request) -> bytes:
        """Read the body, within the bounds of one and of all together."""
        limits = self.served.limits
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > limits.body:
            raise _too_large(limits.body)
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_s):
                async for part in request.stream():
                    body += part
                    self._bodies += len(part)
                    request.scope[_BODY] = request.scope.get(_BODY, 0) + len(part)
                    if len(body) > limits.body:
                        raise _too_large(limits.body)
                    if self._bodies > limits.bodies:
                        raise ApiError(
                            "too many large requests at a time: try again later",
                            status=429,
                            kind="rate_limit_error",
                            code="rate_limit_exceeded",
                            headers={"Retry-After": str(self.answering.admission.retry_after)},
                        )
        except TimeoutError:
            raise ApiError(f"the body did not come within {limits.body_s:g} s", status=408) from None
        except ClientDisconnect:
            raise HungUp from None
        return bytes(body)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _metrics(self, _: Request) -> Response:
        admission = self.answering.admission
        metrics = self.served.metrics
        text = metrics.text(admission.running, admission.waiting, self.connections(), self.served.model.engine.contexts)
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    async def _models(self, _: Request) -> Response:
        # One entry, whatever its names: clients that find a single model need not be told which.
        return JSONResponse({"object": "list", "data": [self.served.description(self.served.name)]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.served.require(name)
        return JSONResponse(self.served.description(name))

    async def _stored(self, request: Request) -> Response:
        return JSONResponse(self.served.responses.require(request.path_params["response_id"], "response_id").response)

    async def _delete_stored(self, request: Request) -> Response:
        response_id = request.path_params["response_id"]
        self.served.responses.delete(response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def _ollama_version(self, _: Request) -> Response:
        # codex wants Ollama 0.13.4, the first with /v1/responses, or a development version.
        return JSONResponse({"version": "0.0.0", "gptoss": version("gptoss")})

    async def _ollama_tags(self, _: Request) -> Response:
        return JSONResponse({"models": [{"name": name, "model": name} for name in self.served.names]})


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _too_large(most: int) -> ApiError:
    return ApiError(f"the body is larger than {most:,} bytes", status=413, code="request_too_large")
