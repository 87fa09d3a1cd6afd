"""The first seconds of the program: what is said, and what works, before a model is there."""

import os
import sys

import pytest


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
