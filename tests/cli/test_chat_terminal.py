"""`gptoss chat` at a real terminal: the screen as a person sees it."""

import re
import time

import pytest

RULE = "\u2500"


@pytest.mark.parametrize("columns", [40, 100])
def test_a_turn(terminal, reply, columns) -> None:
    screen = terminal(columns=columns, completions=[reply("Hello!\n\nBye.", "One two.")])
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for("Bye")
    lines = screen.wait_for_prompt()
    begin = lines.index("> Hi")
    assert [re.sub(r"\d\.\d s", "N.N s", line) for line in lines[begin:]] == [
        "> Hi",
        f"{RULE * 2} thinking {RULE * 28}"[: columns - 1],
        "One two.",
        f"{RULE * 2} thought for N.N s, 3 tokens {RULE * 9}"[: columns - 1],
        "Hello!",
        "",
        "Bye.",
        "",
        ">",
    ]
    assert screen.is_dim("One")
    assert not screen.is_dim("Hello")
    screen.type("\x04")
    assert screen.ended() == 0


def test_control_sequences_stay_text(terminal, reply) -> None:
    hostile = "\x1b[2J\x1b]0;t\x07\x9b31m\rX\x08"
    screen = terminal("-s", hostile, completions=[reply(hostile, hostile)])
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for("\u241b")
    screen.wait_for_prompt()
    screen.type("/system\r")
    lines = screen.wait_for_prompt()
    shown = "\u241b[2J\u241b]0;t\u2407\ufffd31m\u240dX\u2408"
    assert lines.count(shown) >= 2
    for sequence in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\rX"):
        assert sequence not in screen.raw


def test_ctrl_c_stops_the_answer_and_keeps_it(terminal, reply) -> None:
    words = " ".join(str(number) for number in range(200))
    screen = terminal(completions=[reply(words, ""), reply("Fine.", "")], token_delay_s=0.02)
    screen.wait_for_prompt()
    screen.type("Count\r")
    screen.wait_for("0 1 2")
    screen.type("\x03")
    screen.wait_for("stopped; what was said is kept")
    screen.wait_for_prompt()
    screen.type("/retry\r")
    screen.wait_for("Fine")
    screen.wait_for_prompt()


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_ctrl_c_at_the_prompt_never_ends_the_program(terminal, term) -> None:
    screen = terminal(completions=[], variables={"TERM": term})
    screen.wait_for_prompt()
    screen.type("half a thou\x03")
    screen.wait_for("Ctrl-D or /exit leaves")
    for _ in range(5):
        screen.type("\x03")
    time.sleep(0.5)  # the terminal itself throws away what was typed before it hands on a Ctrl-C
    screen.wait_for_prompt()
    screen.type("/exit\r")
    assert screen.ended() == 0


def test_ctrl_c_before_the_first_token(terminal, reply) -> None:
    screen = terminal(completions=[reply("one two", ""), reply("Fine.", "")], prefill_delay_s=30)
    screen.wait_for_model()
    screen.type("Count\r")
    time.sleep(0.3)
    screen.type("\x03")
    screen.wait_for("stopped; nothing was said yet; /retry asks again")
    screen.wait_for_prompt()
    assert "tokens/s" not in screen.status_bar()


def test_what_is_typed_during_an_answer_waits_for_its_end(terminal, reply) -> None:
    screen = terminal(completions=[reply("one two three four", ""), reply("Fine.", "")], token_delay_s=0.1)
    screen.wait_for_prompt()
    screen.type("Count\r")
    screen.wait_for("one")
    screen.type("next")
    lines = screen.wait_for("> next")
    assert lines[lines.index("> Count") :] == ["> Count", "one two three four", "", "> next"]


def test_many_lines_by_alt_enter_and_by_quotes(terminal, reply) -> None:
    screen = terminal(completions=[reply("A", ""), reply("B", "")])
    screen.wait_for_prompt()
    screen.type("one\x1b\rtwo\r")
    lines = screen.wait_for("A")
    assert lines[lines.index("> one") + 1] == "  two"
    screen.wait_for_prompt()
    screen.type('"""three\rfour"""\r')
    lines = screen.wait_for("B")
    assert lines[lines.index('> """three') + 1] == '  four"""'


def test_a_paste_of_many_lines_is_one_message(terminal, reply) -> None:
    screen = terminal(completions=[reply("A", "")])
    screen.wait_for_prompt()
    screen.type("\x1b[200~one\ntwo\nthree\x1b[201~\r")
    lines = screen.wait_for("A")
    assert lines[lines.index("> one") :][:3] == ["> one", "  two", "  three"]


def test_history_lasts_and_is_private(terminal, reply, tmp_path) -> None:
    screen = terminal(completions=[reply("A", "")])
    screen.wait_for_prompt()
    screen.type("remember me\r")
    screen.wait_for("A")
    screen.wait_for_prompt()
    screen.type("\x04")
    assert screen.ended() == 0
    history = tmp_path / "home" / "state" / "history"
    assert history.stat().st_mode & 0o777 == 0o600
    again = terminal(completions=[reply("B", "")])
    again.wait_for_prompt()
    again.type("\x1b[A\r")
    again.wait_for("B")
    assert "> remember me" in again.lines()


def test_home_that_cannot_be_written_is_no_hindrance(terminal, reply) -> None:
    screen = terminal(completions=[reply("A", "")], variables={"GPTOSS_HOME": "/dev/null/home"})
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for("A")


def test_tab_completes_commands(terminal) -> None:
    screen = terminal(completions=[])
    screen.wait_for_prompt()
    screen.type("/sy\t")
    screen.wait_for("> /system")


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_styles(terminal, reply, variables) -> None:
    screen = terminal(completions=[reply("Hello!", "Greet.")], variables=variables)
    screen.wait_for(">")
    screen.type("Hi\r")
    screen.wait_for("Hello!")
    assert "\x1b[2m" not in screen.raw
    assert f"{RULE * 2} thinking" in screen.raw
    if "TERM" in variables:
        assert "\x1b" not in screen.raw


@pytest.mark.parametrize("columns", [40, 80])
def test_help_stands_in_columns_where_there_is_room(terminal, columns) -> None:
    screen = terminal(columns=columns, rows=70, completions=[])
    screen.wait_for_prompt()
    screen.type("/help\r")
    lines = screen.wait_for("Ctrl-C stops an answer")
    number = next(number for number, line in enumerate(lines) if line.startswith("/why"))
    name = "/why [TURN]                     " if columns == 80 else "/why       "
    assert lines[number].startswith(name + "the reasoning")


def test_help_fits_a_screen(terminal) -> None:
    screen = terminal(completions=[])
    screen.wait_for_prompt()
    screen.type("/help\r")
    lines = screen.wait_for("Ctrl-C stops an answer")
    screen.wait_for_prompt()
    assert "> /help" in lines
    assert screen.history() == screen.lines()
    assert len([line for line in lines if line.startswith(" ")]) == 1, "the rarer commands take two rows"


def test_a_slash_opens_a_menu_of_the_commands(terminal) -> None:
    screen = terminal(completions=[])
    screen.wait_for_prompt()
    screen.type("/")
    screen.wait_for(r" */help +this list")
    screen.type("unk")
    screen.wait_for("> /unk$")
    screen.type("\x15/cl")
    screen.wait_for(r" */clear +start a new conversation")
    screen.type("\r")
    screen.wait_for("there is no command /cl: did you mean /clear")


def test_going_on_shows_the_last_turn(terminal, gptoss, reply) -> None:
    answer = "A **bold** word."
    gptoss("ask", "First?", completions=[reply("One.")])
    gptoss("ask", "-c", "Second,\n\nof lines?", completions=[reply(answer, "hm")])
    screen = terminal("-c", completions=[])
    lines = screen.wait_for_prompt()
    assert lines[2:] == ["> Second,", "", "  of lines?", "A bold word.", "", ">"]
    assert "\x1b[1;35m> \x1b[0m\x1b[1mSecond," in screen.raw
    screen.type("/load " + lines[1].split()[3].rstrip(":") + "\r")
    screen.wait_for("> /load")
    screen.wait_for_prompt()
    screen.type("/show all\r")
    screen.wait_for("> First")
    whole = screen.wait_for_prompt()
    assert whole[whole.index("> First?") :] == ["> First?", "One.", "", *lines[2:]]
    assert whole.count("A bold word.") == 3


def test_own_words_stand_out_from_the_models(terminal, reply) -> None:
    screen = terminal(completions=[reply("Hi", "")])
    screen.wait_for_prompt()
    screen.type("Hello\r")
    screen.wait_for("Hi")
    screen.wait_for_prompt()
    row = next(row for row in screen.screen.buffer.values() if row[2].data == "H" and row[3].data == "e")
    assert (row[0].data, row[0].fg, row[0].bold, row[2].bold) == (">", "magenta", True, True)
