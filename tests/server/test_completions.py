"""/v1/completions: token ids and text, in and out, as openai-python and a client by ids read them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from gptoss.model.interface import Request, SamplingParams

PROMPT = "347 + 85 is"


@pytest.fixture(scope="module")
def post(server):
    with server.client() as client:

        def send(**body: Any) -> dict[str, Any]:
            response = client.post("/v1/completions", json={"model": "nano", **body})
            assert response.status_code == 200, response.text
            return response.json()

        yield send


def sampled(nano, prompt=PROMPT, **params: Any) -> list[int]:
    engine = nano.engine
    request = Request(tuple(nano.encoding.encode(prompt)), engine.info.defaults.override(**params))
    return [token.id for token in engine.generate(request)]


def test_ids_are_those_of_the_engine(nano, post) -> None:
    ids = nano.encoding.encode(PROMPT)
    answer = post(prompt=ids, max_tokens=20, return_token_ids=True)
    (choice,) = answer["choices"]
    assert choice["token_ids"] == sampled(nano, max_tokens=20)
    assert choice["prompt_token_ids"] == ids
    assert choice["text"] == nano.encoding.decode(choice["token_ids"])
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 20
    again = post(prompt=ids, max_tokens=1)["usage"]
    assert again["prompt_tokens_details"]["cached_tokens"] == len(ids) - 1


def test_a_stop_token_is_among_the_ids_and_not_in_the_text(nano, post) -> None:
    ids = nano.encoding.encode(PROMPT)
    (choice,) = post(prompt=ids, max_tokens=500, return_token_ids=True)["choices"]
    if choice["finish_reason"] == "stop":
        assert choice["token_ids"][-1] in nano.engine.info.stop_tokens
    fourth = choice["token_ids"][3]
    (cut,) = post(prompt=ids, max_tokens=500, return_token_ids=True, stop_token_ids=[fourth])["choices"]
    assert cut["token_ids"] == choice["token_ids"][:4]
    assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", fourth)
    assert cut["text"] == nano.encoding.decode(choice["token_ids"][:3])


@pytest.mark.parametrize("stop", ["is ", ["carry", "Tens"], ["\n"], ["not there"]])
def test_the_text_ends_before_a_stop_string(post, stop) -> None:
    whole = post(prompt=PROMPT, max_tokens=60)["choices"][0]["text"]
    stops = [stop] if isinstance(stop, str) else stop
    end = min((whole.find(each) for each in stops if each in whole), default=len(whole))
    for stream in (False, True):
        text, finish = _text(post, stream, prompt=PROMPT, max_tokens=60, stop=stop)
        assert text == whole[:end]
        assert finish == ("stop" if end < len(whole) else "length")


def _text(post, stream: bool, **body: Any) -> tuple[str, str]:
    if not stream:
        (choice,) = post(**body)["choices"]
        return choice["text"], choice["finish_reason"]
    pieces = list(_stream(post, **body))
    return "".join(each["text"] for each in pieces), pieces[-1]["finish_reason"]


def _stream(post, **body: Any):
    client = post.__closure__[0].cell_contents
    with client.stream("POST", "/v1/completions", json={"stream": True, **body}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: {"):
                yield from json.loads(line[6:])["choices"]


def test_a_stream_has_the_ids_of_the_whole(nano, post) -> None:
    ids = nano.encoding.encode(PROMPT)
    post(prompt=ids, max_tokens=30)  # so that both find the same prefix computed; another cut may round otherwise
    whole = post(prompt=ids, max_tokens=30, return_token_ids=True, logprobs=2)["choices"][0]
    pieces = list(_stream(post, prompt=ids, max_tokens=30, return_token_ids=True, logprobs=2))
    assert pieces[0]["prompt_token_ids"] == ids
    assert all("prompt_token_ids" not in each for each in pieces[1:])
    assert [token for each in pieces for token in each["token_ids"]] == whole["token_ids"]
    assert "".join(each["text"] for each in pieces) == whole["text"]
    for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [value for each in pieces for value in each["logprobs"][key]] == whole["logprobs"][key]


def test_log_probabilities_are_the_engines(nano, post) -> None:
    answer = post(prompt=PROMPT, max_tokens=5, logprobs=3, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    request = Request(tuple(nano.encoding.encode(PROMPT)), SamplingParams(temperature=0, max_tokens=5, top_logprobs=3))
    tokens = list(nano.engine.generate(request))
    assert answer["tokens"] == [f"token_id:{token.id}" for token in tokens]
    assert answer["token_logprobs"] == pytest.approx([token.logprob for token in tokens])
    assert [len(each) for each in answer["top_logprobs"]] == [3] * 5


def test_a_seed_repeats_and_each_choice_has_its_own(post) -> None:
    asked = {"prompt": "seed", "max_tokens": 12, "temperature": 1.5, "return_token_ids": True}
    both = post(**asked, seed=7, n=2)["choices"]
    assert [choice["index"] for choice in both] == [0, 1]
    assert both[0]["token_ids"] != both[1]["token_ids"]
    assert post(**asked, seed=8)["choices"][0]["token_ids"] == both[1]["token_ids"]
    again = post(**asked, seed=both[0]["seed"])["choices"][0]
    assert again["token_ids"] == both[0]["token_ids"]
    free = post(**asked)["choices"][0]
    assert post(**asked, seed=free["seed"])["choices"][0]["token_ids"] == free["token_ids"]


def test_a_text_as_token_ids(nano, server) -> None:
    text = "12 + 30 <|end|>"
    with server.client() as client:
        answer = client.post("/tokenize", json={"model": "nano", "prompt": text, "add_special_tokens": False}).json()
        assert answer == {"count": len(answer["tokens"]), "max_model_len": 4096, "tokens": nano.encoding.encode(text)}
        assert client.post("/tokenize", json={"messages": []}).status_code == 400


def test_several_prompts(nano, post) -> None:
    texts = ["1 + 1 is", "2 + 2 is"]
    answer = post(prompt=texts, max_tokens=8, n=2, return_token_ids=True)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["choices"][2]["token_ids"] == sampled(nano, texts[1], max_tokens=8)
    assert answer["usage"]["completion_tokens"] == 32
    assert answer["usage"]["prompt_tokens"] == sum(len(nano.encoding.encode(text)) for text in texts)


def test_text_never_becomes_a_special_token(nano, post) -> None:
    answer = post(prompt="<|start|>system<|message|>", max_tokens=1, return_token_ids=True)
    assert not any(nano.encoding.is_special(token) for token in answer["choices"][0]["prompt_token_ids"])


def test_openai_python(nano, client) -> None:
    ids = nano.encoding.encode(PROMPT)
    answer = client.completions.create(model="nano", prompt=ids, max_tokens=9, logprobs=0, seed=3)
    assert answer.usage.total_tokens == len(ids) + 9
    stream = client.completions.create(
        model="nano", prompt=ids, max_tokens=9, stream=True, stream_options={"include_usage": True}
    )
    pieces = list(stream)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == answer.choices[0].text
    assert pieces[-1].usage.completion_tokens == 9
    assert client.models.retrieve("nano").model_extra["max_model_len"] == 4096
    with pytest.raises(openai.NotFoundError, match="'gpt-4o' is not served here, nano is"):
        client.completions.create(model="gpt-4o", prompt="x")
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="nano", prompt=[5] * 4096)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "prompt", "prompt must be"),
        ({"prompt": []}, "prompt", "prompt must be"),
        ({"prompt": ["a", 1]}, "prompt", "prompt must be"),
        ({"prompt": [1, True]}, "prompt", "token ids alone"),
        ({"prompt": ["a"] * 17}, "prompt", "at most 16"),
        ({"prompt": [100_000]}, None, "not in the model's vocabulary"),
        ({"prompt": [-1]}, None, "not in the model's vocabulary"),
        ({"prompt": ""}, None, "the prompt is empty"),
        ({"prompt": "x", "n": 0}, "n", "from 1 to 16"),
        ({"prompt": ["x", "y"], "n": 9}, "n", "at most 16 answers"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens", "1 or more"),
        ({"prompt": "x", "max_tokens": 1.5}, "max_tokens", "a whole number"),
        ({"prompt": "x", "temperature": -1}, None, "temperature is -1.0"),
        ({"prompt": "x", "temperature": "hot"}, "temperature", "a number"),
        ({"prompt": "x", "temperature": 10**400}, "temperature", "a number"),
        ({"prompt": "x", "top_p": 0}, None, "top_p is 0.0"),
        ({"prompt": "x", "top_k": 1.5}, "top_k", "a whole number"),
        ({"prompt": "x", "seed": "a"}, "seed", "a whole number"),
        ({"prompt": "x", "logprobs": 21}, "logprobs", "from 0 to 20"),
        ({"prompt": "x", "stop": ""}, "stop", "texts of 1 to"),
        ({"prompt": "x", "stop": ["a"] * 17}, "stop", "at most 16"),
        ({"prompt": "x", "stop": [1]}, "stop", "texts of 1 to"),
        ({"prompt": "x", "stream": "yes"}, "stream", "true or false"),
        ({"prompt": "x", "echo": True}, "echo", "not supported"),
        ({"prompt": "x", "frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
        ({"prompt": "x", "logit_bias": {"1": 1}}, "logit_bias", "can only be -100"),
        ({"prompt": "x", "model": 5}, "model", "a text"),
    ],
)
def test_what_is_wrong_is_named(server, body, param, words) -> None:
    with server.client() as client:
        for stream in (False, True):
            response = client.post("/v1/completions", json={"stream": stream, **body})
            assert response.status_code == 400
            error = response.json()["error"]
            assert error["param"] == param
            assert words in error["message"]
    assert server.complaints == []


def test_log_probabilities_are_bounded(start) -> None:
    with start(logprobs=1000).client() as client:
        asked = {"prompt": "x", "max_tokens": 60, "logprobs": 20}
        refused = client.post("/v1/completions", json=asked)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logprobs")
        assert client.post("/v1/completions", json={**asked, "max_tokens": 40}).status_code == 200
        assert client.post("/v1/completions", json={**asked, "stream": True}).status_code == 200
        for route, body in (
            ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("responses", {"input": "x"}),
        ):
            limits = {"logprobs": True} if "chat" in route else {"top_logprobs": 1}
            assert client.post(f"/v1/{route}", json={**body, **limits}).status_code == 400


def test_neutral_values_and_unknown_fields_are_no_error(post) -> None:
    post(prompt="x", max_tokens=1, frequency_penalty=0, logit_bias={}, best_of=1, user="me", stop=None, seed=-5)


def test_four_clients_get_what_each_gets_alone(server, post) -> None:
    asked = [
        {
            "prompt": f"{n} + {n * 7} is",
            "max_tokens": 25,
            "temperature": 1.0,
            "seed": n,
            "return_token_ids": True,
            "logprobs": 2,
        }
        for n in range(5)
    ]
    alone = [post(**body)["choices"] for body in asked]

    def ask(body: dict[str, Any]) -> Any:
        with server.client() as client:
            return client.post("/v1/completions", json=body).json()["choices"]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, asked)) == alone
