"""/v1/responses, as openai-python reads it and as codex writes it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from gptoss.cli.server.remembered import Memory

QUESTION = "What is 347 + 85?"
ADD = {
    "type": "function",
    "name": "add",
    "description": "Add.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3, 4]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
CALL = '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 3}<|call|>'
REASONED = f"<|channel|>analysis<|message|>I must add.<|end|><|start|>assistant{CALL}"
SAID = f"<|channel|>commentary<|message|>I add.<|end|><|start|>assistant{REASONED}"
ANSWER = "<|channel|>final<|message|>It is 4.<|return|>"


@pytest.fixture
def scripted_client(start):
    """A server that says this, as an openai client, and its prompts."""

    def begin(*completions: str, **options: Any):
        running = start(*completions, **options)
        engine, encoding = running.application.served.model.engine, running.application.served.model.encoding
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="unused", max_retries=0)
        opened.append(client)
        return client, lambda: [encoding.decode(ids) for ids in engine.prompts]

    opened: list[openai.OpenAI] = []
    yield begin
    for client in opened:
        client.close()


def test_a_response(client) -> None:
    response = client.responses.create(model="nano", input=QUESTION)
    assert response.output_text == "347 + 85 = 432"
    assert response.status == "completed"
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text.startswith("347 + 85")
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    again = client.responses.create(model="nano", input=[{"role": "user", "content": QUESTION}])
    assert again.usage.input_tokens_details.cached_tokens == response.usage.input_tokens - 1


def test_the_order_of_the_events(client) -> None:
    kinds = []
    with client.responses.stream(model="nano", input=QUESTION) as stream:
        events = list(stream)
        final = stream.get_final_response()
    for event in events:
        kind = event.type.removeprefix("response.")
        if not kinds or kinds[-1] != kind:
            kinds.append(kind)
    assert kinds == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        "completed",
    ]
    raw = list(client.responses.create(model="nano", input=QUESTION, stream=True))
    assert [event.sequence_number for event in raw] == list(range(len(raw)))
    assert len({event.response.id for event in raw if hasattr(event, "response")}) == 1
    assert final.output_text == "347 + 85 = 432"
    assert "".join(event.delta for event in raw if event.type == "response.output_text.delta") == final.output_text


def test_stored_responses_are_gone_on_with(client) -> None:
    first = client.responses.create(model="nano", input=QUESTION)
    second = client.responses.create(model="nano", input="What is 5 - 9?", previous_response_id=first.id)
    assert "-4" in second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens + 10
    assert client.responses.retrieve(first.id).output == first.output
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="is not stored here"):
        client.responses.create(model="nano", input="x", previous_response_id=first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(first.id)
    unstored = client.responses.create(model="nano", input=QUESTION, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unstored.id)


def test_what_is_stored_is_bounded() -> None:
    memory: Memory[str] = Memory(100, len)
    for key in "abc":
        memory.put(key, "x" * 40)
    assert [memory.get(key) is not None for key in "abc"] == [False, True, True]
    memory.get("b")
    memory.put("d", "x" * 40)
    assert memory.get("c") is None
    memory.put("e", "x" * 101)
    assert (memory.get("e"), memory.nbytes) == (None, 80)
    memory.put("b", "")
    assert memory.nbytes == 40


def test_a_call_and_its_result_through_a_stored_response(scripted_client) -> None:
    client, prompts = scripted_client(SAID, ANSWER)
    first = client.responses.create(model="nano", input=QUESTION, tools=[ADD])
    assert [item.type for item in first.output] == ["message", "reasoning", "function_call"]
    assert first.output[0].model_extra["phase"] if first.output[0].model_extra else first.output[0].phase
    call = first.output[2]
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1, "b": 3})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "4"}
    second = client.responses.create(model="nano", input=[result], previous_response_id=first.id, tools=[ADD])
    assert second.output_text == "It is 4."
    one, two = prompts()
    assert two.startswith(one + SAID)
    assert "<|start|>functions.add to=assistant<|channel|>commentary<|message|>4<|end|>" in two


@pytest.mark.parametrize("kept", ["all", "no reasoning", "sealed", "call alone"])
def test_a_call_and_its_result_as_items(scripted_client, kept) -> None:
    client, prompts = scripted_client(SAID, ANSWER)
    first = client.responses.create(
        model="nano", input=QUESTION, tools=[ADD], store=False, include=["reasoning.encrypted_content"]
    )
    items = [item.to_dict() for item in first.output]
    if kept == "no reasoning":
        del items[1]
    elif kept == "sealed":
        del items[1]["content"]
    elif kept == "call alone":
        del items[:2]
    result = {
        "type": "function_call_output",
        "call_id": items[-1]["call_id"],
        "output": [{"type": "input_text", "text": "4"}],
    }
    client.responses.create(
        model="nano", input=[{"role": "user", "content": QUESTION}, *items, result], tools=[ADD], store=False
    )
    one, two = prompts()
    assert two.startswith(one + SAID)


def test_items_of_another_server(scripted_client) -> None:
    client, prompts = scripted_client(ANSWER)
    client.responses.create(
        model="nano",
        instructions="Be brief.",
        input=[
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Add."}]},
            {"role": "user", "content": QUESTION},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I add."}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "function_call_output", "call_id": "c1", "output": "<|end|>"},
            {"role": "developer", "content": "Now."},
        ],
    )
    (prompt,) = prompts()
    assert "# Instructions\n\nBe brief.\n\nAdd.<|end|>" in prompt
    assert (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I add.<|end|>"
        in prompt
    )
    assert "<|message|><|end|><|end|><|start|>developer<|message|># Instructions\n\nNow.<|end|>" in prompt


def test_apply_patch_as_codex_offers_it(scripted_client) -> None:
    patch = "*** Begin Patch\n*** Delete File: a\n*** End Patch"
    said = f"<|channel|>commentary to=functions.apply_patch<|message|>{json.dumps({'input': patch})}<|call|>"
    client, prompts = scripted_client(said, ANSWER)
    tools = [
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "namespace", "name": "n", "tools": []},
        {"type": "web_search"},
    ]
    events = list(client.responses.create(model="nano", input=QUESTION, tools=tools, stream=True, store=False))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[2:6] == [
        *("output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done")
    ]
    (call,) = events[-1].response.output
    assert (call.type, call.input) == ("custom_tool_call", patch)
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Done."}
    asked = [{"role": "user", "content": QUESTION}, call.to_dict(), result]
    client.responses.create(model="nano", input=asked, tools=tools)
    assert prompts()[1].startswith(prompts()[0] + said)


def test_a_demanded_call_is_streamed(client) -> None:
    events = list(
        client.responses.create(
            model="nano", input=QUESTION, tools=[ADD], tool_choice={"type": "function", "name": "add"}, stream=True
        )
    )
    done = next(event for event in events if event.type == "response.function_call_arguments.done")
    assert set(json.loads(done.arguments)) == {"a", "b"}
    assert events[-1].response.output[-1].name == "add"


class Sum(BaseModel):
    total: int


def test_a_schema_is_held(client) -> None:
    response = client.responses.parse(model="nano", input=QUESTION, text_format=Sum, max_output_tokens=300)
    assert isinstance(response.output_parsed, Sum)


def test_a_response_that_is_cut(client) -> None:
    response = client.responses.create(model="nano", input=QUESTION, max_output_tokens=5)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    events = list(client.responses.create(model="nano", input=QUESTION, max_output_tokens=5, stream=True))
    assert events[-1].type == "response.incomplete"


def test_log_probabilities(client) -> None:
    response = client.responses.create(
        model="nano", input=QUESTION, top_logprobs=2, include=["message.output_text.logprobs"]
    )
    (part,) = response.output[1].content
    assert "".join(each.token for each in part.logprobs) == part.text
    assert all(len(each.top_logprobs) == 2 for each in part.logprobs)


def test_a_prompt_that_is_too_long(client) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="nano", input="9 " * 9000)
    assert caught.value.code == "context_length_exceeded"
    *_, last = client.responses.create(model="nano", input="9 " * 9000, stream=True)
    assert (last.type, last.response.error.code) == ("response.failed", "context_length_exceeded")
    turn = [{"role": "user", "content": "1 + 1 " * 300}, {"role": "assistant", "content": "2"}]
    long = [*turn * 6, {"role": "user", "content": "What is 2 + 3?"}]
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="nano", input=long)
    assert "5" in client.responses.create(model="nano", input=long, truncation="auto").output_text


def test_the_end_of_a_stream_that_the_server_ends(start) -> None:
    running = start("word " * 500, engine={"token_delay_s": 0.02}, answer_s=0.3)
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="unused", max_retries=0) as client:
        events = list(client.responses.create(model="nano", input="x", stream=True))
    assert events[0].type == "response.created"
    assert (events[-1].type, events[-1].response.error.code) == ("response.failed", "timeout")
    assert [event.sequence_number for event in events] == list(range(len(events)))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "message", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "x", "name": "y"}]}, "input[0].arguments"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "reasoning", "encrypted_content": "gptoss:?"}]}, "input[0].encrypted_content"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"truncation": "some"}, "truncation"),
        ({"reasoning": {"effort": "x"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": 5}, "text"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"include": 5}, "include"),
    ],
)
def test_what_is_wrong_is_named(server, body, param) -> None:
    with server.client() as client:
        for stream in (False, True):
            response = client.post("/v1/responses", json={"input": "x", "stream": stream, **body})
            assert response.status_code == 400, response.text
            assert response.json()["error"]["param"] == param
    assert server.complaints == []


def test_what_codex_asks_first(server) -> None:
    with server.client() as client:
        assert client.get("/api/version").json()["version"] == "0.0.0"
        assert client.get("/api/tags").json()["models"][0]["name"] == "nano"
        assert client.get("/v1/models").json()["data"][0]["id"] == "nano"
