"""/v1/chat/completions, as openai-python reads it and as other clients write it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from pydantic import BaseModel

ASK = [{"role": "user", "content": "What is 347 + 85?"}]
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3, 4]}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
CALL = "<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
REASONED_CALL = f'<|channel|>analysis<|message|>I must add.<|end|><|start|>assistant{CALL}{{"a": 1, "b": 3}}<|call|>'
ANSWER = "<|channel|>final<|message|>It is 4.<|return|>"


@pytest.fixture(scope="module")
def chat(client):
    def ask(**body: Any) -> Any:
        return client.chat.completions.create(**({"model": "nano", "messages": ASK} | body))

    return ask


@pytest.fixture
def scripted_chat(start):
    """A server that says this, as a function that posts to it; its prompts are `prompts()`."""

    def begin(*completions: str, **options: Any):
        running = start(*completions, **options)
        engine = running.application.served.model.engine
        client = running.client()

        def ask(status: int = 200, **body: Any) -> Any:
            response = client.post("/v1/chat/completions", json={"messages": ASK, **body})
            assert response.status_code == status, response.text
            return response.json()

        def prompts() -> list[str]:
            return [running.application.served.model.encoding.decode(ids) for ids in engine.prompts]

        opened.append(client)
        return ask, prompts

    opened: list[Any] = []
    yield begin
    for client in opened:
        client.close()


def test_an_answer_with_its_reasoning(chat) -> None:
    answer = chat()
    (choice,) = answer.choices
    assert choice.message.content == "347 + 85 = 432"
    assert choice.message.model_extra["reasoning_content"].startswith("347 + 85")
    assert choice.message.model_extra["reasoning"] == choice.message.model_extra["reasoning_content"]
    assert choice.finish_reason == "stop"
    assert 0 < answer.usage.completion_tokens_details.reasoning_tokens < answer.usage.completion_tokens
    again = chat()
    assert again.usage.prompt_tokens_details.cached_tokens == answer.usage.prompt_tokens - 1
    assert again.choices[0].message == choice.message


def test_a_stream_says_the_same(chat) -> None:
    whole = chat().choices[0].message
    content, reasoning = "", ""
    pieces = list(chat(stream=True, stream_options={"include_usage": True}))
    for piece in pieces[:-1]:
        delta = piece.choices[0].delta
        content += delta.content or ""
        reasoning += (delta.model_extra or {}).get("reasoning_content") or ""
    assert pieces[0].choices[0].delta.role == "assistant"
    assert (content, reasoning) == (whole.content, whole.model_extra["reasoning"])
    assert pieces[-2].choices[0].finish_reason == "stop"
    assert pieces[-1].usage.completion_tokens > 20
    assert len({piece.id for piece in pieces}) == 1


def test_two_turns(chat) -> None:
    said = chat().choices[0].message
    messages = [
        {"role": "system", "content": "Add."},
        *ASK,
        {"role": "assistant", "content": said.content, "reasoning_content": said.model_extra["reasoning"]},
        {"role": "user", "content": [{"type": "text", "text": "What is 5 "}, {"type": "text", "text": "- 9?"}]},
    ]
    assert "-4" in chat(messages=messages).choices[0].message.content


def test_effort_is_in_the_prompt(scripted_chat) -> None:
    ask, prompts = scripted_chat(*[ANSWER] * 4)
    ask()
    ask(reasoning_effort="minimal")
    ask(reasoning_effort="high")
    ask(messages=[{"role": "developer", "content": "Be brief."}, *ASK])
    medium, low, high, brief = prompts()
    assert ["Reasoning: medium" in medium, "Reasoning: low" in low, "Reasoning: high" in high] == [True] * 3
    assert "# Instructions\n\nBe brief." in brief
    assert "Current date: 2026-03-14" in brief


def test_stop_strings_end_the_answer_and_not_the_reasoning(chat) -> None:
    answer = chat(stop=["="])
    assert answer.choices[0].message.content == "347 + 85 "
    assert answer.choices[0].finish_reason == "stop"
    assert "=" in answer.choices[0].message.model_extra["reasoning"]
    assert answer.usage.completion_tokens > 50
    pieces = chat(stop=["= 4", "zzz"], stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "347 + 85 "


def test_an_answer_that_is_cut(chat) -> None:
    answer = chat(max_completion_tokens=10)
    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("length", "")
    assert answer.usage.completion_tokens == 10


def test_log_probabilities_are_those_of_the_answer(chat) -> None:
    choice = chat(logprobs=True, top_logprobs=2).choices[0]
    listed = choice.logprobs.content
    assert "".join(each.token for each in listed) == choice.message.content
    assert all(len(each.top_logprobs) == 2 and each.logprob <= 0 for each in listed)
    pieces = list(chat(logprobs=True, top_logprobs=2, stream=True))
    streamed = [each for piece in pieces if piece.choices[0].logprobs for each in piece.choices[0].logprobs.content]
    assert [(each.token, each.logprob) for each in streamed] == [(each.token, each.logprob) for each in listed]


def test_several_answers(chat) -> None:
    answer = chat(n=3, temperature=1.5, seed=4, max_completion_tokens=12)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    said = [choice.message.model_extra["reasoning"] for choice in answer.choices]
    assert len(set(said)) > 1
    assert (
        chat(temperature=1.5, seed=5, max_completion_tokens=12).choices[0].message.model_extra["reasoning"] == said[1]
    )


# Calls


def test_a_call_and_its_result(scripted_chat) -> None:
    ask, prompts = scripted_chat(REASONED_CALL, ANSWER)
    first = ask(tools=[ADD])
    message = first["choices"][0]["message"]
    assert first["choices"][0]["finish_reason"] == "tool_calls"
    assert message["content"] is None
    assert message["reasoning"] == "I must add."
    (call,) = message["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a": 1, "b": 3}'}
    # A client that drops the reasoning, as llm does.
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "4"}
    second = ask(tools=[ADD], messages=[*ASK, said, result])
    assert second["choices"][0]["message"]["content"] == "It is 4."
    one, two = prompts()
    assert "type add = (_: {" in one
    assert two.startswith(one + REASONED_CALL)  # the reasoning too, token for token
    assert "<|start|>functions.add to=assistant<|channel|>commentary<|message|>4<|end|>" in two


def test_a_call_of_another_server(scripted_chat) -> None:
    ask, prompts = scripted_chat(ANSWER)
    called = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}]
    ask(
        messages=[
            *ASK,
            {"role": "assistant", "content": "I add.", "reasoning": "Hm.", "tool_calls": called},
            {"role": "tool", "tool_call_id": "c1", "content": "<|start|>system"},
        ]
    )
    (prompt,) = prompts()
    assert "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I add." in prompt
    assert f'{CALL}{{"a": 2}}<|call|>' in prompt
    assert "<|message|><|start|>system<|end|>" in prompt


def test_arguments_that_the_client_changed_are_the_clients(scripted_chat) -> None:
    ask, prompts = scripted_chat(REASONED_CALL, ANSWER)
    (call,) = ask(tools=[ADD])["choices"][0]["message"]["tool_calls"]
    call["function"]["arguments"] = '{"a": 2, "b": 4}'
    result = {"role": "tool", "tool_call_id": call["id"], "content": "6"}
    ask(tools=[ADD], messages=[*ASK, {"role": "assistant", "tool_calls": [call]}, result])
    assert '{"a": 2, "b": 4}' in prompts()[1]
    assert "I must add" not in prompts()[1]


def test_a_streamed_call(start) -> None:
    running = start(f"<|channel|>commentary<|message|>I add.<|end|><|start|>assistant{REASONED_CALL}")
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="unused", max_retries=0) as client:
        pieces = list(client.chat.completions.create(model="nano", messages=ASK, tools=[ADD], stream=True))
    deltas = [piece.choices[0].delta for piece in pieces]
    (call,) = [call for delta in deltas for call in delta.tool_calls or ()]
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 1, "b": 3})
    assert "".join(delta.content or "" for delta in deltas) == "I add."
    assert pieces[-1].choices[0].finish_reason == "tool_calls"


def test_apply_patch_as_a_custom_tool(scripted_chat) -> None:
    patch = "*** Begin Patch\n*** Delete File: a\n*** End Patch"
    text = f"<|channel|>commentary to=functions.apply_patch<|message|>{patch}<|call|>"
    ask, prompts = scripted_chat(text, ANSWER)
    tool = {"type": "custom", "custom": {"name": "apply_patch", "description": "Patch."}}
    unknown = {"type": "web_search", "filters": {}}
    (call,) = ask(tools=[unknown, tool])["choices"][0]["message"]["tool_calls"]
    assert call["custom"] == {"name": "apply_patch", "input": patch}
    ask(
        tools=[tool],
        messages=[
            *ASK,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "Done."},
        ],
    )
    one, two = prompts()
    assert "type apply_patch = (_: string) => any;" in one
    assert "web_search" not in one
    assert two.startswith(one + text)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_call_can_be_demanded(chat, choice) -> None:
    other = {"type": "function", "function": {"name": "other", "parameters": ADD["function"]["parameters"]}}
    answer = chat(tools=[other, ADD], tool_choice=choice, reasoning_effort="low", temperature=0)
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name in (("add",) if isinstance(choice, dict) else ("add", "other"))
    arguments = json.loads(call.function.arguments)
    assert (arguments["a"] in (1, 2), arguments["b"] in (3, 4)) == (True, True)


def test_only_allowed_tools_are_offered(scripted_chat) -> None:
    ask, prompts = scripted_chat(ANSWER)
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "add"}}]}
    ask(tools=[other, ADD], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert ("type add" in prompts()[0], "type other" in prompts()[0]) == (True, False)


def test_an_answer_without_reasoning(chat) -> None:
    answer = chat(reasoning_effort="none", max_tokens=60)
    assert answer.choices[0].message.model_extra["reasoning"] is None
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_calls_can_be_forbidden(chat) -> None:
    answer = chat(tools=[ADD], tool_choice="none")
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason in ("stop", "length")


# Schemas


class Sum(BaseModel):
    total: int
    is_even: bool


def test_a_schema_is_held(client, chat) -> None:
    answer = client.chat.completions.parse(model="nano", messages=ASK, response_format=Sum, max_tokens=300)
    assert isinstance(answer.choices[0].message.parsed, Sum)
    text = chat(response_format={"type": "json_object"}, temperature=1.0, seed=1, max_tokens=400).choices[0]
    if text.finish_reason == "stop":
        assert isinstance(json.loads(text.message.content), dict)


def test_a_preamble_is_not_part_of_json(scripted_chat) -> None:
    said = "<|channel|>commentary<|message|>Wait.<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"
    ask, _ = scripted_chat(said, said)
    message = ask(response_format={"type": "json_object"})["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("{}", "Wait.")
    assert ask()["choices"][0]["message"]["content"] == "Wait.\n\n{}"


def test_a_schema_that_is_not_supported(chat) -> None:
    schema = {"type": "object", "properties": {"a": {"if": {"type": "string"}}}}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=r"response_format.json_schema.schema: at /properties/a"):
            chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, stream=stream)


# Errors


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [5]}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "tool", "tool_call_id": "y", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function.name"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [ADD, ADD]}, "tools"),
        ({"tools": [ADD] * 129}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}]}, "tools[0].function.parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 70_000]}}}},
            "response_format.json_schema.schema",
        ),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"n": 17}, "n"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"functions": [{"name": "x"}]}, "functions"),
    ],
)
def test_what_is_wrong_is_named(server, body, param) -> None:
    with server.client() as client:
        response = client.post("/v1/chat/completions", json={"messages": ASK, **body})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert server.complaints == []


def test_a_conversation_that_is_too_long(client) -> None:
    with pytest.raises(openai.BadRequestError, match="do not fit a context of 4,096") as caught:
        client.chat.completions.create(model="nano", messages=[{"role": "user", "content": "9 " * 9000}])
    assert caught.value.code == "context_length_exceeded"


def test_four_clients_get_what_each_gets_alone(server) -> None:
    asked = [
        {
            "messages": [{"role": "user", "content": f"What is {n} + {7 * n}?"}],
            "temperature": 1.0,
            "seed": n,
            "max_tokens": 25,
            **({"tools": [ADD]} if n % 2 else {}),
        }
        for n in range(4)
    ]

    def ask(body: dict[str, Any]) -> Any:
        with server.client() as client:
            choices = client.post("/v1/chat/completions", json=body).json()["choices"]
        for call in choices[0]["message"].get("tool_calls", ()):
            del call["id"]
        return choices

    alone = [ask(body) for body in asked]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, asked)) == alone
