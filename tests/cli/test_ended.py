"""SIGTERM, and a terminal that goes away: what was said is kept, and the exit status tells of it."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gptoss.cli.base.interrupts import Terminated
from gptoss.cli.base.output import Output

WORDS = " ".join(str(number) for number in range(300))
LONG = f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{WORDS}<|return|>"
SHORT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Done<|return|>"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_in_the_answer_keeps_what_was_written(spawn, number, status, kept) -> None:
    process = spawn("ask", "Hi", completions=[LONG], token_delay_s=0.01)
    begun = process.stdout.read(6)
    process.send_signal(number)
    written = (begun + process.stdout.read()).decode()
    assert process.wait(timeout=20) == status
    assert process.stderr.read() == b""
    assert written.endswith("\n")
    assert kept() == ["Hi", "Hm.", written.rstrip("\n")]
    assert len(written) < len(WORDS)


def test_signal_is_told_in_json(spawn) -> None:
    process = spawn("ask", "Hi", "--stream-json", completions=[LONG], token_delay_s=0.01)
    lines = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGTERM)
    lines += process.stdout.readlines()
    assert process.wait(timeout=20) == 143
    assert json.loads(lines[-1])["finish_reason"] == "interrupted"


def test_signal_while_the_prompt_is_computed(spawn, kept) -> None:
    process = spawn("ask", "Hi", "--stream-json", completions=[LONG], prefill_delay_s=60)
    assert b'"start"' in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert process.stderr.read() == b""
    assert kept() == ["Hi"]


def test_signal_while_the_model_loads(spawn, tmp_path) -> None:
    loading = tmp_path / "loading"
    process = spawn("ask", "Hi", completions=[LONG], load_delay_s=60, loading=str(loading))
    while not loading.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert process.stderr.read() == b""


def test_second_signal_does_not_wait_for_a_token(spawn, kept) -> None:
    process = spawn("ask", "Hi", completions=[LONG], pause=[15, 60])
    begun = process.stdout.read(4)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert (begun + process.stdout.read()).decode() == "0 1 \n"
    assert kept()[-1].startswith("0 1")


def test_signal_ends_a_chat_from_a_pipe(spawn, kept) -> None:
    process = spawn("chat", completions=[LONG, SHORT], token_delay_s=0.01, streams={"stdin": subprocess.PIPE})
    process.stdin.write(b"Count.\nAgain.\n")
    process.stdin.flush()
    begun = process.stdout.read(6)
    process.send_signal(signal.SIGTERM)
    written = (begun + process.stdout.read()).decode()
    assert process.wait(timeout=20) == 143
    assert kept() == ["Count.", "Hm.", written.rstrip("\n")]


def test_ignored_signal_stays_ignored(script) -> None:
    """As after nohup, and for a job that a shell has put into the background."""
    command = [
        "sh",
        "-c",
        "trap '' HUP TERM; exec \"$@\"",
        "sh",
        *script("ask", "Hi", completions=[SHORT], pause=[2, 1]),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with process:
        time.sleep(1.5)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"Done\n"
    assert process.returncode == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_at_the_prompt_leaves_the_terminal_as_it_was(terminal, number, status) -> None:
    at = terminal(completions=[])
    at.wait_for_prompt()
    assert not at.echoes()
    before = len(at.raw)
    at.send_signal(number)
    assert at.ended() == status
    assert at.left_as_found
    assert "\x1b[?2004l" in at.raw[before:]  # what is pasted is no longer put into brackets
    assert "Traceback" not in at.raw


def test_signal_in_a_chat_keeps_what_was_said_and_leaves_the_terminal_as_it_was(terminal, kept) -> None:
    at = terminal(completions=[LONG], token_delay_s=0.01)
    at.wait_for_prompt()
    at.type("Count.\r")
    at.wait_for("0 1 2")
    at.send_signal(signal.SIGTERM)
    assert at.ended() == 143
    assert at.left_as_found
    assert "Traceback" not in at.raw
    question, reasoning, answer = kept()
    assert (question, reasoning) == ("Count.", "Hm.")
    assert WORDS.startswith(answer)


@pytest.mark.parametrize("answering", [True, False])
def test_terminal_that_goes_ends_the_chat(terminal, answering, kept) -> None:
    at = terminal(completions=[SHORT, LONG], token_delay_s=0.01)
    at.wait_for_prompt()
    at.type("Hi\r")
    at.wait_for("Done")
    at.wait_for_prompt()
    if answering:
        at.type("Count.\r")
        at.wait_for("0 1 2")
    assert at.hang_up() == 129
    said = kept()
    assert said[:3] == ["Hi", "Hm.", "Done"]
    assert said[3:5] == (["Count.", "Hm."] if answering else [])


def test_terminal_that_goes_ends_an_answer(script, pseudo_terminal, tmp_path, kept) -> None:
    command = script("ask", "Count.", completions=[LONG], token_delay_s=0.01)
    variables = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "GPTOSS_HOME": str(tmp_path / "home")}
    at = pseudo_terminal.Terminal(command, 80, 24, variables)
    at.wait_for("0 1 2")
    assert at.hang_up() == 129
    question, _, answer = kept()
    assert question == "Count."
    assert WORDS.startswith(answer)


def test_output_that_the_terminal_no_longer_takes_is_its_end(monkeypatch) -> None:
    """The error can come before the signal, or without it."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(stream, "flush", lambda: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(Terminated) as caught:
        Output(stream, "standard output", {}).write("x")
    assert caught.value.signal is signal.SIGHUP


def test_batch_that_is_terminated_goes_on(spawn, gptoss, tmp_path) -> None:
    batch, results = tmp_path / "batch.jsonl", tmp_path / "results.jsonl"
    batch.write_text('"one"\n"two"\n')
    arguments = ["ask", "--batch", str(batch), "--results", str(results)]
    process = spawn(*arguments, completions=[SHORT, LONG], token_delay_s=0.01)
    while not (results.exists() and results.read_bytes()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert results.read_bytes().count(b"\n") == 1
    assert gptoss(*arguments, completions=[SHORT]).status == 0
    assert results.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    ("arguments", "number", "status"),
    [
        (("ask", "-m", "nano", "Hi"), signal.SIGINT, 130),
        (("show", "nano"), signal.SIGTERM, 143),
        (("verify", "nano"), signal.SIGINT, 130),
        (("bench", "-m", "nano"), signal.SIGINT, 130),
    ],
)
def test_signal_while_torch_is_imported_ends_the_program_at_once(tmp_path, arguments, number, status) -> None:
    (tmp_path / "torch").mkdir()
    begun = tmp_path / "begun"
    (tmp_path / "torch" / "__init__.py").write_text(
        f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(20)\n"
    )
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "GPTOSS_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "gptoss.cli", *arguments]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 10
        while not begun.exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        output, errors = process.communicate(timeout=5)
    assert (process.returncode, output, errors) == (status, b"", b"")
