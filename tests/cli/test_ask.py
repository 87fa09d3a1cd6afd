"""`gptoss ask` as transcripts: what goes to standard output, what to standard error, and the exit status."""

import json
import re

import pytest

from gptoss.model.interface import SamplingParams

SYSTEM = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: 2026-03-14\n\nReasoning: {effort}\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
)


def test_answer_alone_goes_to_standard_output(gptoss, reply) -> None:
    result = gptoss("ask", "What is 2 + 2?", completions=[reply("4")], stdin=b"")
    assert (result.status, result.stdout, result.stderr) == (0, "4\n", "")


def test_default_prompt(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", completions=[reply("Hello")])
    assert result.prompts == [SYSTEM.format(effort="medium") + "<|start|>user<|message|>Hi<|end|><|start|>assistant"]


def test_effort_and_instructions_are_in_the_prompt(gptoss, reply) -> None:
    result = gptoss("ask", "-e", "high", "-s", "Be brief.", "Hi", completions=[reply("Hello")])
    developer = "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|>"
    assert result.prompts == [
        SYSTEM.format(effort="high") + developer + "<|start|>user<|message|>Hi<|end|><|start|>assistant"
    ]


def test_effort_none_opens_the_answer_after_an_empty_analysis(gptoss, encoding) -> None:
    result = gptoss("ask", "-e", "none", "Hi", "--json", completions=["Hello<|return|>"])
    assert result.prompts[0].endswith(
        "<|start|>assistant<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>"
    )
    told = json.loads(result.stdout)
    assert (told["answer"], told["reasoning"], told["usage"]["reasoning_tokens"]) == ("Hello", "", 0)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("4\n\n\n", "4\n"),
        ("\n4", "\n4\n"),
        ("a\n\nb\n", "a\n\nb\n"),
        ("", "\n"),
        ("caf\u00e9 \U0001f469\u200d\U0001f680", "caf\u00e9 \U0001f469\u200d\U0001f680\n"),
    ],
)
def test_answer_ends_in_exactly_one_newline(gptoss, reply, answer, shown) -> None:
    result = gptoss("ask", "Hi", completions=[reply(answer)])
    assert (result.status, result.stdout) == (0, shown)


def test_answer_leaves_as_it_is_through_a_pipe(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", completions=[reply("a\x1b[31mred\r\nb")])
    assert result.stdout == "a\x1b[31mred\r\nb\n"


def test_reasoning_stands_dim_between_rules_on_a_terminal(gptoss, reply) -> None:
    result = gptoss("ask", "--plain", "Hi", completions=[reply("Hello", "One two.")], terminal="out err")
    assert result.stdout == "Hello\n"
    clean = result.stderr.replace("\r\x1b[K", "").replace("\x1b[2mloading 20b\x1b[22m", "")
    rule = "\u2500"
    clean = re.sub(r"\d\.\d s", "N.N s", clean)
    assert clean == (
        f"\x1b[2m{rule * 2} thinking {rule * 28}\x1b[22m\n"
        "\x1b[2mOne\x1b[22m\x1b[2m two\x1b[22m\x1b[2m.\x1b[22m\n"
        f"\x1b[2m{rule * 2} thought for N.N s, 3 tokens {rule * 9}\x1b[22m\n"
    )


ANSWER = "# Head\n\n**Bold** and `code`:\n\n- one\n- two\n"


def test_markdown_is_rendered_at_a_terminal_the_answer_on_standard_output(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", completions=[reply(ANSWER, "One two.")], terminal="out err")
    shown = re.sub(r"\x1b\[[\d;]*[mK]|\r", "", result.stdout)
    assert shown == "Head\n\nBold and code:\n\n\u2022 one\n\u2022 two\n"
    assert "\x1b[1mBold" in result.stdout
    assert "\x1b[2mOne" in result.stderr
    assert "thought for" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--plain"], {"terminal": "out err"}),
        (["--regex", "(?s).*"], {"terminal": "out err"}),
        ([], {"terminal": "err"}),
        ([], {"terminal": "out err", "variables": {"TERM": "dumb"}}),
        ([], {"terminal": "out err", "variables": {"GPTOSS_ACCESSIBLE": "1"}}),
    ],
)
def test_markdown_stays_as_it_is_elsewhere(gptoss, reply, arguments, options) -> None:
    assert gptoss("ask", *arguments, "Hi", completions=[reply(ANSWER)], **options).stdout == ANSWER


def test_terminal_has_the_answer_alone_where_standard_error_is_elsewhere(gptoss, reply) -> None:
    options = {"completions": [reply("*Hi*", "See.")], "terminal": "out"}
    for arguments, said in (([], ""), (["--reasoning", "show"], "See.\n")):
        result = gptoss("ask", *arguments, "Hi", **options)
        assert result.stdout.endswith("\x1b[3mHi\x1b[0m\n")
        assert "See" not in result.stdout
        assert result.stderr == said


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_styles_where_none_are_wanted(gptoss, reply, variables) -> None:
    result = gptoss("ask", "Hi", completions=[reply("Hello", "See.")], terminal="out err", variables=variables)
    assert "\x1b[" not in re.sub(r"\x1b\[[AK]", "", result.stderr)
    assert "thinking" in result.stderr
    assert "See." in result.stderr


def test_dumb_terminal_gets_no_sequence_at_all(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", completions=[reply("Hello")], terminal="out err", variables={"TERM": "dumb"})
    assert "\x1b" not in result.stderr + result.stdout
    assert "\r" not in result.stderr + result.stdout


def test_reasoning_shown_on_demand_in_a_pipe(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", "--reasoning", "show", completions=[reply("Hello", "See.")])
    assert (result.stdout, result.stderr) == ("Hello\n", "See.\n")


def test_reasoning_hidden_on_demand_on_a_terminal(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", "--reasoning", "hide", completions=[reply("Hello", "See.")], terminal="err")
    assert result.stdout == "Hello\n"
    assert "See" not in result.stderr
    assert "thinking: " in result.stderr


def test_reasoning_file(gptoss, reply, tmp_path) -> None:
    path = tmp_path / "reasoning.txt"
    result = gptoss("ask", "Hi", "--reasoning-file", str(path), completions=[reply("Hello", "See.")])
    assert (result.stdout, result.stderr, path.read_text()) == ("Hello\n", "", "See.\n")


def test_reasoning_file_that_cannot_be_written(gptoss, reply, tmp_path) -> None:
    path = tmp_path / "nowhere" / "reasoning.txt"
    result = gptoss("ask", "Hi", "--reasoning-file", str(path), completions=[reply("Hello")])
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == f"gptoss: cannot write the reasoning to {path}: No such file or directory\n"
    assert result.engine.prompts == []


def test_stats_on_demand_in_a_pipe(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", "--stats", completions=[reply("Hello", "One two.")])
    prompt = len(result.engine.prompts[0])
    assert result.stdout == "Hello\n"
    assert result.stderr == (
        f"prompt {prompt} tokens, 0 cached, {prompt} in 0.50 s ({prompt / 0.5:.1f}/s); "
        "reply 14 tokens, 3 of reasoning, in 2.00 s (7.0/s); stop\n"
    )


def test_several_final_messages_are_one_answer(gptoss) -> None:
    completion = "<|channel|>final<|message|>One.<|end|><|start|>assistant<|channel|>final<|message|>Two.<|return|>"
    assert gptoss("ask", "Hi", completions=[completion]).stdout == "One.\n\nTwo.\n"


def test_message_without_a_channel_is_the_answer(gptoss) -> None:
    result = gptoss("ask", "Hi", completions=["<|message|>Hello<|return|>"])
    assert (result.status, result.stdout) == (0, "Hello\n")


# Limits and failures


def test_token_limit_gives_what_there_is_and_status_4(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", "-n", "15", completions=[reply("one two three four")])
    assert (result.status, result.stdout) == (4, "one two\n")
    assert result.stderr == "gptoss: the answer is incomplete: 15 tokens were allowed (--max-tokens)\n"


def test_limit_within_the_reasoning_prints_no_empty_line(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", "-n", "5", completions=[reply("one")])
    assert (result.status, result.stdout) == (4, "")


def test_full_context_gives_what_there_is_and_status_4(gptoss, scripted, encoding, reply) -> None:
    completion = encoding.encode_with_special(reply("one two three four"))
    engine = scripted.ScriptedEngine([completion], max_context=81)
    result = gptoss("ask", "Hi", engine=engine)
    assert result.status == 4
    assert "one two three four".startswith(result.stdout.strip())
    assert result.stderr == "gptoss: the answer is incomplete: 81 tokens fill the context (--ctx)\n"


def test_prompt_beyond_the_context_is_one_line(gptoss, scripted) -> None:
    result = gptoss("ask", "Hi", engine=scripted.ScriptedEngine([], max_context=10))
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith("gptoss: ")
    assert " tokens do not fit a context of 10: " in result.stderr


def test_call_of_a_tool_that_does_not_exist(gptoss) -> None:
    completion = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
    result = gptoss("ask", "Hi", completions=[completion])
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == (
        "gptoss: the model called the tool 'functions.f', which this run does not have, and gave no answer\n"
    )


def test_end_without_an_answer(gptoss) -> None:
    result = gptoss("ask", "Hi", completions=["<|channel|>analysis<|message|>Hm.<|end|><|return|>"])
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == "gptoss: the model ended without an answer; another --seed or --effort may help\n"


@pytest.mark.parametrize(
    ("kind", "status"),
    [("ModelNotFoundError", 3), ("CheckpointError", 3), ("DeviceError", 3), ("ContextFullError", 2)],
)
def test_model_that_cannot_be_loaded(gptoss, kind, status) -> None:
    from gptoss.model import errors

    def load(request):
        raise getattr(errors, kind)("it is not\nthere \x1b]0;x\x07")

    result = gptoss("ask", "Hi", load=load)
    assert (result.status, result.stdout) == (status, "")
    assert result.stderr == "gptoss: it is not there \u241b]0;x\u2407\n"


def test_fault_of_the_program_is_one_line_too(gptoss) -> None:
    def load(request):
        raise KeyError("k")

    result = gptoss("ask", "Hi", load=load)
    assert result.status == 1
    assert result.stderr == "gptoss: internal error, KeyError: 'k' (GPTOSS_TRACEBACK=1 shows where)\n"
    with pytest.raises(KeyError):
        gptoss("ask", "Hi", load=load, variables={"GPTOSS_TRACEBACK": "1"})


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["ask", "-f", "{missing}"], 1),
        (["ask", ""], 2),
        (["ask", "--var", "a=b", "Hi"], 2),
        (["config", "get", "x"], 2),
        (["show", "{missing}"], 3),
    ],
)
def test_traceback_is_of_internal_errors_alone(gptoss, tmp_path, arguments, status) -> None:
    arguments = [argument.format(missing=tmp_path / "missing") for argument in arguments]
    result, same = (gptoss(*arguments, variables=variables) for variables in ({}, {"GPTOSS_TRACEBACK": "1"}))
    assert (same.status, same.stdout, same.stderr) == (status, "", result.stderr)
    assert result.stderr.count("\n") == 1


def test_failure_in_the_reasoning_begins_a_line_of_its_own(gptoss, scripted, encoding, tmp_path) -> None:
    from gptoss.model.errors import ModelError

    completion = [*encoding.encode_with_special("<|channel|>analysis<|message|>hm"), ModelError("broken")]
    path = tmp_path / "reasoning.txt"
    arguments = ["--reasoning", "show", "--reasoning-file", str(path)]
    result = gptoss("ask", "Hi", *arguments, engine=scripted.ScriptedEngine([completion]))
    assert (result.status, result.stdout, result.stderr) == (3, "", "hm\ngptoss: broken\n")
    assert path.read_text() == "hm\n"


def test_model_speaking_for_the_user_is_left_out(gptoss) -> None:
    completion = (
        "<|channel|>final<|message|>4<|end|><|start|>user<|message|>Forget it.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>5<|return|>"
    )
    result = gptoss("ask", "Hi", "--json", completions=[completion])
    told = json.loads(result.stdout)
    assert told["answer"] == "4\n\n5"
    assert told["problems"] == ["a message by the model in the name of user was left out"]


# Usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "--raw", "Hi"], "--json and --raw exclude each other"),
        (["--effort", "huge", "Hi"], "Invalid value for '-e' / '--effort'"),
        (["-n", "0", "Hi"], "Invalid value for '-n' / '--max-tokens'"),
        (["--nonsense", "Hi"], "No such option: --nonsense"),
        ([], "the prompt is empty: say it as an argument, in a file (-f) or on standard input"),
        (["  \n"], "the prompt is empty: say it as an argument, in a file (-f) or on standard input"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(gptoss, arguments, message) -> None:
    result = gptoss("ask", *arguments)
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr.startswith(f"gptoss: {message}")
    assert result.stderr.count("\n") == 1


def test_sampling_flags_reach_the_engine_over_the_checkpoints_defaults(gptoss, scripted, encoding, reply) -> None:
    completion = encoding.encode_with_special(reply("4"))
    engine = scripted.ScriptedEngine([completion], defaults=SamplingParams(temperature=0.0, top_k=50))
    gptoss("ask", "Hi", "--top-p", "0.9", "--min-p", "0.1", "--seed", "3", "-n", "99", engine=engine)
    assert engine.params == [SamplingParams(temperature=0.0, top_p=0.9, top_k=50, min_p=0.1, seed=3, max_tokens=99)]


# JSON


def test_json_is_one_object(gptoss, reply, tmp_path) -> None:
    result = gptoss("ask", "Hi", "--json", "-m", "nano", "--seed", "3", completions=[reply("H\u00e9llo", "See.")])
    assert result.status == 0
    assert result.stdout.count("\n") == 1
    told = json.loads(result.stdout)
    timing, session = told.pop("timing"), told.pop("session")
    assert [path.stem for path in (tmp_path / "home" / "conversations").glob("*.jsonl")] == [session]
    assert told == {
        "model": "nano",
        "answer": "H\u00e9llo",
        "reasoning": "See.",
        "commentary": "",
        "tool_calls": [],
        "problems": [],
        "finish_reason": "stop",
        "limit": None,
        "usage": {
            "prompt_tokens": len(result.engine.prompts[0]),
            "cached_tokens": 0,
            "completion_tokens": len(encoded(result, reply("H\u00e9llo", "See."))),
            "reasoning_tokens": 2,
        },
        "seed": 3,
        "dropped_turns": 0,
    }
    assert timing.keys() == {"prefill_s", "decode_s", "total_s"}


def encoded(result, text: str) -> list[int]:
    return result.encoding.encode_with_special(text)


def test_json_of_a_cut_answer(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", "--json", "-n", "15", completions=[reply("one two three four")])
    told = json.loads(result.stdout)
    assert (result.status, told["finish_reason"], told["limit"]) == (4, "length", "max_tokens")
    assert told["answer"] == "one two"


def test_json_without_an_answer_has_null(gptoss) -> None:
    result = gptoss("ask", "Hi", "--json", completions=["<|channel|>analysis<|message|>Hm.<|end|><|return|>"])
    assert (result.status, json.loads(result.stdout)["answer"]) == (1, None)


def test_stream_json_is_one_event_a_line(gptoss, reply) -> None:
    completion = (
        "<|channel|>analysis<|message|>See.<|end|><|start|>assistant<|channel|>commentary<|message|>Now.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello<|return|>"
    )
    result = gptoss("ask", "Hi", "--stream-json", "-m", "nano", completions=[completion])
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0] == {
        "event": "start",
        "model": "nano",
        "prompt_tokens": len(result.engine.prompts[0]),
        "cached_tokens": 0,
        "dropped_turns": 0,
    }
    assert events[1:-1] == [
        {"event": "delta", "channel": "analysis", "text": "See"},
        {"event": "delta", "channel": "analysis", "text": "."},
        {"event": "delta", "channel": "commentary", "text": "Now"},
        {"event": "delta", "channel": "commentary", "text": "."},
        {"event": "delta", "channel": "final", "text": "Hello"},
    ]
    assert events[-1]["event"] == "done"
    assert events[-1].keys() == {"event", "finish_reason", "limit", "usage", "timing", "seed", "problems", "session"}


def test_stream_json_tells_a_tool_call(gptoss) -> None:
    completion = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
    result = gptoss("ask", "Hi", "--stream-json", completions=[completion])
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[1] == {"event": "tool_call", "id": "call_1", "recipient": "functions.f", "arguments": '{"a": 1}'}
    assert [event["event"] for event in events] == ["start", "tool_call", "done", "error"]


def test_stream_json_tells_an_error_as_an_event_too(gptoss) -> None:
    from gptoss.model.errors import ModelNotFoundError

    def load(request):
        raise ModelNotFoundError("it is not there")

    result = gptoss("ask", "Hi", "--stream-json", load=load)
    assert result.status == 3
    assert json.loads(result.stdout) == {"event": "error", "message": "it is not there", "status": 3}
    assert result.stderr == "gptoss: it is not there\n"


def test_json_hides_control_characters_from_a_terminal(gptoss, reply) -> None:
    result = gptoss("ask", "Hi", "--json", completions=[reply("a\x1b[31m\x9b31m\x7f")], terminal="out")
    assert not set(result.stdout) & {"\x1b", "\x9b", "\x7f"}
    assert json.loads(result.stdout)["answer"].startswith("a\x1b[31m")


# Raw


def test_raw_is_prompt_and_completion_with_special_tokens(gptoss, reply) -> None:
    completion = reply("caf\u00e9 \U0001f469\u200d\U0001f680", "See.")
    result = gptoss("ask", "Hi", "--raw", completions=[completion])
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == result.prompts[0] + completion + "\n"


@pytest.mark.parametrize("form", ["--raw", "--stream-json"])
def test_reasoning_that_the_form_carries_is_not_shown_beside_it(gptoss, reply, form) -> None:
    completions = [reply("Hello", "One two.")]
    assert "thought for" not in gptoss("ask", "Hi", form, completions=completions, terminal="out err").stderr
    shown = gptoss("ask", "Hi", form, "--reasoning", "show", completions=completions, terminal="out err")
    assert "thought for" in shown.stderr
    assert "thought for" in gptoss("ask", "Hi", form, completions=completions, terminal="err").stderr


def test_raw_names_an_id_that_is_no_token(gptoss, scripted, encoding, reply) -> None:
    completion = [*encoding.encode_with_special(reply("a"))[:-1], 300_000, encoding.special("<|return|>")]
    result = gptoss("ask", "Hi", "--raw", engine=scripted.ScriptedEngine([completion]))
    assert result.stdout.endswith("<|message|>a<300000><|return|>\n")
