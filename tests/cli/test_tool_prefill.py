"""After a call only its result is prefilled, whatever the form of the call; tokens are counted."""

import json

import pytest

START = "<|start|>assistant"
THOUGHT = f"<|channel|>analysis<|message|>Let me see.<|end|>{START}"
ANSWER = "<|channel|>final<|message|>Done.<|return|>"
GREET = '<|message|>{"name": "Ann"}<|call|>'
# Forms that models were seen to write: channel, name as it is written, rest of the header, content.
FORMS = {
    "trained": f"<|channel|>commentary to=functions.greet <|constrain|>json{GREET}",
    "recipient first": f" to=functions.greet<|channel|>commentary <|constrain|>json{GREET}",
    "in the reasoning": f"<|channel|>analysis to=functions.greet code{GREET}",
    "no blank": f"<|channel|>commentary to=functions.greet<|constrain|>json{GREET}",
    "no type": f"<|channel|>commentary to=functions.greet{GREET}",
    "python": "<|channel|>analysis to=python code<|message|>print('Hello Ann')<|call|>",
    "python marked": "<|channel|>analysis to=python <|constrain|>code<|message|>print('Hello Ann')<|call|>",
    "python in commentary": "<|channel|>commentary to=python code<|message|>print('Hello Ann')<|call|>",
    "python as a function": "<|channel|>commentary to=functions.python code<|message|>print('Hello Ann')<|call|>",
    "unknown": "<|channel|>commentary to=container.exec code<|message|>ls<|call|>",
    "bad JSON": '<|channel|>commentary to=functions.greet <|constrain|>json<|message|>{"name": <|call|>',
    "wrong arguments": '<|channel|>commentary to=functions.greet <|constrain|>json<|message|>{"nome": "Ann"}<|call|>',
    "no JSON at all": "<|channel|>commentary to=functions.greet <|constrain|>json<|message|>Ann, please<|call|>",
}
WRONG = ("unknown", "bad JSON", "wrong arguments", "no JSON at all")
FUNCTION = {
    "name": "greet",
    "command": ["printf", "Hello Ann"],
    "parameters": {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_only_the_result_is_prefilled(gptoss, encoding, tmp_path, form) -> None:
    (tmp_path / "own.json").write_text(json.dumps([FUNCTION]))
    preamble = f"<|channel|>commentary<|message|>I greet.<|end|>{START}"
    result = gptoss(
        "ask", "Hi", "--tool", "python", "--sandbox", "off", "--functions", str(tmp_path / "own.json"),
        "--allow", "*", "--stream-json",
        completions=[THOUGHT + preamble + FORMS[form], THOUGHT + FORMS[form], ANSWER],
    )  # fmt: skip
    assert result.status == 0, result.stderr
    told = [json.loads(line) for line in result.stdout.splitlines()]
    rounds = [event for event in told if event["event"] == "round"]
    calls = [event for event in told if event["event"] == "tool_call"]
    results = [event for event in told if event["event"] == "tool_result"]
    assert len(rounds) == len(calls) == len(results) == 2
    is_good = form not in WRONG
    for at, ended in zip(rounds, results, strict=True):
        assert ended["status"] == ("ok" if is_good else "error")
        assert is_good == (ended["text"] == "Hello Ann")
        channel = "analysis" if "analysis to=" in FORMS[form] else "commentary"
        header = f"<|start|>{ended['name']} to=assistant<|channel|>{channel}<|message|>"
        new = [
            *encoding.encode_with_special(header),
            *encoding.encode(ended["text"]),
            *encoding.encode_with_special(f"<|end|>{START}"),
        ]
        assert at["prompt_tokens"] - at["cached_tokens"] == len(new)
    # What was sampled stands in the last prompt as it was.
    last = result.prompts[-1]
    assert THOUGHT + preamble + FORMS[form] in last
    assert THOUGHT + FORMS[form] in last
