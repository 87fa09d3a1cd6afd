"""The output for screen readers: nothing is written over, and words say who speaks."""

import re

import pytest


@pytest.fixture
def lines_of(terminal, reply):
    """What a chat of two messages writes, as lines."""

    def run(*arguments, variables=None):
        options = {"completions": [reply("Hello **you**.", "One two."), reply("B", "Hm.")], "variables": variables}
        screen = terminal(*arguments, token_delay_s=0.01, **options)
        screen.wait_for("You:")
        screen.type("Hi\n")
        while screen.raw.count("You: ") < 2:
            screen._read()
        screen.type("/show\n")
        while screen.raw.count("You: ") < 4:
            screen._read()
        screen.type("/exit\n")
        assert screen.ended() == 0
        return screen.raw.replace("\r\n", "\n")

    return run


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(("--accessible",), None), ((), {"GPTOSS_ACCESSIBLE": "1"}), ((), {"GPTOSS_ACCESSIBLE": "On"})],
)
def test_every_row_is_written_once(lines_of, arguments, variables) -> None:
    written = lines_of(*arguments, variables=variables)
    assert "\x1b" not in written
    assert "\r" not in written
    assert "\u2500" not in written
    before, _, rest = written.partition("You: ")
    assert before == "loading nano\ngptoss 0.2.0, nano, effort medium; /help lists the commands\n"
    turn, _, shown = rest.partition("/show\n")
    lines = turn.split("\n")
    assert lines[:3] == ["Hi", "Thinking:", "One two."]
    assert lines[3].startswith("Thought for 0.")
    assert lines[4:] == ["Answer:", "Hello **you**.", "", "You: "]
    assert shown.startswith("You: Hi\nAnswer: Hello **you**.\nYou: ")


def test_flag_goes_before_the_variable(gptoss, reply) -> None:
    options = {"terminal": "err", "completions": [reply("A", "hm")], "variables": {"GPTOSS_ACCESSIBLE": "1"}}
    assert "Answer:\n" in gptoss("ask", "-m", "nano", "a", **options).stderr
    assert "Answer:\n" not in gptoss("ask", "-m", "nano", "--no-accessible", "a", **options).stderr


def test_settings_file_and_a_pipe(gptoss, reply, tmp_path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("accessible = true\n")
    assert gptoss("ask", "-m", "nano", "a", completions=[reply("A")]).stderr == ""
    said = gptoss("ask", "-m", "nano", "--reasoning", "fold", "a", terminal="err", completions=[reply("A", "hm")])
    assert said.stdout == "A\n"
    lines = said.stderr.splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("loading nano", "thinking", "Answer:")
    assert lines[2].startswith("thought for")


def test_what_is_neither_on_nor_off(gptoss) -> None:
    result = gptoss("ask", "-m", "nano", "a", variables={"GPTOSS_ACCESSIBLE": "maybe"})
    assert result.status == 2
    assert "GPTOSS_ACCESSIBLE" in result.stderr


def test_silence_is_said_in_one_line_for_what_takes_long(tmux, script, reply) -> None:
    options = {"completions": [reply("Done.", "First.")], "prefill_delay_s": 1.5}
    pane = tmux(script("ask", "-m", "nano", "Hi", **options), GPTOSS_ACCESSIBLE="1")
    lines = pane.wait_for("Done")
    assert [re.sub(r"\d+", "N", line) for line in lines] == [
        *("loading nano", "reading N tokens", "Thinking:", "First.", "Thought for N.N s, N tokens.", "Answer:", "Done.")
    ]
