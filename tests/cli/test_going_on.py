"""Going on in a conversation: `-c`, `--session`, `--no-save`."""

import json

import pytest


def test_ask_goes_on_in_the_latest_conversation(gptoss, reply) -> None:
    gptoss("ask", "-m", "nano", "-s", "Be brief.", "-e", "high", "a", completions=[reply("A")])
    result = gptoss("ask", "-c", "b", completions=[reply("B")], load=None)
    assert result.status == 0
    assert "Be brief." in result.prompts[0]
    assert "Reasoning: high" in result.prompts[0]
    assert result.prompts[0].endswith(
        "<|start|>user<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>A<|end|>"
        "<|start|>user<|message|>b<|end|><|start|>assistant"
    )
    assert gptoss("sessions", "list", "--json").stdout.count("\n") == 1


def test_flags_go_before_what_the_conversation_had(gptoss, reply) -> None:
    gptoss("ask", "-m", "nano", "-s", "Be brief.", "-e", "high", "a", completions=[reply("A")])
    arguments = ["-c", "-m", "20b", "-s", "Be long.", "-e", "low"]
    result = gptoss("ask", *arguments, "--json", "b", completions=[reply("B")])
    assert json.loads(result.stdout)["model"] == "20b"
    assert "Be long." in result.prompts[0]
    assert "Be brief." not in result.prompts[0]
    assert "Reasoning: low" in result.prompts[0]


def test_effort_none_goes_on(gptoss, reply) -> None:
    gptoss("ask", "-e", "none", "a", completions=["A<|return|>"])
    assert gptoss("ask", "-c", "b", completions=["B<|return|>"]).stdout == "B\n"


def test_format_of_answers_holds_for_one_question(gptoss, reply) -> None:
    gptoss("ask", "-s", "Be brief.", "--choice", "yes,no", "a", completions=[reply("yes")])
    first = gptoss("ask", "-c", "b", completions=[reply("B")])
    assert "Be brief." in first.prompts[0]
    assert "Response Formats" not in first.prompts[0]
    second = gptoss("ask", "-c", "--choice", "red,blue", "c", completions=[reply("red")])
    assert "Be brief." in second.prompts[0]
    assert second.prompts[0].count("Response Formats") == 1
    assert "yes" not in second.prompts[0].split("<|start|>user")[0]


def test_session_by_the_id_that_json_tells(gptoss, reply) -> None:
    first = json.loads(gptoss("ask", "--json", "a", completions=[reply("A")]).stdout)["session"]
    gptoss("ask", "other", completions=[reply("O")])
    result = gptoss("ask", "--session", first, "--json", "b", completions=[reply("B")])
    assert json.loads(result.stdout)["session"] == first
    assert "other" not in result.prompts[0]


def test_chat_goes_on_too(gptoss, reply) -> None:
    gptoss("ask", "a", completions=[reply("A")])
    result = gptoss("chat", "-c", stdin=b"b", completions=[reply("B")])
    assert "<|message|>a<|end|>" in result.prompts[0]


@pytest.mark.parametrize("arguments", [["--no-save"], []])
def test_no_save_leaves_nothing_behind(gptoss, reply, tmp_path, arguments) -> None:
    home = tmp_path / "home"
    if not arguments:
        home.mkdir()
        (home / "config.toml").write_text("save = false\n")
    result = gptoss("ask", "--json", "a", *arguments, completions=[reply("A")])
    assert json.loads(result.stdout)["session"] is None
    assert not (home / "conversations").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c"], "gptoss: there is no conversation to go on in: -c needs one that was saved\n"),
        (["--session", "x"], "gptoss: there is no conversation 'x': gptoss sessions list shows them\n"),
        (["-c", "--session", "x"], "gptoss: -c and --session exclude each other\n"),
    ],
)
def test_nothing_to_go_on_in(gptoss, arguments, message) -> None:
    result = gptoss("ask", "a", *arguments)
    assert (result.status, result.stderr) == (2, message)


def test_home_that_cannot_be_written_does_not_cost_the_answer(gptoss, reply, tmp_path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "conversations").write_text("in the way")
    result = gptoss("ask", "a", completions=[reply("A")])
    assert (result.status, result.stdout) == (0, "A\n")
    assert result.stderr == f"gptoss: the conversation is not saved: {tmp_path / 'home/conversations'}: File exists\n"


def test_no_save_leaves_nothing_of_a_chat_behind(terminal, reply, tmp_path) -> None:
    screen = terminal("--no-save", completions=[reply("A")])
    screen.wait_for_prompt()
    screen.type("a secret\r")
    screen.wait_for("A")
    screen.wait_for_prompt()
    screen.type("\x1b[A")  # what was typed in this run is remembered in this run
    screen.wait_for("> a secret")
    screen.type("\x03\x04")
    assert screen.ended() == 0
    assert not (tmp_path / "home").exists()


def test_chat_that_goes_on_says_in_which(terminal, gptoss, reply) -> None:
    gptoss("ask", "Name three rivers.", completions=[reply("A")])
    identifier = json.loads(gptoss("sessions", "list", "--json").stdout)["id"]
    lines = terminal("-c", completions=[]).wait_for_prompt()
    assert lines[1] == f"going on in {identifier}: 1 question, the last: Name three rivers."


def test_why_after_going_on(gptoss, reply) -> None:
    gptoss("ask", "a", completions=[reply("A", "First thought.")])
    gptoss("ask", "-c", "b", completions=[reply("B", "Second thought.")])
    result = gptoss("chat", "-c", stdin=b"/why\n/why 1\n")
    assert result.stderr == "Second thought.\nFirst thought.\n"


def test_the_latest_conversation_is_the_one_in_which_something_was_said_last(gptoss, reply) -> None:
    first = json.loads(gptoss("ask", "--json", "one", completions=[reply("A")]).stdout)["session"]
    gptoss("ask", "two", completions=[reply("B")])
    gptoss("ask", "--session", first, "three", completions=[reply("C")])
    again = gptoss("ask", "-c", "four", completions=[reply("D")])
    assert "three" in again.prompts[0]
    assert "two" not in again.prompts[0]
