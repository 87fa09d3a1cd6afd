"""Turns with tools that change files, and the commands of `chat` about them."""

import json
from pathlib import Path

import pytest


def patch(*lines: str) -> str:
    text = "\n".join(("*** Begin Patch", *lines, "*** End Patch"))
    return f"<|channel|>commentary to=functions.apply_patch code<|message|>{text}<|call|>"


ANSWER = "<|channel|>final<|message|>Done.<|return|>"
UPDATE = patch("*** Update File: d/deep.txt", "-deep", "+high")


@pytest.fixture
def workspace(tmp_path) -> Path:
    folder = tmp_path / "workspace"
    (folder / "d").mkdir(parents=True)
    (folder / "d/deep.txt").write_text("deep\n")
    (folder / "a.py").write_text("")
    return folder


@pytest.fixture
def with_patches(gptoss, workspace):
    def run(command: str, *arguments: str, **options):
        return gptoss(command, "--tool", "apply_patch", "--workspace", str(workspace), *arguments, **options)

    return run


def test_ask_applies_a_patch_that_a_rule_allows(with_patches, workspace) -> None:
    rule = ("--allow", "apply_patch(d/*)")
    result = with_patches("ask", "Hi", *rule, completions=[UPDATE, ANSWER])
    assert result.status == 0
    assert (workspace / "d/deep.txt").read_text() == "high\n"
    assert "# Changing files" in result.prompts[0]
    assert "type apply_patch = (_: string) => any;" in result.prompts[0]
    assert "to=assistant<|channel|>commentary<|message|>Done!\nM d/deep.txt<|end|>" in result.prompts[1]
    call = patch("*** Delete File: a.py")
    assert "not allowed" in with_patches("ask", "Hi", *rule, completions=[call, ANSWER]).prompts[1]
    assert (workspace / "a.py").exists()


def test_person_sees_the_diff_in_colours(with_patches, workspace) -> None:
    result = with_patches("ask", "Hi", completions=[UPDATE, ANSWER], terminal="err")
    assert "\x1b[31m-deep\x1b[39m" in result.stderr
    assert "\x1b[1m+high\x1b[22m" in result.stderr
    assert (workspace / "d/deep.txt").read_text() == "deep\n"


def test_chat_takes_a_patch_back(with_patches, workspace) -> None:
    lines = b"/undo-patch\nHi\n/undo-patch\n/files\n"
    result = with_patches("chat", "--allow", "*", completions=[UPDATE, ANSWER], stdin=lines)
    said = result.stderr.splitlines()
    assert "no patch was applied in this conversation" in said
    assert "taken back: d/deep.txt" in said
    assert said[-1] == "this conversation has no files"
    assert (workspace / "d/deep.txt").read_text() == "deep\n"


def test_limit_of_calls_is_status_4_with_its_name(with_patches) -> None:
    calls = [patch(f"*** Add File: new{n}.txt", "+x") for n in range(3)]
    result = with_patches("ask", "Hi", "--allow", "*", "--max-tool-calls", "2", "--json", completions=calls)
    told = json.loads(result.stdout)
    assert (result.status, told["limit"]) == (4, "tool_calls")
    assert [call["status"] for call in told["tool_calls"]] == ["ok", "ok", "limit"]
    assert "2 calls of tools were allowed (--max-tool-calls)" in result.stderr


def test_files_of_a_conversation_go_with_it(gptoss, tmp_path) -> None:
    call = "<|channel|>analysis to=python code<|message|>open('made.txt', 'w').write('x')<|call|>"
    result = gptoss("ask", "Hi", "--tool", "python", "--allow", "python", "--json", completions=[call, ANSWER])
    identifier = json.loads(result.stdout)["session"]
    made = tmp_path / "home/conversations/files" / identifier / "made.txt"
    assert made.read_text() == "x"
    assert gptoss("sessions", "delete", identifier).status == 0
    assert not made.parent.exists()


def test_folders_without_end_are_listed_as_far_as_that_goes_and_deleted(gptoss, tmp_path) -> None:
    code = (
        "import os\nbefore = os.open('.', os.O_RDONLY)\nopen('made.txt', 'w').close()\nfor n in range(1900):\n"
        "    os.mkdir('d'); os.chdir('d')\nos.fchdir(before)\nprint('made')"
    )
    call = f"<|channel|>analysis to=python code<|message|>{code}<|call|>"
    tool = ("--tool", "python", "--allow", "python", "--sandbox", "off", "--json")
    result = gptoss("ask", "Hi", *tool, completions=[call, ANSWER])
    told = json.loads(result.stdout)
    assert told["tool_calls"][0]["result"] == "made"
    files = gptoss("sessions", "files")
    assert (files.status, files.stdout.splitlines()[1:]) == (0, ["  made.txt  0 bytes"])
    assert gptoss("sessions", "delete", told["session"]).status == 0
    assert not (tmp_path / "home/conversations/files" / told["session"]).exists()
    assert gptoss("ask", "Hi", *tool, "--no-save", completions=[call, ANSWER]).status == 0


def test_what_is_typed_before_the_question_is_no_answer_to_it(terminal, workspace) -> None:
    arguments = ("--tool", "apply_patch", "--workspace", str(workspace))
    screen = terminal(*arguments, completions=[UPDATE, ANSWER], token_delay_s=0.03, rows=50)
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for(".*thinking|.*reading|> Hi")
    screen.type("yes, and")
    screen.wait_for(r"\[n\]")
    assert (workspace / "d/deep.txt").read_text() == "deep\n"
    screen.type("y\r")
    lines = screen.wait_for("> yes, and")
    assert "Done." in lines
    assert (workspace / "d/deep.txt").read_text() == "high\n"
