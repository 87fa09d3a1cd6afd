"""The engine on a server: the contract of engines, constraints, and what servers do wrong."""

import threading

import pytest
import torch
from completions_server import CompletionsServer, Mistake
from engine_contract import EngineContract, Subject

from gptoss.model import GenerationDefaults, LocalEngine, Request, SamplingParams
from gptoss.model.errors import ModelError, ModelNotFoundError
from gptoss.model.remote import generation
from gptoss.model.remote.address import parse_address
from gptoss.model.remote.completions import find_model
from gptoss.model.remote.engine import RemoteEngine
from gptoss.model.remote.transport import RemoteError, Transport

GREEDY = SamplingParams(temperature=0, max_tokens=6)


def connect(server: CompletionsServer, stop_tokens=(), max_context=None, notes=None, **options) -> RemoteEngine:
    transport = Transport(parse_address(server.url), **options)
    model = find_model(transport, None)
    notify = None if notes is None else notes.append
    return RemoteEngine(transport, model, 300, frozenset(stop_tokens), max_context, notify)


@pytest.fixture
def local(transformer) -> LocalEngine:
    return LocalEngine(transformer, defaults=GenerationDefaults(), cache_dtype=torch.float32)


@pytest.fixture
def server(local):
    with CompletionsServer(local) as server:
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch) -> None:
    monkeypatch.setattr(generation, "RETRY_WAITS_S", (0.0, 0.0, 0.0))


class TestRemoteEngine(EngineContract):
    @pytest.fixture
    def subject(self, transformer, server) -> Subject:
        prompt = tuple(torch.randint(0, 300, (20,), generator=torch.Generator().manual_seed(1)).tolist())
        greedy = list(prompt)
        for _ in range(8):
            greedy.append(int(transformer(greedy, logits="last").argmax()))

        def make(stop_tokens=(), max_context=None) -> RemoteEngine:
            return connect(server, stop_tokens, max_context)

        return Subject(make(), prompt, tuple(greedy[20:]), 300, make, during_prefill=(*range(100), *prompt * 15))


PROMPT = (5, 17, 200, 31)


def ids_of(generation) -> list[int]:
    return [token.id for token in generation]


def test_it_says_what_the_local_engine_says(server, local) -> None:
    params = SamplingParams(temperature=0, max_tokens=12, top_logprobs=3)
    expected = list(local.generate(Request(PROMPT, params)))
    for server.chunk in (1, 5):
        generation = connect(server).generate(Request(PROMPT, params))
        for mine, other in zip(generation, expected, strict=True):
            assert mine.id == other.id
            assert mine.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert mine.top == tuple((token, pytest.approx(value, abs=1e-4)) for token, value in other.top)
    assert generation.timing.prefill_s > 0
    assert server.requests[0]["prompt"] == list(PROMPT)


def test_a_request_leaves_nothing_to_the_servers_defaults(server) -> None:
    ids_of(
        connect(server).generate(Request(PROMPT, SamplingParams(max_tokens=3, top_p=0.9, top_k=7, min_p=0.1, seed=4)))
    )
    (sent,) = server.requests
    assert {name: sent[name] for name in ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed")} == {
        "max_tokens": 3, "temperature": 1.0, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "seed": 4,
    }  # fmt: skip
    ids_of(connect(server, max_context=20).generate(Request(PROMPT, SamplingParams(temperature=0))))
    assert server.requests[-1]["max_tokens"] == 16


def test_a_generation_that_is_given_up_frees_the_server(server) -> None:
    server.token_delay_s = 0.01
    for how in ("cancel", "close"):
        server.freed.clear()
        generation = connect(server).generate(Request(PROMPT, SamplingParams(temperature=0)))
        next(generation)
        getattr(generation, how)()
        assert server.freed.wait(5)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (Mistake(404, '{"error": {"message": "no such model\\u001b[2J"}}'), r"answered 404: no such model\\x1b\[2J"),
        (Mistake(401, '{"error": "Unauthorized"}'), r"wants a key, or another one \(401: Unauthorized\)"),
        (Mistake(500, "[1, 2]"), r"answered 500$"),
        (Mistake(302, headers=(("Location", "http://elsewhere/"),)), "redirects elsewhere, which is not followed"),
        (Mistake(429, headers=(("Retry-After", "3600"),)), "answered 429"),
        (Mistake(after=2, event='{"error": {"message": "EngineCore\\nfailed"}}'), "failed: EngineCore failed"),
        (Mistake(after=2, event='{"error": {}, "x": 1}'), "without choices"),
        (Mistake(after=2, event="{nonsense"), "an event that is not JSON"),
        (Mistake(after=2, event="[]"), "an event that is no object"),
        (Mistake(after=2, event='{"choices": [{"token_ids": [300]}]}'), "token ids outside of 300: another model"),
        (Mistake(after=2, event='{"choices": [{"token_ids": [-1]}]}'), "token ids outside of 300: another model"),
        (Mistake(after=2, event='{"choices": [{"token_ids": ["7"]}]}'), "token ids outside of 300: another model"),
        (Mistake(after=2, event='{"choices": [{"text": "x"}]}'), "text without token ids"),
        (Mistake(after=2, cut=True), "ended the answer without a reason|broke off: Connection reset"),
    ],
)
def test_what_a_server_does_wrong_is_one_line(server, mistake, says) -> None:
    server.mistakes.append(mistake)
    generation = connect(server).generate(Request(PROMPT, GREEDY))
    with pytest.raises(RemoteError, match=says) as caught:
        ids_of(generation)
    assert "\n" not in str(caught.value)
    assert next(generation, None) is None
    assert len(server.requests) == 1


def test_what_was_said_before_a_failure_was_yielded(server, local) -> None:
    expected = ids_of(local.generate(Request(PROMPT, GREEDY)))
    server.mistakes.append(Mistake(after=4, cut=True))
    generation = connect(server).generate(Request(PROMPT, GREEDY))
    said = [next(generation).id for _ in range(4)]
    with pytest.raises(RemoteError):
        next(generation)
    assert said == expected[:4]


def test_a_busy_server_is_asked_again(server, local) -> None:
    server.mistakes.extend([Mistake(503), Mistake(429, headers=(("Retry-After", "0"),))])
    notes: list[str] = []
    generation = connect(server, notes=notes).generate(Request(PROMPT, GREEDY))
    assert ids_of(generation) == ids_of(local.generate(Request(PROMPT, GREEDY)))
    assert len(notes) == 2
    assert "answered 503; trying again" in notes[0]


def test_a_server_that_stays_busy_is_an_error(server) -> None:
    server.mistakes.extend([Mistake(503)] * 9)
    with pytest.raises(RemoteError, match="answered 503"):
        ids_of(connect(server).generate(Request(PROMPT, GREEDY)))
    assert len(server.requests) == 4


def test_a_server_that_stalls_is_given_up(server) -> None:
    server.mistakes.append(Mistake(after=1, stall=True))
    with pytest.raises(RemoteError, match=r"sent nothing for 0\.2 s"):
        ids_of(connect(server, read_s=0.2).generate(Request(PROMPT, GREEDY)))


def test_cancelling_a_stalled_generation_ends_it(server) -> None:
    server.mistakes.append(Mistake(after=1, stall=True))
    generation = connect(server).generate(Request(PROMPT, GREEDY))
    next(generation)
    threading.Timer(0.1, generation.cancel).start()
    assert ids_of(generation) == []
    assert generation.finish_reason == "cancelled"


def test_nobody_there(server) -> None:
    with pytest.raises(RemoteError, match=r"http://127.0.0.1:1 cannot be reached: Connection refused"):
        find_model(Transport(parse_address("http://127.0.0.1:1")), None)


def test_which_model(server) -> None:
    transport = Transport(parse_address(server.url))
    assert find_model(transport, "nano").server == "vllm"
    with pytest.raises(ModelNotFoundError, match="has no model 'other'; it serves 'nano'"):
        find_model(transport, "other")
    server.max_model_len = None
    with pytest.raises(RemoteError, match="does not say how many tokens"):
        find_model(transport, None)


def test_a_key_goes_with_every_request(server) -> None:
    ids_of(connect(server, key="k-1").generate(Request(PROMPT, GREEDY)))
    assert server.headers[0]["Authorization"] == "Bearer k-1"


@pytest.mark.parametrize(
    ("text", "origin", "path", "model"),
    [
        ("http://h:8000", "http://h:8000", "", None),
        ("https://h/v1#m", "https://h:443", "", "m"),
        ("http://[::1]:1/a/v1/#openai/gpt-oss-20b", "http://[::1]:1", "/a", "openai/gpt-oss-20b"),
    ],
)
def test_addresses(text, origin, path, model) -> None:
    address = parse_address(text)
    assert (address.origin, address.path, address.model) == (origin, path, model)


@pytest.mark.parametrize(
    "text",
    ["http://", "ftp://h", "http://h:99999", "http://u:p@h", "http://h?x=1", "http://h\n", "http://a b", "http://[::1"],
)
def test_no_addresses(text) -> None:
    with pytest.raises(ModelError) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)
    assert "p@" not in str(caught.value)
