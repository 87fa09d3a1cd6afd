"""Ctrl-C while a tool runs, kill -9 in the midst of a turn, and conversations whose tools are off."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's mechanisms")
ANSWER = "<|channel|>final<|message|>Done.<|return|>"


def cell(*lines: str) -> str:
    code = "\n".join(lines)
    return f"<|channel|>analysis to=python code<|message|>{code}<|call|>"


ENDLESS = cell(
    "import subprocess, time",
    "x = 5",
    "child = subprocess.Popen(['/bin/sleep', '600'])",
    "for n in range(9999):",
    "    print('line', n)",
    "    time.sleep(0.02)",
)
# The first call that runs writes one byte, and every further one another.
COUNTED = cell(
    "import time", "with open('runs', 'a') as file: _ = file.write('x')", "print('begun')", "time.sleep(600)"
)


def test_ctrl_c_ends_a_running_cell_with_its_processes_and_keeps_what_was_done(terminal, kept) -> None:
    screen = terminal(
        "--tool", "python", "--allow", "*", completions=[ENDLESS, ANSWER, cell("child.wait(9), x"), ANSWER]
    )
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for("  line 5$")
    assert sum(line.startswith("  line ") for line in screen.lines()) <= 8
    screen.type("\x03")
    screen.wait_for("stopped; what was said is kept")
    assert any(line.startswith("ended by you") for line in screen.wait_for_prompt())
    result = kept()[-1]
    assert result.startswith("line 0\nline 1\n")
    assert "KeyboardInterrupt" in result
    assert "[Ended after " in result
    assert result.endswith("The user has ended this turn.")
    screen.type("/continue\r")
    screen.wait_for("Done")
    screen.wait_for_prompt()
    screen.type("And now?\r")
    screen.wait_for(r"  \(-15, 5\)")
    screen.wait_for_prompt()
    assert kept()[-2:] == ["(-15, 5)", "Done."]
    screen.type("/exit\r")
    assert screen.ended() == 0


def test_ctrl_c_at_the_question_is_a_no_that_ends_the_turn(terminal, kept) -> None:
    completions = [cell("print(1)"), ANSWER, cell("print(2)"), ANSWER, cell("print(3)"), ANSWER]
    screen = terminal("--tool", "python", completions=completions, rows=60)
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for(r"\[n\]")
    screen.type("\x03")
    screen.wait_for("stopped; what was said is kept, /continue goes on")
    screen.wait_for_prompt()
    assert kept()[-1] == "The user did not allow this call.\nThe user has ended this turn."
    screen.type("/continue\r")
    screen.wait_for("Done")
    screen.wait_for_prompt()
    screen.screen.reset()
    screen.type("Again\r")
    screen.wait_for(r"\[n\]")
    screen.type("c\r")
    screen.wait_for("  2$")  # the first interpreter of all, and so without a word about a new one
    screen.wait_for_prompt()
    assert kept()[-2:] == ["2", "Done."]
    screen.screen.reset()
    screen.type("/clear\r")
    screen.wait_for("a new conversation")
    screen.type("And now?\r")
    screen.wait_for(r"\[n\]")  # what was granted for the conversation ended with it


def processes_with(word: str) -> list[str]:
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if word in line]


@pytest.fixture
def killed_in_a_call(spawn, tmp_path):
    """Kill a program while its tool python runs, and the folder of the conversation's files."""

    def kill(*arguments: str) -> Path:
        process = spawn(
            "ask", "Hi", "--tool", "python", "--allow", "*", *arguments, "--stream-json", completions=[COUNTED]
        )
        while b"tool_output" not in process.stdout.readline():
            assert process.poll() is None
        process.kill()
        process.wait()
        (folder,) = (tmp_path / "home/conversations/files").iterdir()
        return folder

    return kill


@pytest.mark.parametrize("sandbox", ["auto", "off"])
def test_killed_program_leaves_no_process_of_its_tools(killed_in_a_call, sandbox) -> None:
    folder = killed_in_a_call("--sandbox", sandbox)
    end = time.monotonic() + 10
    while processes := [line for line in processes_with("worker.py") if is_in(line, folder)]:
        assert time.monotonic() < end, processes
        time.sleep(0.02)


def is_in(line: str, folder: Path) -> bool:
    """Whether the process of a line of ps works in the folder, or its sandbox was given it."""
    try:
        return str(folder) in line or Path(f"/proc/{line.split()[0]}/cwd").readlink() == folder
    except OSError:
        return False


def test_call_without_a_result_is_not_run_again_and_the_model_learns_of_the_new_interpreter(
    killed_in_a_call, gptoss, kept
) -> None:
    folder = killed_in_a_call()
    result = gptoss("ask", "-c", "Go on", "--tool", "python", "--allow", "*", completions=[cell("1 + 1"), ANSWER])
    assert result.status == 0
    no_result = "No result: the program ended before there was one. The call may have run, wholly or in part."
    question = "<|end|><|start|>user<|message|>Go on<|end|>"
    assert f"<|start|>python to=assistant<|channel|>analysis<|message|>{no_result}{question}" in result.prompts[0]
    new = "[A new interpreter was started: variables of earlier calls are gone, files are kept.]\n2"
    assert kept()[2:] == [no_result, "Go on", "1 + 1", new, "Done."]
    assert (folder / "runs").read_text() == "x"


def test_chat_goes_on_with_a_turn_that_was_killed_in_a_call(killed_in_a_call, gptoss, kept) -> None:
    folder = killed_in_a_call()
    result = gptoss("chat", "-c", "--tool", "python", "--allow", "*", completions=[ANSWER], stdin=b"/continue\n")
    assert (result.status, result.stdout) == (0, "Done.\n")
    assert kept()[2].startswith("No result: ")
    assert kept()[3:] == ["Done."]
    assert (folder / "runs").read_text() == "x"


OFF = "gptoss: tools of this conversation are off in this run: python; --tool and --functions turn tools on\n"


def test_conversation_whose_tools_are_off_says_which(gptoss, store) -> None:
    gptoss("ask", "Hi", "--tool", "python", "--allow", "*", completions=[ANSWER])
    result = gptoss("ask", "-c", "On", completions=[ANSWER])
    assert (result.status, result.stderr) == (0, OFF)
    result = gptoss("ask", "-c", "On", "--tool", "python", completions=[ANSWER])
    assert (result.status, result.stderr) == (0, "")
    (identifier,) = (log.saved.id for log in store.readable())
    result = gptoss("ask", "-c", "On", completions=[cell("1")])
    reason = "gptoss: the model called the tool 'python', which this run does not have, and gave no answer\n"
    assert (result.status, result.stderr) == (1, OFF + reason)
    result = gptoss("chat", stdin=f"/load {identifier}\nOn\n".encode(), completions=[cell("1")])
    assert OFF.removeprefix("gptoss: ") in result.stderr
    assert "the model called python, which is off in this run; /retry asks again\n" in result.stderr
    result = gptoss("ask", "-c", "On", "--tool", "none", completions=[ANSWER])
    assert (result.status, result.stderr) == (0, "")
    assert "## python" not in result.prompts[0]
