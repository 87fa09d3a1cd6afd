"""`gptoss` as a process of its own: pipes that close, disks that are full, signals, start-up."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORDS = " ".join(str(number) for number in range(300))
LONG = f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{WORDS}<|return|>"


def test_closed_pipe_ends_quietly(spawn) -> None:
    process = spawn("ask", "Hi", completions=[LONG], token_delay_s=0.002)
    assert process.stdout.read(6) == b"0 1 2 "
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert process.stderr.read() == b""


def test_closed_pipe_of_standard_error_does_not_cost_the_answer(spawn) -> None:
    process = spawn("ask", "Hi", "--reasoning", "show", completions=[LONG])
    process.stderr.close()
    assert process.stdout.read().decode() == WORDS + "\n"
    assert process.wait(timeout=20) == 0


def test_full_disk_is_one_line(spawn) -> None:
    with Path("/dev/full").open("wb") as full:
        process = spawn("ask", "Hi", completions=[LONG], streams={"stdout": full})
        assert process.stderr.read() == b"gptoss: cannot write to standard output: No space left on device\n"
        assert process.wait(timeout=20) == 1


HELP_TEXTS = [["--help"], ["ask", "--help"], ["sessions", "-h"], ["sessions", "list", "--help"], ["--version"]]


@pytest.mark.parametrize("arguments", HELP_TEXTS)
def test_full_disk_at_a_help_text(spawn, arguments) -> None:
    with Path("/dev/full").open("wb") as full:
        process = spawn(*arguments, completions=[], streams={"stdout": full})
        assert process.stderr.read() == b"gptoss: cannot write to standard output: No space left on device\n"
        assert process.wait(timeout=20) == 1


@pytest.mark.parametrize("arguments", HELP_TEXTS)
def test_standard_output_closed_at_a_help_text(script, arguments) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *script(*arguments, completions=[])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (1, b"gptoss: cannot write to standard output: it is closed\n")


def test_closed_pipe_at_a_help_text(spawn) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn("--help", completions=[], streams={"stdout": writer})
    os.close(writer)
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 141


def test_standard_output_closed_from_the_start(script) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *script("ask", "Hi", completions=[LONG])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert done.stderr == b"gptoss: cannot write to standard output: it is closed\n"
    assert done.returncode == 1


def test_interrupt_in_the_answer_keeps_what_was_written(spawn) -> None:
    process = spawn("ask", "Hi", completions=[LONG], token_delay_s=0.01)
    begun = process.stdout.read(6)
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(timeout=20) == 130
    assert process.stderr.read() == b""
    written = (begun + rest).decode()
    assert written.endswith("\n")
    assert (WORDS + " ").startswith(written.rstrip("\n"))
    assert len(written) < len(WORDS)


def test_interrupt_is_told_in_json(spawn) -> None:
    process = spawn("ask", "Hi", "--stream-json", completions=[LONG], token_delay_s=0.01)
    lines = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)
    lines += process.stdout.readlines()
    assert process.wait(timeout=20) == 130
    assert json.loads(lines[-1])["event"] == "done"
    assert json.loads(lines[-1])["finish_reason"] == "interrupted"


def test_interrupt_while_the_prompt_is_computed(spawn) -> None:
    process = spawn("ask", "Hi", "--stream-json", completions=[LONG], prefill_delay_s=60)
    assert b'"start"' in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert process.stderr.read() == b""


def test_interrupt_while_the_model_loads(spawn, tmp_path) -> None:
    loading = tmp_path / "loading"
    process = spawn("ask", "Hi", completions=[LONG], load_delay_s=60, loading=str(loading))
    while not loading.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert process.stderr.read() == b""


def test_second_interrupt_does_not_wait_for_a_token(spawn) -> None:
    process = spawn("ask", "Hi", completions=[LONG], pause=[15, 60])
    begun = process.stdout.read(4)
    time.sleep(0.3)  # until it awaits the next token, which only then can be too long in coming
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert (begun + process.stdout.read()).decode() == "0 1 \n"


def test_interrupt_ends_a_chat_from_a_pipe(spawn) -> None:
    process = spawn("chat", completions=[LONG], token_delay_s=0.01, streams={"stdin": subprocess.PIPE})
    process.stdin.write(b"Count.\nAgain.\n")
    process.stdin.flush()
    assert process.stdout.read(6) == b"0 1 2 "
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130


def test_standard_input_in_a_pipe(spawn) -> None:
    process = spawn("ask", completions=[LONG], streams={"stdin": subprocess.PIPE})
    output, errors = process.communicate(b"Count.\n", timeout=20)
    assert (output.decode(), errors, process.returncode) == (WORDS + "\n", b"", 0)


def test_an_odd_locale_does_not_spoil_a_pipe(script) -> None:
    command = script("ask", "Hi", completions=["<|channel|>final<|message|>caf\u00e9 \u4f60\u597d<|return|>"])
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert (done.stdout.decode(), done.stderr, done.returncode) == ("caf\u00e9 \u4f60\u597d\n", b"", 0)


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--help"], {}),
        (["--version"], {}),
        (["ask", "--help"], {}),
        (["completion", "bash"], {}),
        (["cache", "show"], {}),
        (["config", "get"], {}),
        ([], {"_GPTOSS_COMPLETE": "complete_bash", "COMP_WORDS": "gptoss se", "COMP_CWORD": "1"}),
    ],
)
def test_start_up_imports_little_and_nothing_heavy(arguments, variables) -> None:
    code = (
        "import sys; from gptoss.cli.app import run; from gptoss.cli.startup.environment import Environment;"
        f"status = run({arguments!r}, Environment(load_model=None));"
        "heavy = {'torch', 'tiktoken', 'rich.console', 'prompt_toolkit', 'numpy', 'huggingface_hub', 'llguidance'};"
        "heavy &= set(sys.modules);"
        # Some 300 of them, which take a tenth of a second.
        "many = len(sys.modules) if len(sys.modules) > 400 else '';"
        "sys.exit(f'{status} {heavy} {many}' if status or heavy or many else 0)"
    )
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("argument", "others"), [("--help", {"importlib.metadata"}), ("--version", set())])
def test_help_and_version_need_no_more_than_the_command_line(argument, others) -> None:
    code = (
        "import sys; from gptoss.cli.app import run; from gptoss.cli.startup.environment import Environment;"
        f"run([{argument!r}], Environment(load_model=None));"
        f"print(*({{'pydantic', 'gptoss.cli.session.events'}} | {others!r}) & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "gptoss.cli", "--version"], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("gptoss ")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_command_the_help_is_no_result() -> None:
    done = subprocess.run([sys.executable, "-m", "gptoss.cli", "harmony"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: gptoss")


def test_interrupt_while_the_program_itself_is_imported(tmp_path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n")
    command = [sys.executable, "-m", "gptoss.cli", "--version"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
