"""The tool python: a stateful interpreter in a sandbox, and a turn of `ask` that uses it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gptoss.cli.tools.python.interpreter
from gptoss.cli.sandbox.limits import Limits
from gptoss.cli.sandbox.sandbox import Sandbox
from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.python.tool import PythonTool
from gptoss.cli.tools.tool import ToolInputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's mechanisms")
HAS_BUBBLEWRAP = shutil.which("bwrap") is not None
needs_bubblewrap = pytest.mark.skipif(not HAS_BUBBLEWRAP, reason="bwrap is not there")
MECHANISMS = (pytest.param("bubblewrap", marks=needs_bubblewrap), "landlock", "off")
FIRST = "bubblewrap" if HAS_BUBBLEWRAP else "landlock"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user can be given, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="gptoss-python-") as name:
        yield Path(name)


@pytest.fixture
def python(folder) -> Iterator:
    tools = []

    def make(mechanism: str = FIRST, seconds: float = 30, limits: Limits = Limits()) -> PythonTool:
        tools.append(PythonTool(Sandbox(mechanism, limits), lambda: folder, seconds=seconds))
        return tools[-1]

    yield make
    for tool in tools:
        tool.close()


def run(tool: PythonTool, code: str, history: tuple = ()) -> ToolOutcome:
    return outcome_of(tool.prepare(ToolCall("python", code), history).run())


def outcome_of(running) -> ToolOutcome:
    while True:
        try:
            next(running)
        except StopIteration as ending:
            return ending.value


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_cells_keep_their_state_and_show_the_last_value(python, mechanism) -> None:
    tool = python(mechanism)
    assert run(tool, "x = 6") == ToolOutcome("[No output. Use print() to see a value.]")
    assert run(tool, "print('x is', x)\nx * 7").text == "x is 6\n42"
    assert run(tool, "x * 7;").text.startswith("[No output.")
    assert run(tool, "None").text.startswith("[No output.")
    assert run(tool, "import subprocess\nsubprocess.run(['/bin/echo', 'child'])").text.startswith("child\n")
    assert run(tool, "import asyncio\nawait asyncio.sleep(0, 'awaited')").text == "'awaited'"


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_packages_of_the_environment_can_be_imported(python, mechanism) -> None:
    assert run(python(mechanism), "import numpy\nint(numpy.arange(4).sum())").text == "6"


def test_exception_is_shown_once_without_colours_and_without_our_frames(python) -> None:
    text = run(python(), "def f():\n    return 1 / 0\nprint('before')\nf()").text
    assert text.startswith(
        'before\nTraceback (most recent call last):\n  File "<cell 1>", line 4, in <module>\n    f()\n'
    )
    assert text.endswith("ZeroDivisionError: division by zero")
    assert text.count("ZeroDivisionError") == 1
    assert "worker" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("1 +", '  File "<cell 1>", line 1\n    1 +\n       ^\nSyntaxError: invalid syntax'),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("input()", "EOFError: EOF when reading a line"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os\n_ = os.write(2, b'caf\\xc3\\xa9 \\xff')", "caf\u00e9 \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_what_ends_a_cell_does_not_end_the_interpreter(python, code, text) -> None:
    tool = python()
    assert run(tool, code).text.endswith(text)
    assert run(tool, "1").text == "1"


def test_time_limit_interrupts_and_keeps_the_state(python) -> None:
    tool = python()
    run(tool, "x = 1")
    tool._seconds = 0.3  # the start may take longer
    outcome = run(tool, "import time\nprint('begun')\ntime.sleep(60)")
    assert (outcome.status, outcome.text) == ("timeout", "begun\nKeyboardInterrupt\n[Interrupted after 0.3 seconds.]")
    assert run(tool, "x").text == "1"


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_interrupt_ends_what_the_cell_has_started(python, mechanism) -> None:
    tool = python(mechanism)
    run(tool, "x = 1")
    tool._seconds = 0.3
    code = "import subprocess, time\nchild = subprocess.Popen(['/bin/sleep', '60'])\ntime.sleep(60)"
    assert run(tool, code).status == "timeout"
    assert run(tool, "child.wait(5), x").text == "(-15, 1)"


def test_code_that_will_not_be_interrupted_ends_with_its_interpreter(python, monkeypatch) -> None:
    monkeypatch.setattr("gptoss.cli.tools.python.interpreter._GRACE_S", 0.3)
    tool = python()
    run(tool, "x = 1")
    tool._seconds = 0.3
    outcome = run(tool, "import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass")
    assert outcome.status == "timeout"
    assert outcome.text.endswith("The interpreter was ended; the next call starts a new one, without the variables.]")
    tool._seconds = 30
    text = run(tool, "'x' in globals()").text
    assert text == "[A new interpreter was started: variables of earlier calls are gone, files are kept.]\nFalse"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "import os\nos._exit(3)",
            "[The interpreter ended. The next call starts a new interpreter, without the variables.]",
        ),
        ("import os, signal\nos.kill(os.getpid(), 9)", "[The interpreter ended. The next call"),
        ("x = bytearray(1 << 40)", "MemoryError"),
        (
            "import os, time\nos.fork()\nx = bytearray(70 << 20)\nx[::999] = x[::999]\ntime.sleep(9)",
            "[Too much memory was used.",
        ),
    ],
)
def test_interpreter_that_dies_is_a_result(python, code, text) -> None:
    tool = python(limits=Limits(memory=100 << 20))
    outcome = run(tool, code)
    assert text in outcome.text
    assert outcome.status == ("ok" if text == "MemoryError" else "error")
    assert run(tool, "1").text.endswith("1")


def test_cancel_from_another_thread_keeps_what_was_written(python) -> None:
    tool = python()
    run(tool, "x = 1")
    call = tool.prepare(ToolCall("python", "import time\nprint('begun', flush=True)\ntime.sleep(60)"), ())
    running = call.run()
    assert next(running) == "begun\n"
    threading.Timer(0.1, call.cancel).start()
    assert "".join(running) == "KeyboardInterrupt\n"
    assert run(tool, "x").text == "1"


def test_cell_that_is_cancelled_before_it_begins_never_runs(folder) -> None:
    requests, responses = os.pipe(), os.pipe()
    for request in ({"code": "open('made', 'w').close()"}, {"interrupt": True}):
        os.write(requests[1], json.dumps(request).encode() + b"\n")
    worker = Path(gptoss.cli.tools.python.interpreter.__file__).with_name("worker.py")
    command = [sys.executable, str(worker), str(requests[0]), str(responses[1])]
    process = subprocess.Popen(
        command, cwd=folder, pass_fds=(requests[0], responses[1]), stdout=subprocess.PIPE, start_new_session=True
    )
    assert os.read(responses[0], 100) == b'{"done": true}\n'
    os.write(requests[1], json.dumps({"code": "1 + 1"}).encode() + b"\n")
    assert os.read(responses[0], 100) == b'{"done": true}\n'
    os.close(requests[0])
    os.close(requests[1])
    assert process.communicate(timeout=20)[0] == b"KeyboardInterrupt\n2\n"
    assert list(folder.iterdir()) == []


def test_cancelled_call_says_so(python) -> None:
    tool = python()
    call = tool.prepare(ToolCall("python", "import time\ntime.sleep(60)"), ())
    threading.Timer(0.3, call.cancel).start()
    outcome = outcome_of(call.run())
    assert (outcome.status, outcome.text) == ("cancelled", "KeyboardInterrupt")


def test_endless_output_is_bounded(python) -> None:
    outcome = run(python(seconds=1), "while True: print('y' * 1000)")
    assert outcome.status == "timeout"
    assert len(outcome.text) < 1 << 20
    assert "characters left out here" in outcome.text


def test_output_comes_in_few_pieces_and_none_waits_for_the_next(python) -> None:
    tool = python()
    code = "import time\nfor n in range(2000): print(n)\ntime.sleep(0.5)\nprint('end')"
    began, pieces = time.monotonic(), []
    for piece in tool.prepare(ToolCall("python", code), ()).run():
        pieces.append((time.monotonic() - began, piece))
    assert len(pieces) < 20
    assert "".join(piece for _, piece in pieces) == "".join(f"{n}\n" for n in range(2000)) + "end\n"
    before_the_pause = next(at for at, piece in pieces if "1999" in piece)
    assert pieces[-1][0] - before_the_pause > 0.3


def test_lines_that_are_written_over_are_as_they_were_last(python) -> None:
    assert (
        run(python(), "for n in range(9): print(f'\\r{n}0%', end='')\nprint()\nprint('a\\r\\nb\\r')").text
        == "80%\na\nb"
    )


def test_made_files_are_found_and_hostile_ones_are_not(python, folder) -> None:
    code = (
        "import os\nopen('a.txt', 'w').write('x')\nos.mkdir('d')\nopen('d/b.csv', 'w').close()\n"
        "os.symlink('/etc/passwd', 'link')\nos.mkfifo('pipe')\nopen('.hidden', 'w').close()"
    )
    tool = python()
    assert run(tool, code).files == (folder / "a.txt", folder / "d/b.csv")
    assert run(tool, "1").files == ()
    assert run(tool, "open('a.txt', 'a').write('y')").files == (folder / "a.txt",)


def test_code_in_a_json_object_is_taken_and_no_code_is_a_slip(python) -> None:
    assert run(python(), '{"code": "2 + 3"}').text == "5"
    assert run(python(), '{"a": 1}').text == "{'a': 1}"
    with pytest.raises(ToolInputError, match="no code"):
        python().prepare(ToolCall("python", " \n"), ())


@needs_bubblewrap
def test_description_says_what_is_so(python) -> None:
    inside, beside = python("bubblewrap").namespace.description, python("landlock").namespace.description
    assert "'/mnt/data'" in inside
    assert "The current working directory can be used" in beside
    assert all("Internet access for this session is disabled." in text for text in (inside, beside))
    assert "UNKNOWN" in python("off").namespace.description
    assert run(python("bubblewrap"), "import os\nos.getcwd()").text == "'/mnt/data'"


CALL = "<|channel|>analysis to=python code<|message|>print(6 * 7)<|call|>"
ANSWER = "<|channel|>final<|message|>42<|return|>"


def test_ask_runs_python(gptoss) -> None:
    result = gptoss("ask", "Hi", "--tool", "python", "--allow", "python", "--json", completions=[CALL, ANSWER])
    assert result.status == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["answer"] == "42"
    (call,) = told["tool_calls"]
    assert call == {"id": "call_1", "recipient": "python", "arguments": "print(6 * 7)", "result": "42", "status": "ok"}
    assert "## python\n" in result.prompts[0]
    end = "<|call|><|start|>python to=assistant<|channel|>analysis<|message|>42<|end|><|start|>assistant"
    assert result.prompts[1].endswith(end)


def test_ask_in_a_pipe_denies_what_is_not_allowed(gptoss) -> None:
    result = gptoss("ask", "Hi", "--tool", "python", "--stream-json", completions=[CALL, ANSWER], stdin=b"")
    events = {event["event"]: event for event in map(json.loads, result.stdout.splitlines())}
    assert events["approval"] == {
        "event": "approval",
        "id": "call_1",
        "allowed": False,
        "by": "default",
        "rule": None,
        "reason": None,
    }
    assert events["tool_result"]["status"] == "denied"
    assert result.status == 0


def test_person_is_asked_at_a_terminal(gptoss) -> None:
    result = gptoss("ask", "Hi", "--tool", "python", completions=[CALL, ANSWER], terminal="err")
    assert "python wants to run" in result.stderr
    assert "  print(6 * 7)" in result.stderr
    assert "[n]" in result.stderr
    assert "The user did not allow this call." in result.prompts[1]


def test_functions_in_the_sandbox_by_an_option(gptoss, tmp_path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps([{"name": "look", "command": ["cat", "/etc/passwd"]}]))
    call = "<|channel|>commentary to=functions.look <|constrain|>json<|message|>{}<|call|>"
    arguments = ("ask", "Hi", "--functions", str(path), "--allow", "*", "--json")
    for option, status in ((), "ok"), (("--functions-sandbox",), "error"):
        result = gptoss(*arguments, *option, completions=[call, ANSWER])
        assert json.loads(result.stdout)["tool_calls"][0]["status"] == status
    result = gptoss(*arguments, "--functions-sandbox", "--sandbox", "off")
    assert (result.status, result.stderr) == (
        2,
        "gptoss: --functions-sandbox: functions cannot be confined by --sandbox off\n",
    )


def test_unknown_tool_and_bad_rules_are_wrong_usage(gptoss) -> None:
    result = gptoss("ask", "Hi", "--tool", "pyton")
    assert (result.status, result.stderr) == (
        2,
        "gptoss: there is no tool 'pyton'; the tools are python, files, apply_patch, browser\n",
    )
    result = gptoss("ask", "Hi", "--tool", "python", "--allow", "python(")
    assert result.status == 2
    assert "--allow: 'python(' is not of the form TOOL or TOOL(PATTERN)" in result.stderr


def test_rules_of_the_workspace_can_only_be_stricter(gptoss, tmp_path) -> None:
    (tmp_path / ".gptoss.toml").write_text('deny = ["python"]\n')
    arguments = ("ask", "Hi", "--tool", "python", "--allow", "*", "--workspace", str(tmp_path), "--json")
    told = json.loads(gptoss(*arguments, completions=[CALL, ANSWER]).stdout)
    assert told["tool_calls"][0]["status"] == "denied"
    (tmp_path / ".gptoss.toml").write_text('allow = ["python"]\n')
    result = gptoss(*arguments, completions=[CALL, ANSWER])
    assert result.status == 1
    assert "it may have the lists ask and deny only, not 'allow'" in result.stderr


def test_tools_of_the_config_file_can_be_turned_off(gptoss, tmp_path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text('tools = ["python"]\nallow = ["python"]\n')
    assert "## python" in gptoss("ask", "Hi", completions=[ANSWER]).prompts[0]
    assert "## python" not in gptoss("ask", "Hi", "--tool", "none", completions=[ANSWER]).prompts[0]


def test_sandbox_command_says_what_works(gptoss) -> None:
    result = gptoss("sandbox", "--json")
    found = {each["mechanism"]: each["works"] for each in map(json.loads, result.stdout.splitlines())}
    assert result.status == 0
    assert found["bubblewrap"] == HAS_BUBBLEWRAP
    assert found["landlock"]
    assert "landlock    works\n" in gptoss("sandbox").stdout
