"""The bell or a notification after a long answer, and the title of the window."""

import re
import time

import pytest

NOTE = "\x1b]9;gptoss: the answer is there, after 0.0 s\x07"


@pytest.mark.parametrize(
    ("variables", "called"),
    [
        ({}, "\x07"),
        ({"TERM_PROGRAM": "iTerm.app"}, NOTE),
        ({"TERM": "xterm-kitty"}, NOTE),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, "\x07"),
    ],
)
def test_person_is_called_by_what_the_terminal_knows(gptoss, reply, variables, called) -> None:
    options = {"completions": [reply("A")], "variables": variables}
    chat = gptoss("chat", "-m", "nano", "--notify-after", "0", stdin=b"a", terminal="out", **options)
    assert re.sub(r"\d\.\d s", "0.0 s", chat.stdout) == f"A\n{called}\n"
    ask = gptoss("ask", "-m", "nano", "--notify-after", "0", "a", terminal="err", **options)
    assert (ask.stdout, re.sub(r"\d\.\d s\x07", "0.0 s\x07", ask.stderr).count(called)) == ("A\n", 1)
    pipe = gptoss("chat", "-m", "nano", "--notify-after", "0", stdin=b"a", **options)
    assert (pipe.stdout, pipe.stderr) == ("A\n", "")


def test_nobody_is_called_after_a_short_answer_or_without_being_asked_for(gptoss, reply, tmp_path) -> None:
    (tmp_path / "home").mkdir()
    config = tmp_path / "home" / "config.toml"
    for setting, rings in (("", False), ("notify_after = 30", False), ("notify_after = 0", True)):
        config.write_text(setting)
        result = gptoss("chat", "-m", "nano", stdin=b"a", terminal="out", completions=[reply("A")])
        assert ("\x07" in result.stdout) is rings


@pytest.mark.parametrize("value", ["-1", "inf", "soon"])
def test_times_that_are_none(gptoss, value) -> None:
    assert gptoss("ask", "-m", "nano", "--notify-after", value, "a").status == 2


def test_title_names_the_model_and_comes_back(gptoss, reply) -> None:
    options = {"stdin": b"a", "completions": [reply("A")]}
    with_title = gptoss("chat", "-m", "nano", "--title", terminal="out", **options).stdout
    idle, busy = "\x1b]2;gptoss nano\x07", "\x1b]2;gptoss nano: answering\x07"
    assert with_title == f"\x1b[22;2t{idle}{busy}A\n{idle}\n\x1b[23;2t"
    assert gptoss("chat", "-m", "nano", terminal="out", **options).stdout == "A\n\n"
    assert gptoss("chat", "-m", "nano", "--title", **options).stdout == "A\n"


def test_answer_that_is_stopped_calls_nobody(terminal, reply) -> None:
    screen = terminal(
        "--notify-after", "0", completions=[reply("one two three", ""), reply("A", "")], token_delay_s=0.2
    )
    screen.wait_for_prompt()
    screen.type("Count\r")
    screen.wait_for("one")
    screen.type("\x03")
    screen.wait_for("stopped")
    screen.wait_for_prompt()
    time.sleep(0.1)
    assert "\x07" not in screen.raw
    screen.type("Again\r")
    screen.wait_for("A$")
    screen.wait_for_prompt()
    assert screen.raw.count("\x07") == 1
