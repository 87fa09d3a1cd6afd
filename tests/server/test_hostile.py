"""Clients that send garbage, are slow, hang up, or are too many: the others get their answers, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from gptoss.cli.server.answering import Answering, HungUp
from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.fields import parse_body
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.work import Work

WORDS = "word " * 200


def until(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


def connect(running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=10)


def request(body: dict[str, Any], path: str = "/v1/completions") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return f"{head}\r\n\r\n".encode() + data


def received(open_socket: socket.socket) -> bytes:
    """All that comes until the server closes."""
    data = b""
    try:
        while part := open_socket.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def has_come(open_socket: socket.socket, wanted: bytes) -> bool:
    """Whether this comes next, in however many pieces."""
    data = b""
    while wanted not in data and (part := open_socket.recv(65536)):
        data += part
    return wanted in data


def is_idle(running) -> bool:
    admission = running.application.answering.admission
    return admission.running == 0 and admission.waiting == 0


# Hanging up


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_frees_the_turn_within_a_token(start, stream) -> None:
    running = start(WORDS, engine={"token_delay_s": 0.05})
    with connect(running) as client:
        client.sendall(request({"prompt": "x", "max_tokens": 1000, "stream": stream}))
        assert until(lambda: running.application.answering.admission.running == 1)
        if stream:
            assert b"200 OK" in client.recv(4096)
    assert until(lambda: is_idle(running), 0.5)
    assert until(lambda: bool(running.seen))
    assert running.seen[0].status == (200 if stream else 499) or stream
    assert running.application.served.metrics.count("cancelled") == 1


def test_hanging_up_ends_a_prefill(start) -> None:
    running = start(WORDS, engine={"prefill_delay_s": 30})
    with connect(running) as client:
        client.sendall(request({"prompt": "x"}))
        assert until(lambda: running.application.answering.admission.running == 1)
    assert until(lambda: is_idle(running), 0.5)


def test_hanging_up_in_the_prefill_of_a_model(nano, start) -> None:
    running = start()
    ids = [random.Random(3).randrange(700) for _ in range(4000)]
    with connect(running) as client:
        client.sendall(request({"prompt": ids}))
        assert until(lambda: running.application.answering.admission.running == 1)
    assert until(lambda: is_idle(running), 2)
    assert nano.engine.contexts.busy == 0


def test_hanging_up_leaves_the_queue(start) -> None:
    running = start(WORDS, "an answer<|return|>", engine={"token_delay_s": 0.05}, parallel=1)
    admission = running.application.answering.admission
    with connect(running) as first, connect(running) as second, connect(running) as third:
        first.sendall(request({"prompt": "x", "max_tokens": 1000}))
        assert until(lambda: admission.running == 1)
        second.sendall(request({"prompt": "x"}))
        assert until(lambda: admission.waiting == 1)
        third.sendall(request({"prompt": "x"}))
        assert until(lambda: admission.waiting == 2)
        second.close()
        assert until(lambda: admission.waiting == 1)
        first.close()
        assert has_come(third, b"an answer")
    assert until(lambda: is_idle(running))


# Too many


def test_a_full_queue_refuses_and_says_when_to_come_again(start) -> None:
    running = start(WORDS, "yes<|return|>", engine={"token_delay_s": 0.05}, parallel=1, waiting=1)
    admission = running.application.answering.admission
    with connect(running) as first, connect(running) as second, running.client() as third:
        first.sendall(request({"prompt": "x", "max_tokens": 1000}))
        assert until(lambda: admission.running == 1)
        second.sendall(request({"prompt": "x"}))
        assert until(lambda: admission.waiting == 1)
        refused = third.post("/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert "gptoss_requests_waiting 1" in third.get("/metrics").text
        first.close()
        assert has_come(second, b"yes")


def test_more_connections_than_the_limit_are_closed(start) -> None:
    running = start(connections=3)
    with connect(running) as one, connect(running) as two, connect(running) as three:
        assert until(lambda: running.application.connections() == 3)
        with connect(running) as fourth:
            assert received(fourth) == b""
        three.close()
        assert until(lambda: running.application.connections() == 2)
        with running.client() as client:
            assert client.get("/health").status_code == 200
        assert one.fileno() != two.fileno()


# Slow, large, broken


def test_a_head_that_does_not_come(start) -> None:
    running = start(head_s=0.2, idle_s=1)
    with connect(running) as silent, connect(running) as slow, connect(running) as second:
        slow.sendall(b"GET /health HTTP/1.1\r\n")
        second.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he")
        assert received(silent) == received(slow) == b""
        assert received(second).count(b"200 OK") == 1
    assert until(lambda: running.application.connections() == 0)


def test_a_body_that_does_not_come(start) -> None:
    running = start(body_s=0.2)
    with connect(running) as client:
        client.sendall(request({"prompt": "x"})[:-5])
        assert has_come(client, b"408 Request Timeout")


def test_a_body_that_is_too_large(start) -> None:
    running = start(body=1000)
    with running.client() as client:
        declared = client.post("/v1/completions", json={"prompt": "x" * 2000})
        assert (declared.status_code, declared.json()["error"]["code"]) == (413, "request_too_large")
        pieces = client.post(
            "/v1/completions", content=iter([b"x" * 600] * 3), headers={"Content-Type": "application/json"}
        )
        assert pieces.status_code == 413
        assert client.get("/health").status_code == 200


def test_bodies_that_are_too_large_together(start) -> None:
    running = start(WORDS, engine={"token_delay_s": 0.05}, bodies=1500)
    with connect(running) as first, running.client() as client:
        first.sendall(request({"prompt": "x" * 1000, "max_tokens": 1000}))
        assert until(lambda: running.application.answering.admission.running == 1)
        assert client.post("/v1/completions", json={"prompt": "x" * 1000}).status_code == 429
        first.close()
        assert until(lambda: is_idle(running))
        assert until(lambda: running.application._bodies == 0)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
        b"GET / HTTP/x.y\r\n\r\n",
        b"\r\n" * 50 + b"\0\xff",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_garbage_is_refused(server, data) -> None:
    with connect(server) as client:
        client.sendall(data)
        answer = received(client)
        assert b"400" in answer.split(b"\r\n")[0]
        assert b"no valid HTTP request" in answer
    assert server.complaints == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": 1', "not JSON"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
    ],
)
def test_bodies_that_are_no_object(body, words) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        parse_body(body)
    assert caught.value.status == 400


def test_other_paths_and_methods(server) -> None:
    with server.client() as client:
        assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found"
        assert client.get("/v1/completions").status_code == 405
        assert client.get("/v1/models/%2e%2e/etc").status_code == 404
        assert client.get("/health/").status_code == 404
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
        assert client.get("/health", headers=upgrade).status_code == 200


@pytest.mark.parametrize("text", ["a" * 1_000_000, "\u0301" * 100_000])
def test_texts_that_take_long_to_cut_into_tokens(server, text) -> None:
    with server.client() as client:
        for route, body in (
            ("completions", {"prompt": text}),
            ("chat/completions", {"messages": [{"role": "user", "content": text}]}),
            ("chat/completions", {"messages": [{"role": "system", "content": text}, {"role": "user", "content": "x"}]}),
            ("responses", {"input": text}),
        ):
            refused = client.post(f"/v1/{route}", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
            assert "characters does not fit" in refused.json()["error"]["message"]


# Time


def test_an_answer_that_takes_too_long(start) -> None:
    running = start(WORDS, WORDS, engine={"token_delay_s": 0.02}, answer_s=0.2)
    with running.client() as client:
        whole = client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1000})
        assert (whole.status_code, whole.json()["error"]["code"]) == (504, "timeout")
        with client.stream("POST", "/v1/completions", json={"prompt": "x", "max_tokens": 1000, "stream": True}) as got:
            lines = [line for line in got.iter_lines() if line]
        assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "timeout"
        assert lines[-1] == "data: [DONE]"
    assert until(lambda: is_idle(running))


def test_a_stream_without_news_has_comments(start) -> None:
    running = start("an answer<|return|>", engine={"prefill_delay_s": 0.35}, heartbeat_s=0.1)
    with (
        running.client() as client,
        client.stream("POST", "/v1/completions", json={"prompt": "x", "stream": True}) as r,
    ):
        lines = [line for line in r.iter_lines() if line]
    assert lines[0] == ": computing"
    assert lines[-1] == "data: [DONE]"


def test_the_end_waits_for_running_answers(start) -> None:
    running = start("one two three<|return|>", engine={"token_delay_s": 0.05})
    with connect(running) as client:
        client.sendall(request({"prompt": "x"}))
        assert until(lambda: running.application.answering.admission.running == 1)
        running.serving.end()
        assert b"one two three" in received(client)


def test_the_end_does_not_wait_for_ever(start) -> None:
    running = start(WORDS, engine={"token_delay_s": 0.05}, end_s=0.2)
    with connect(running) as client:
        client.sendall(request({"prompt": "x", "max_tokens": 1000, "stream": True}))
        assert b"200 OK" in client.recv(65536)
        running.serving.end()
        assert b"server_ending" in received(client)


def test_weights_are_kept_after_the_first_answer_and_prompts_never(start) -> None:
    running = start("x<|return|>", "y<|return|>")
    engine = running.application.served.model.engine
    with running.client() as client:
        for _ in range(2):
            assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 200
    assert until(lambda: engine.retained == [[]])


def test_the_second_end_does_not_wait(start) -> None:
    running = start(WORDS, engine={"token_delay_s": 0.05})
    with connect(running) as client:
        client.sendall(request({"prompt": "x", "max_tokens": 1000, "stream": True}))
        assert b"200 OK" in client.recv(65536)
        running.serving.end()
        running.serving.end()
        assert b"server_ending" in received(client)


class _Endless:
    """A stream that never ends by itself."""

    is_streamed = True

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def compute(self, work: Work) -> None:
        work.on_cancel(self.cancelled.set)
        while not self.cancelled.is_set():
            work.emit(b"x")

    def failed(self, error: dict[str, Any]) -> bytes:
        raise AssertionError(error)


def test_a_client_that_does_not_read_is_given_up() -> None:
    answering = Answering(Limits(stall_s=0.1), lambda error: pytest.fail(str(error)))
    answer = _Endless()

    async def ask() -> None:
        sent = 0

        async def send(message: Any) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            if message["type"] == "http.response.body":
                await asyncio.sleep(60)

        async def receive() -> Any:
            await asyncio.sleep(60)

        with pytest.raises(HungUp):
            await answering.respond(answer, receive, send)
        assert answer.cancelled.is_set()
        assert sent <= 1000  # the worker waited too

    asyncio.run(asyncio.wait_for(ask(), 10))
    answering.close()
    assert answering.admission.running in (0, 1)


def test_a_fault_of_the_program_is_said_and_served_on(start, scripted, nano) -> None:
    running = start("x<|return|>", "fine<|return|>")
    running.application.served.model.engine.completions[0] = [RuntimeError("a secret")]
    with running.client() as client:
        broken = client.post("/v1/completions", json={"prompt": "x"})
        assert broken.status_code == 500
        assert "secret" not in broken.text
        assert client.post("/v1/completions", json={"prompt": "x"}).json()["choices"][0]["text"] == "fine"
    assert running.complaints[0] == "internal error, RuntimeError: a secret"


# All at once


@pytest.mark.parametrize("bad_clients", [60, pytest.param(200, marks=pytest.mark.long)])
def test_bad_clients_harm_no_answer(nano, start, bad_clients) -> None:
    running = start(head_s=0.5, body_s=0.5, waiting=400)
    body = {"prompt": "12 + 30 is", "max_tokens": 30, "return_token_ids": True, "seed": 1}
    with running.client() as client:
        alone = client.post("/v1/completions", json=body).json()["choices"]
        draw = random.Random(5)
        bad = []
        for number in range(bad_clients):
            each = connect(running)
            bad.append(each)
            kind = number % 4
            if kind == 0:
                each.sendall(draw.randbytes(100))
            elif kind == 1:
                each.sendall(request(body)[: draw.randrange(1, 150)])
            elif kind == 2:
                each.sendall(request({**body, "stream": True, "max_tokens": 4000}))
            else:
                each.sendall(request({**body, "max_tokens": 4000}))
                each.close()
            if kind == 2 and number % 8 == 2:
                each.recv(10)
                each.close()
        answers = [client.post("/v1/completions", json=body).json()["choices"] for _ in range(3)]
        assert answers == [alone] * 3
        for each in bad:
            each.close()
        assert until(lambda: is_idle(running) and running.application.connections() == 1, 10)
        assert nano.engine.contexts.busy == 0
        assert client.post("/v1/completions", json=body).json()["choices"] == alone
    assert running.complaints == []
    assert running.application._bodies == 0
