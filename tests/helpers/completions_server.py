"""A server with vLLM's `/v1/completions` over an engine of this process; makes mistakes when it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from threaded_server import ThreadedServer

from gptoss.model.interface import Engine, Request, SamplingParams


@dataclass
class Mistake:
    """What goes wrong with the next request.

    Attributes:
        status: answer with this status and `text` instead.
        after: tokens to send before it goes wrong.
        event: an event to send instead of the next token.
        cut: end the connection in place of the next token.
        stall: send nothing more until the server is closed.
        headers: of a status.
    """

    status: int | None = None
    text: str = "{}"
    after: int = 0
    event: str | None = None
    cut: bool = False
    stall: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class CompletionsServer(ThreadedServer):
    """The server; a context manager.

    Attributes:
        engine: samples; its constraints are made by `constrain`.
        constrain: makes a constraint of a grammar; None: grammars are refused with 400.
        obeys: whether grammars are applied at all.
        tokenizes: what `/tokenize` answers; None: there is no such path.
        mistakes: one for each of the next requests; None: none.
        requests: the bodies, in order.
        headers: of the requests, in order.
        chunk: tokens an event.
    """

    def __init__(self, engine: Engine, name: str = "nano", constrain: Callable[[str], Any] | None = None) -> None:
        self.engine, self.name, self.constrain = engine, name, constrain
        self.tokenizes: list[int] | None = None
        self.obeys, self.chunk, self.token_delay_s = True, 1, 0.0
        self.max_model_len: Any = engine.info.max_context
        self.mistakes: deque[Mistake | None] = deque()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.freed = threading.Event()
        super().__init__(_Handler, waits=True)


class _Handler(BaseHTTPRequestHandler):
    owner: CompletionsServer

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        entry = {"id": self.owner.name, "owned_by": "vllm", "max_model_len": self.owner.max_model_len}
        self._json(200, {"object": "list", "data": [entry]})

    def do_POST(self) -> None:
        owner = self.owner
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            found = {"tokens": owner.tokenizes} if owner.tokenizes is not None else {"error": "no such path"}
            return self._json(404 if owner.tokenizes is None else 200, found)
        owner.requests.append(wanted)
        owner.headers.append(dict(self.headers))
        mistake = (owner.mistakes.popleft() if owner.mistakes else None) or Mistake(after=1 << 30)
        if mistake.status is not None:
            return self._json(mistake.status, json.loads(mistake.text), mistake.headers)
        constraint = None
        if "structured_outputs" in wanted:
            if owner.constrain is None:
                return self._json(400, {"error": {"message": "no grammars here", "code": 400}})
            constraint = owner.constrain(wanted["structured_outputs"]["grammar"]) if owner.obeys else None
        if "allowed_token_ids" in wanted or "logit_bias" in wanted:
            constraint = _Only(wanted.get("allowed_token_ids"), map(int, wanted.get("logit_bias", {})))
        try:
            self._stream(wanted, constraint, mistake)
        except ConnectionError:
            owner.freed.set()
        return None

    def _stream(self, wanted: dict[str, Any], constraint: Any, mistake: Mistake) -> None:
        params = SamplingParams(
            wanted["temperature"], wanted["top_p"], wanted["top_k"] or None, wanted["min_p"], wanted["seed"],
            wanted["max_tokens"], wanted["logprobs"],
        )  # fmt: skip
        stop = frozenset(wanted["stop_token_ids"])
        request = Request(tuple(wanted["prompt"]), params, stop, constraint, ignore_stop=wanted["ignore_eos"])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": a comment\n\n")

        def check(*_: int) -> None:
            self.wfile.write(b": reading\n\n")  # fails where the client has gone

        generation = self.owner.engine.generate(request, check)
        batch, sent = [], 0
        try:
            for token in generation:
                if sent >= mistake.after:
                    if mistake.stall:
                        self.owner.closing.wait(30)
                    if mistake.event is not None:
                        self._event(mistake.event)
                        self._event("[DONE]")
                    if mistake.stall or mistake.event is not None or mistake.cut:
                        return
                time.sleep(self.owner.token_delay_s)
                batch.append(token)
                sent += 1
                if len(batch) == self.owner.chunk or generation.finish_reason is not None:
                    reason = generation.finish_reason and ("stop" if generation.finish_reason == "stop" else "length")
                    self._event(json.dumps({"choices": [_choice(batch, reason)]}))
                    batch = []
        finally:
            generation.close()
        usage = {
            "prompt_tokens": len(request.ids),
            "prompt_tokens_details": {"cached_tokens": generation.cached_tokens},
        }
        self._event(json.dumps({"choices": [], "usage": usage}))
        self._event("[DONE]")

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())

    def _json(self, status: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _choice(tokens: list[Any], reason: str | None) -> dict[str, Any]:
    return {
        "index": 0,
        "text": "x",
        "token_ids": [token.id for token in tokens],
        "finish_reason": reason,
        "logprobs": {
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{f"token_id:{other}": value for other, value in token.top} for token in tokens],
        },
    }


class _Only:
    """Allows some tokens, or all but some."""

    def __init__(self, allowed: list[int] | None, forbidden: Any) -> None:
        self._allowed, self._forbidden = allowed, set(forbidden)

    def next(self) -> Any:
        from gptoss.model.constraint import LogitMask

        if self._allowed is not None:
            return LogitMask.allowing(self._allowed, 1 << 18)
        return LogitMask.forbidding(self._forbidden, 1 << 18)

    def accept(self, _token_id: int) -> bool:
        return False

    def describe(self) -> None:
        return None
