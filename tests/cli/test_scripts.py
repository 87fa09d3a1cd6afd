"""What scripts rely on: log probabilities, batches, templates, settings, limits of what is read."""

import json
import signal
import time
import tomllib
from pathlib import Path

import pytest

from gptoss.cli.base import inputs

# Log probabilities


def test_logprobs_in_the_object(gptoss) -> None:
    completion = "<|channel|>final<|message|>é<|return|>"
    told = json.loads(gptoss("ask", "--json", "--logprobs", "2", "Hi", completions=[completion]).stdout)
    assert [token["token"] for token in told["logprobs"]] == ["<|channel|>", "final", "<|message|>", "é", "<|return|>"]
    last = told["logprobs"][3]
    assert bytes(last["bytes"]).decode() == "é"
    assert last["logprob"] == -0.5
    assert [(other["id"] - last["id"], other["logprob"]) for other in last["top"]] == [(0, -0.5), (1, -1.5)]


def test_logprobs_in_events(gptoss, reply) -> None:
    result = gptoss("ask", "--stream-json", "--logprobs", "0", "Hi", completions=[reply("A")])
    events = [json.loads(line) for line in result.stdout.splitlines()]
    tokens = [event for event in events if event["event"] == "token"]
    assert len(tokens) == events[-1]["usage"]["completion_tokens"]
    assert all(token["top"] == [] for token in tokens)


def test_no_logprobs_unless_asked_for(gptoss, reply) -> None:
    assert "logprobs" not in json.loads(gptoss("ask", "--json", "Hi", completions=[reply("A")]).stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logprobs", "1", "Hi"], "--logprobs needs --json or --stream-json, which have a place for them"),
        (["--var", "a=b", "Hi"], "--var needs a --template with a gap for it"),
        (["--results", "x", "Hi"], "--results needs a --batch"),
        (["--batch", "x", "Hi"], "--batch and a prompt exclude each other"),
        (["--batch", "x", "-c"], "--batch and -c exclude each other"),
        (["--template", "none", "Hi"], "there is no template 'none': templates lie in {home}/templates"),
    ],
)
def test_wrong_usage(gptoss, tmp_path, arguments, message) -> None:
    result = gptoss("ask", *arguments)
    assert (result.status, result.stderr) == (2, f"gptoss: {message.format(home=tmp_path / 'home')}\n")


# Limits of what is read


def test_ten_megabytes_on_standard_input_are_refused_with_their_tokens(gptoss, scripted) -> None:
    text = b"The quick brown fox jumps over the lazy dog. " * 233_017  # a little over 10 MiB
    result = gptoss("ask", stdin=text, engine=scripted.ScriptedEngine([], max_context=131_072))
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert int(result.stderr.split()[1].replace(",", "")) > 2_300_000


def test_endless_input_is_refused(gptoss, monkeypatch) -> None:
    monkeypatch.setattr(inputs, "MAX_BYTES", 1 << 20)
    result = gptoss("ask", stdin=b"x" * ((1 << 20) + 1))
    assert result.stderr == "gptoss: standard input is larger than 1 MiB, more than any model can read\n"
    result = gptoss("ask", "-f", "/dev/zero")
    assert result.stderr == "gptoss: /dev/zero is larger than 1 MiB, more than any model can read\n"


# Batches


@pytest.fixture
def batch(tmp_path):
    def write(*items, name: str = "batch.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        return str(path)

    return write


def results_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_batch_answers_each_line_alone(gptoss, reply, batch) -> None:
    path = batch("one", {"id": "b", "prompt": "two", "system": "Be brief."})
    result = gptoss("ask", "--batch", path, completions=[reply("1"), reply("2")])
    first, second = results_of(result.stdout)
    assert (result.status, result.stderr) == (0, "")
    assert (first["line"], first["id"], first["answer"]) == (1, None, "1")
    assert (second["line"], second["id"], second["answer"]) == (2, "b", "2")
    assert "one" not in result.prompts[1]
    assert "Be brief." in result.prompts[1]
    assert gptoss("sessions", "list").stdout == ""


def test_batch_on_standard_input(gptoss, reply) -> None:
    result = gptoss("ask", "--batch", "-", stdin=b'"one"\n', completions=[reply("1")])
    assert [told["answer"] for told in results_of(result.stdout)] == ["1"]
    result = gptoss("ask", "--batch", "-", stdin=b'"one"\n{]\n')
    assert (result.status, result.stderr) == (1, "gptoss: standard input, line 2: no JSON\n")


def test_batch_goes_on_where_it_broke_off(gptoss, reply, batch, tmp_path) -> None:
    results = tmp_path / "results.jsonl"
    path = batch("one", "two", "three")
    arguments = ["ask", "--batch", path, "--results", str(results)]
    gptoss(*arguments, completions=[reply("1"), reply("2"), reply("3")])
    whole = results.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept, torn in [(lines[:1], lines[1][:50]), (lines[:1], b"{"), (lines[:2], b""), ([], lines[0][:-1])]:
        results.write_bytes(b"".join(kept) + torn)
        answers = [reply(str(n)) for n in range(len(kept) + 1, 4)]
        result = gptoss(*arguments, completions=answers)
        assert (result.status, len(result.prompts)) == (0, len(answers))
        assert [r["answer"] for r in results_of(results.read_text())] == ["1", "2", "3"]
    assert gptoss(*arguments).status == 0  # nothing is left to answer, so no model is loaded


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ("{}\n", 1, "line 1: no result of a batch; name another file as --results"),
        ("my notes\n", 1, "line 1: no result of a batch; name another file as --results"),
        ("my notes", 1, "its end is no result of a batch; name another file as --results"),
        ('{"line": 1, "digest": "x"}\n', 2, "line 1: a result of another batch; name another file as --results"),
    ],
)
def test_file_that_has_no_results_of_this_batch_stays_as_it_is(gptoss, batch, tmp_path, content, status, message):
    results = tmp_path / "results.jsonl"
    results.write_text(content)
    result = gptoss("ask", "--batch", batch("one"), "--results", str(results))
    assert result.status == status
    assert result.stderr.endswith(f"{message}\n")
    assert results.read_text() == content


def test_prompt_that_fails_is_told_and_tried_again(gptoss, scripted, encoding, reply, batch, tmp_path) -> None:
    results = tmp_path / "results.jsonl"
    arguments = ["ask", "--batch", batch("long " * 100, "two"), "--results", str(results)]
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("2"))], max_context=120)
    assert gptoss(*arguments, engine=engine).status == 1
    first, second = results_of(results.read_text())
    assert first["error"]["status"] == 1
    assert "do not fit" in first["error"]["message"]
    assert second["answer"] == "2"
    assert gptoss(*arguments, completions=[reply("1")]).status == 0
    assert results_of(results.read_text())[2]["answer"] == "1"


def test_status_of_a_batch_is_that_of_its_worst_prompt(gptoss, reply, batch) -> None:
    nothing = "<|channel|>analysis<|message|>Hm.<|end|><|return|>"
    path = batch("one", "two")
    assert gptoss("ask", "-n", "15", "--batch", path, completions=[reply("a b c d e f"), reply("2")]).status == 4
    assert gptoss("ask", "-n", "15", "--batch", path, completions=[nothing, reply("a b c d e f")]).status == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{]", "no JSON"),
        ("3", "a line is a text, or an object with a text as prompt"),
        ('{"prompt": 3}', "a line is a text, or an object with a text as prompt"),
        ('{"promt": "a"}', "unknown key 'promt': known are id, prompt, system, vars"),
        ('{"prompt": "a", "id": [1]}', "id is a text or a whole number"),
        ('{"prompt": "a", "system": 1}', "system is a text"),
        ('{"prompt": "a", "vars": {"b": "c"}}', "vars are for a --template"),
        ('{"prompt": "\\ud800"}', "half of a surrogate pair, which is no text"),
        ('""', "the prompt is empty"),
    ],
)
def test_line_that_is_no_prompt_is_named_before_any_is_answered(gptoss, tmp_path, line, message) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text(f'"one"\n\n{line}\n')
    result = gptoss("ask", "--batch", str(path))
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == f"gptoss: {path}, line 3: {message}\n"
    assert result.prompts == []


def test_interrupted_batch_goes_on(spawn, gptoss, reply, batch, tmp_path) -> None:
    results = tmp_path / "results.jsonl"
    arguments = ["ask", "--batch", batch("one", "two"), "--results", str(results)]
    process = spawn(*arguments, completions=[reply("1"), reply("word " * 500)], token_delay_s=0.01)
    deadline = time.monotonic() + 30
    while not (results.exists() and results.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert process.stderr.read() == b""
    assert [r["answer"] for r in results_of(results.read_text())] == ["1"]
    assert gptoss(*arguments, completions=[reply("2")]).status == 0
    assert [r["answer"] for r in results_of(results.read_text())] == ["1", "2"]


def test_results_that_cannot_be_read_again_are_refused(gptoss, batch) -> None:
    result = gptoss("ask", "--batch", batch("one"), "--results", "/dev/null")
    assert (result.status, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("gptoss: /dev/null is no file that can be gone on with")


def test_batch_that_cannot_be_printed_says_so(spawn, reply, batch) -> None:
    with Path("/dev/full").open("wb") as full:
        answers = [reply("1"), reply("2")]
        process = spawn("ask", "--batch", batch("one", "two"), completions=answers, streams={"stdout": full})
        assert process.wait(30) == 1
    assert process.stderr.read() == b"gptoss: cannot write to standard output: No space left on device\n"


# Templates


@pytest.fixture
def templates(tmp_path):
    folder = tmp_path / "home" / "templates"
    folder.mkdir(parents=True)
    (folder / "translate.md").write_text("Translate into {{ language }}:\n\n{{input}}\n")
    (folder / "plain.txt").write_text("Summarise this.\n")
    return folder


def asked(result) -> str:
    return result.prompts[0].rsplit("<|start|>user<|message|>", 1)[1].split("<|end|>")[0]


def test_template_with_gaps(gptoss, reply, templates) -> None:
    arguments = ["--template", "translate", "--var", "language=French", "say {{language}}"]
    result = gptoss("ask", *arguments, completions=[reply("A")])
    assert asked(result) == "Translate into French:\n\nsay {{language}}"


def test_prompt_follows_a_template_without_a_gap_for_it(gptoss, reply, templates) -> None:
    result = gptoss("ask", "--template", "plain", stdin=b"some text\n", completions=[reply("A")])
    assert asked(result) == "Summarise this.\n\nsome text"
    assert asked(gptoss("ask", "--template", "plain", completions=[reply("A")])) == "Summarise this."


def test_template_by_its_path(gptoss, reply, templates) -> None:
    path = str(templates / "plain.txt")
    assert asked(gptoss("ask", "--template", path, completions=[reply("A")])) == "Summarise this."


def test_template_in_a_batch(gptoss, reply, templates, batch) -> None:
    path = batch({"prompt": "one", "vars": {"language": "Greek"}}, {"prompt": "two"})
    arguments = ["--template", "translate", "--var", "language=French", "--batch", path]
    result = gptoss("ask", *arguments, completions=[reply("1"), reply("2")])
    assert "into Greek:\n\none" in result.prompts[0]
    assert "into French:\n\ntwo" in result.prompts[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--template", "translate", "x"], "the template needs --var language=VALUE"),
        (["--template", "plain", "--var", "a=b"], "the template has no gap for --var a"),
        (["--template", "translate", "--var", "language=x"], "the template needs a prompt"),
        (["--template", "plain", "--var", "a"], "--var 'a': a variable is NAME=VALUE"),
        (["--template", "plain", "--var", "input=a"], "--var input: that is what the prompt is called"),
        (["--template", "translat"], "there is no template 'translat': did you mean 'translate'?"),
    ],
)
def test_template_that_cannot_be_filled(gptoss, templates, arguments, message) -> None:
    result = gptoss("ask", *arguments)
    assert result.status == 2
    assert result.stderr.startswith(f"gptoss: {message}")


def test_templates_are_listed_and_shown(gptoss, templates) -> None:
    assert gptoss("templates", "list").stdout == "plain\ntranslate  language, input\n"
    assert gptoss("templates", "show", "plain").stdout == "Summarise this.\n"
    assert gptoss("templates", "path").stdout == f"{templates}\n"


def test_template_that_cannot_be_read_does_not_hide_the_others(gptoss, templates) -> None:
    (templates / "bad.md").write_bytes(b"\xff")
    result = gptoss("templates", "list")
    assert (result.status, result.stdout) == (1, "plain\ntranslate  language, input\n")
    assert result.stderr.startswith(f"gptoss: {templates / 'bad.md'} is not UTF-8 text")


def test_of_two_templates_of_one_name_the_other_has_its_suffix(gptoss, templates) -> None:
    (templates / "plain.md").write_text("Be plain.\n")
    assert gptoss("templates", "list").stdout == "plain\nplain.txt\ntranslate  language, input\n"
    assert gptoss("templates", "show", "plain").stdout == "Be plain.\n"
    assert gptoss("templates", "show", "plain.txt").stdout == "Summarise this.\n"


# Settings


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("model", "nano", "nano"),
        ("effort", "high", "high"),
        ("temperature", "0.5", "0.5"),
        ("seed", "3", "3"),
        ("save", "false", "false"),
        ("instructions", 'Say "a\\b"\n\x7f\u00e9', 'Say "a\\b"\n\x7f\u00e9'),
        ("overflow", "drop-oldest", "drop-oldest"),
    ],
)
def test_setting_that_was_set_is_got(gptoss, key, value, shown) -> None:
    assert gptoss("config", "set", key, value).status == 0
    result = gptoss("config", "get", key)
    assert (result.status, result.stdout) == (0, shown + "\n")


def test_setting_without_a_value(gptoss) -> None:
    result = gptoss("config", "get", "seed")
    assert (result.status, result.stdout, result.stderr) == (1, "", "")


def test_variable_goes_before_the_file(gptoss) -> None:
    gptoss("config", "set", "model", "nano")
    assert gptoss("config", "get", "model", variables={"GPTOSS_MODEL": "120b"}).stdout == "120b\n"


def test_rest_of_the_file_stays(gptoss, tmp_path) -> None:
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir()
    config.write_text('# mine\nmodel = "20b"  # small\neffort = "low"')
    gptoss("config", "set", "model", "nano")
    gptoss("config", "set", "seed", "1")
    assert config.read_text() == '# mine\nmodel = "nano"\neffort = "low"\nseed = 1\n'
    assert gptoss("config", "path").stdout == f"{config}\n"


def test_setting_that_is_taken_out(gptoss, tmp_path) -> None:
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir()
    config.write_text('# mine\nmodel = "nano"\noverflow = "error"')
    assert gptoss("config", "unset", "overflow").status == 0
    assert config.read_text() == '# mine\nmodel = "nano"\n'
    assert gptoss("config", "unset", "overflow").status == 1
    assert config.read_text() == '# mine\nmodel = "nano"\n'
    assert gptoss("config", "unset", "overflw").stderr == "gptoss: unknown key 'overflw': did you mean 'overflow'?\n"


def test_key_that_is_unknown_can_be_taken_out(gptoss, tmp_path) -> None:
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir()
    config.write_text('model = "nano"\ntemprature = 1\n')
    assert gptoss("config", "get", "model").status == 2
    assert gptoss("config", "unset", "temprature").status == 0
    assert gptoss("config", "get", "model").stdout == "nano\n"


def test_argument_that_is_no_text(gptoss) -> None:
    result = gptoss("config", "set", "model", "\udcff")
    assert (result.status, result.stderr) == (2, "gptoss: an argument is not UTF-8 text\n")


def test_setting_over_several_lines_is_left_to_an_editor(gptoss, tmp_path) -> None:
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir()
    config.write_text('instructions = """\nseed = 1\n"""\n')
    for change in (["set", "instructions", "x"], ["set", "seed", "2"], ["unset", "instructions"]):
        result = gptoss("config", *change)
        assert (result.status, result.stderr.count("\n")) == (2, 1)
        assert tomllib.loads(config.read_text()) == {"instructions": "seed = 1\n"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "modle", "x"], "unknown key 'modle': did you mean 'model'?"),
        (["get", "modle"], "unknown key 'modle': did you mean 'model'?"),
        (["set", "effort", "huge"], "the command line: effort is 'huge', it must be one of none, low, medium, high"),
        (["set", "seed", "1.5"], "the command line: seed is 1.5, it must be a whole number, 0 or more"),
    ],
)
def test_wrong_setting(gptoss, tmp_path, arguments, message) -> None:
    result = gptoss("config", *arguments)
    assert (result.status, result.stderr) == (2, f"gptoss: {message}\n")
    assert not (tmp_path / "home").exists()
