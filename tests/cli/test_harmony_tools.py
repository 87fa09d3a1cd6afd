"""`gptoss harmony render` and `parse`."""

import json

import pytest

CONVERSATION = {
    "messages": [
        {"role": "system", "content": [{"type": "system_content", "reasoning_effort": "High"}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi <|end|>"}]},
    ]
}
PROMPT = "<|start|>system<|message|>Reasoning: high<|end|><|start|>user<|message|>Hi <|end|><|end|><|start|>assistant"


def lines(*values) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def test_render_one(gptoss, encoding) -> None:
    result = gptoss("harmony", "render", stdin=lines(CONVERSATION))
    assert (result.status, result.stderr) == (0, "")
    ids = json.loads(result.stdout)
    assert result.stdout == json.dumps(ids) + "\n"
    assert encoding.decode(ids).endswith(PROMPT.removeprefix("<|start|>system<|message|>"))
    assert sum(map(encoding.is_special, ids)) == PROMPT.count("<|") - 1


def test_render_many_gives_a_line_each(gptoss) -> None:
    empty = {"messages": []}
    result = gptoss("harmony", "render", stdin=lines(CONVERSATION, empty) + b"\n" + lines(CONVERSATION))
    first, second, third = map(json.loads, result.stdout.splitlines())
    assert first == third
    assert len(second) == 2


def test_render_over_several_lines(gptoss) -> None:
    pretty = gptoss("harmony", "render", stdin=b"\n" + json.dumps(CONVERSATION, indent=2).encode())
    assert pretty.stdout == gptoss("harmony", "render", stdin=lines(CONVERSATION)).stdout


def test_render_text(gptoss) -> None:
    result = gptoss("harmony", "render", "--text", stdin=lines({"messages": CONVERSATION["messages"][1:]}))
    assert result.stdout == "<|start|>user<|message|>Hi <|end|><|end|><|start|>assistant\n"


def test_parse_one(gptoss, encoding) -> None:
    ids = encoding.encode_with_special("<|channel|>final<|message|>H\u00e9<|return|>")
    result = gptoss("harmony", "parse", stdin=lines(ids))
    assert (result.status, result.stderr) == (0, "")
    [message] = json.loads(result.stdout)
    assert message == {
        "role": "assistant",
        "name": None,
        "content": [{"type": "text", "text": "H\u00e9"}],
        "channel": "final",
    } | {key: message[key] for key in message.keys() - {"role", "name", "content", "channel"}}
    assert "H\u00e9" in result.stdout


def test_parse_tells_what_is_wrong_beside_the_messages(gptoss, encoding) -> None:
    good = encoding.encode_with_special("<|channel|>final<|message|>a<|return|>")
    result = gptoss("harmony", "parse", stdin=lines(good, [*good, good[-1]]))
    assert result.status == 0
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.startswith("gptoss: standard input, line 2, token 5: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "stdin", "place"),
    [
        ("render", lines(CONVERSATION) + b'{"messages": 3}\n', "standard input, line 2: "),
        ("render", lines(CONVERSATION) + b"{\n", "standard input, line 2: not JSON: "),
        ("render", b'{"messages": [\n  {"role": "user",}\n]}', "standard input: not JSON: "),
        ("parse", b"[1, 2.5]\n", "standard input, line 1: [1]: "),
        ("parse", b"[true]\n", "standard input, line 1: [0]: "),
        ("parse", b"[-1]\n", "standard input, line 1: [0]: "),
        ("parse", b"\xff\n", "standard input: not UTF-8"),
        ("parse", b"[" * 100_000 + b"\n", "standard input: more than "),
    ],
)
def test_wrong_input_is_one_line_with_its_place(gptoss, command, stdin, place) -> None:
    result = gptoss("harmony", command, stdin=stdin)
    assert result.status == 1
    assert result.stderr.startswith(f"gptoss: {place}")
    assert result.stderr.count("\n") == 1


def test_what_came_before_an_error_has_been_printed(gptoss) -> None:
    result = gptoss("harmony", "render", stdin=lines(CONVERSATION) + b"{\n")
    assert len(result.stdout.splitlines()) == 1


def test_other_encoding(gptoss, tmp_path) -> None:
    result = gptoss("harmony", "render", "--model", str(tmp_path / "none"), stdin=lines(CONVERSATION))
    assert result.status == 3
    assert result.stderr.count("\n") == 1


def test_no_input_is_no_output(gptoss) -> None:
    result = gptoss("harmony", "render", stdin=b"\n")
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
