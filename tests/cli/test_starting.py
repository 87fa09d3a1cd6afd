"""The first seconds of the program: what is said, and what works, before a model is there."""

import os
import subprocess
import sys
import time

import pytest

MISSING = ["CheckpointError", "config.json is broken"]


@pytest.fixture
def program(pseudo_terminal, tmp_path):
    """Start the real program at a pseudo-terminal; its `torch` ends it at once, with a word."""
    fake = tmp_path / "fake" / "torch"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
    opened = []

    def start(*arguments: str):
        environment = {
            "PATH": os.environ["PATH"],
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
            "GPTOSS_HOME": str(tmp_path / "home"),
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "PYTHONPATH": str(fake.parent),
        }
        opened.append(pseudo_terminal.Terminal([sys.executable, "-m", "gptoss.cli", *arguments], 80, 24, environment))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def gate(tmp_path):
    """A file for which loading waits: `load_until`."""
    return tmp_path / "gate"


@pytest.mark.parametrize("command", [("chat",), ("ask", "Hi")])
def test_a_model_that_is_not_here_is_missed_before_torch_is_imported(program, command) -> None:
    screen = program(*command)
    screen.wait_for(r"20b \(13.8 GB\) is not on this machine. Pull openai/gpt-oss-20b now")
    screen.type("n\r")
    assert screen.ended() == 3
    assert "torch was imported" not in screen.raw
    assert "loading" not in screen.raw
    said = " ".join(screen.raw.split())
    assert "`gptoss pull 20b` fetches it, `gptoss chat -m nano` talks to the small built-in model" in said


def test_the_first_screen_names_a_chat_that_works_at_once(gptoss) -> None:
    assert "  gptoss chat -m nano  " in gptoss().stdout


def test_a_message_is_typed_while_the_model_loads(terminal, reply, gate) -> None:
    screen = terminal(completions=[reply("A", "")], load_until=str(gate))
    screen.wait_for_prompt()
    screen.type("early")
    screen.wait_for("> early")
    assert "\N{MIDDLE DOT} loading" in screen.status_bar()
    screen.type(" bird\r")
    screen.wait_for("loading nano")
    screen.type("next")
    gate.touch()
    lines = screen.wait_for("> next")
    assert lines[0].startswith("gptoss ")
    assert lines[1:] == ["> early bird", "A", "", "> next"]
    assert "context" in screen.status_bar()


@pytest.mark.parametrize("waits", [False, True])
def test_what_was_typed_is_kept_when_loading_fails(terminal, gate, waits) -> None:
    screen = terminal(completions=[], load_until=str(gate), load_error=MISSING)
    screen.wait_for_prompt()
    screen.type("precious words" + "\r" * waits)
    if waits:
        screen.wait_for("loading nano")
        screen.type("more")
        time.sleep(0.1)
    else:
        screen.wait_for("> precious words")
    gate.touch()
    assert screen.ended() == 3
    assert screen.left_as_found
    assert "> precious words" in screen.lines_at_end()
    assert screen.raw.count("gptoss: config.json is broken\r\n") == 1
    assert "the up arrow brings it back in the next chat" in screen.raw
    again = terminal(completions=[])
    again.wait_for_prompt()
    again.type("\x1b[A" * (1 + waits))
    again.wait_for("> precious words")


def test_what_an_editor_has_is_kept_when_loading_fails(terminal, gate, tmp_path) -> None:
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\ntouch {gate}\nsleep 0.5\nsed -i s/draft/edited/ "$1"\n')
    editor.chmod(0o755)
    variables = {"EDITOR": str(editor), "VISUAL": ""}
    screen = terminal(completions=[], load_until=str(gate), load_error=MISSING, variables=variables)
    screen.wait_for_prompt()
    screen.type("a draft\x18\x05")
    assert screen.ended() == 3
    assert "> a edited" in screen.lines_at_end()
    assert "a edited" in (tmp_path / "home" / "state" / "history").read_text()


def test_a_model_that_cannot_be_used_is_told_at_an_empty_line_too(terminal) -> None:
    screen = terminal(completions=[], load_error=MISSING)
    assert screen.ended() == 3
    assert screen.raw.count("gptoss: config.json is broken\r\n") == 1
    assert "up arrow" not in screen.raw


@pytest.mark.parametrize("leaving", ["\x04", "/exit\r"])
def test_nobody_waits_for_the_model_to_leave(terminal, gate, leaving) -> None:
    screen = terminal(completions=[], load_until=str(gate))
    screen.wait_for_prompt()
    screen.type(leaving)
    assert screen.ended() == 0


def test_ctrl_c_goes_back_to_the_line_while_the_model_loads(terminal, reply, gate) -> None:
    screen = terminal(completions=[reply("A", "")], load_until=str(gate))
    screen.wait_for_prompt()
    screen.type("hasty\r")
    screen.wait_for("loading nano.*Ctrl-C stops")
    screen.type("\x03")
    screen.wait_for("stopped; nano is still being loaded")
    screen.wait_for_prompt()
    screen.type("\x1b[A!\r")
    gate.touch()
    screen.wait_for("> hasty!")
    screen.wait_for("A")


def test_help_does_not_wait_for_the_model(terminal, gate) -> None:
    screen = terminal(completions=[], load_until=str(gate))
    screen.wait_for_prompt()
    screen.type("/help\r")
    screen.wait_for("Ctrl-C stops an answer")


@pytest.mark.long
def test_a_thread_waits_little_while_torch_is_imported() -> None:
    """The longest of many short sleeps is what a key waits for its echo; 340 ms without what opens the libraries."""
    code = (
        "import time\n"
        "from gptoss.cli.startup.background import Background\n"
        "from gptoss.cli.startup.lazy_loading import import_torch\n"
        "importing, longest, last = Background(import_torch), 0.0, time.monotonic()\n"
        "while not importing.is_done:\n"
        "    time.sleep(0.002)\n"
        "    now = time.monotonic()\n"
        "    longest, last = max(longest, now - last), now\n"
        "importing.result()\n"
        "print(longest)\n"
    )
    tries = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(3)]
    assert min(map(float, tries)) < 0.1
