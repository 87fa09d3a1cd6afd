"""What a real vLLM has sent, replayed."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gptoss.model import Request, SamplingParams
from gptoss.model.remote.address import parse_address
from gptoss.model.remote.completions import ServedModel, find_model
from gptoss.model.remote.engine import RemoteEngine
from gptoss.model.remote.transport import RemoteError, Transport

RECORDED = Path(__file__).with_name("recorded")
PROMPT = (764, 369, 766)
STOP = frozenset({760, 761, 767})
ANSWER = [51, 52, 55, 273, 56, 53, 267, 52, 51, 50, 761]
"""`347 + 85 = 432<|return|>`"""


class _Replay(BaseHTTPRequestHandler):
    text = ""

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        found = re.search(r"^(\d{3}) .*\n(?:.+\n)*\n((?:.|\n)*)", self.text, re.MULTILINE)
        status, body = (int(found[1]), found[2]) if found else (200, self.text)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.removesuffix("<EOF>").encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


@pytest.fixture
def replay():
    servers = []

    def start(name: str) -> Transport:
        handler = type("Handler", (_Replay,), {"text": (RECORDED / f"{name}.txt").read_text()})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return Transport(parse_address(f"http://127.0.0.1:{server.server_address[1]}"))

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def generate(transport: Transport, **params):
    engine = RemoteEngine(transport, ServedModel("nano", 4096, "vllm"), 768, STOP)
    return engine.generate(Request(PROMPT, SamplingParams(temperature=0, **params)))


def test_models(replay) -> None:
    assert find_model(replay("models"), None) == ServedModel("nano", 4096, "vllm")


@pytest.mark.parametrize("name", ["stream", "stream_interval"])
def test_an_answer_token_by_token_and_in_batches(replay, name) -> None:
    generation = generate(replay(name))
    ids = [token.id for token in generation]
    assert (len(ids), ids[:3], ids[-11:]) == (99, [763, 311, 766], ANSWER)
    assert (generation.finish_reason, generation.cached_tokens) == ("stop", 0)


def test_log_probabilities(replay) -> None:
    tokens = list(generate(replay("stream_logprobs"), max_tokens=5, top_logprobs=2))
    assert [token.id for token in tokens] == [763, 311, 766, 51, 52]
    assert tokens[0].top == ((763, 0.0), (622, -16.9375))
    assert tokens[3].logprob == pytest.approx(-0.000345, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("too_long_stream", "answered 400: This model's maximum context length is 4096 tokens"),
        ("wrong_model", "answered 404: The model `other` does not exist"),
        ("outside_vocab", "answered 400: Token id 768 is out of vocabulary"),
        ("unauthorised_completion", r"wants a key, or another one \(401: Unauthorized\)"),
        ("bad_grammar", "answered 400: Grammar error: 1"),
        ("death_worker", "failed: EngineCore encountered an issue"),
        ("death_server", "ended the answer without a reason"),
        ("stream_error_midway", "failed: Internal server error"),
    ],
)
def test_failures_are_one_line(replay, name, says) -> None:
    with pytest.raises(RemoteError, match=says) as caught:
        list(generate(replay(name)))
    assert "\n" not in str(caught.value)
