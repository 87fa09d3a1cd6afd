"""What is typed at the input line of `gptoss chat`: search, editors, completion, large pastes; what stands below it."""

import re
import sys
import time

import pexpect
import pytest

RULE = "\u2500"


@pytest.fixture
def editor(tmp_path):
    """An editor that changes "two" into "three"."""
    program = tmp_path / "editor"
    program.write_text('#!/bin/sh\nsed -i s/two/three/ "$1"\n')
    program.chmod(0o755)
    return {"EDITOR": str(program), "VISUAL": ""}


def test_search_through_earlier_runs(terminal, reply) -> None:
    screen = terminal(completions=[reply("A", ""), reply("B", "")])
    for line in ("find me again", "something else"):
        screen.wait_for_prompt()
        screen.type(line + "\r")
        screen.wait_for("A" if line.startswith("find") else "B")
    screen.wait_for_prompt()
    screen.type("\x04")
    assert screen.ended() == 0
    again = terminal(completions=[reply("C", "")])
    again.wait_for_prompt()
    again.type("\x12find")
    again.wait_for(".*find me again")
    again.type("\r")
    again.wait_for("> find me again")
    again.type("\r")
    again.wait_for("C")


def test_line_in_the_editor(terminal, reply, editor) -> None:
    screen = terminal(completions=[reply("A", "")], variables=editor)
    screen.wait_for_prompt()
    screen.type("one two\x18\x05")
    screen.wait_for("> one three")
    screen.type(" four\r")
    screen.wait_for("> one three four")
    screen.wait_for("A")


def test_last_message_in_the_editor(terminal, reply, editor) -> None:
    screen = terminal(completions=[reply("A", ""), reply("B", "")], variables=editor)
    screen.wait_for_prompt()
    screen.type("one two\r")
    screen.wait_for("A")
    screen.wait_for_prompt()
    screen.type("/edit\r")
    lines = screen.wait_for("B")
    assert lines[lines.index("> /edit") :][:3] == ["> /edit", "> one three", "B"]
    screen.wait_for_prompt()
    screen.type("/context\r")
    lines = screen.wait_for("the next prompt")
    assert [line.split()[-1] for line in lines if line.startswith(("user", "final "))] == ["three", "B"]
    screen.wait_for_prompt()
    screen.type("/edit\r")
    screen.wait_for("nothing changed")


@pytest.mark.parametrize(
    ("name", "said"),
    [("/no/such/editor", "cannot call the editor"), ("false", "the editor false ended"), ("'", "EDITOR is")],
)
def test_editor_that_fails(terminal, name, said) -> None:
    screen = terminal(completions=[], variables={"EDITOR": name, "VISUAL": ""})
    screen.wait_for_prompt()
    screen.type("/edit\r")
    screen.wait_for(said)
    screen.wait_for_prompt()
    screen.type("one two\x18\x05")
    screen.wait_for("> one two")
    while screen.raw.count(said) < 2:
        screen.wait_for("> one two")
        screen._read()
    screen.type(" three")
    screen.wait_for("> one two three")


def test_efforts_are_completed(terminal) -> None:
    screen = terminal(completions=[])
    screen.wait_for_prompt()
    screen.type("/effort hi\t")
    screen.wait_for("> /effort high")
    screen.type("\r")
    screen.wait_for("effort high from now on")


def test_large_paste_is_one_message(terminal, reply) -> None:
    lines = [f"line {number} of a long text that somebody pastes" for number in range(2000)]
    screen = terminal(completions=[reply("A", "")], max_context=100_000)
    screen.wait_for_prompt()
    began = time.monotonic()
    screen.type("\x1b[200~" + "\n".join(lines) + "\x1b[201~\r")
    screen.wait_for("A")
    assert time.monotonic() - began < 15
    screen.wait_for_prompt()
    screen.type("/context\r")
    screen.wait_for("user .* line 0 of")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (100, "nano \u00b7 effort low \u00b7 context 85 of 4.1k (2%) \u00b7 "),
        (40, "nano \u00b7 low \u00b7 85 of 4.1k \u00b7 "),
        (20, "nano \u00b7 low \u00b7 85 of"),
    ],
)
def test_status_bar_tells_model_effort_context_and_speed(terminal, reply, columns, expected) -> None:
    screen = terminal("-e", "low", columns=columns, completions=[reply("A " * 10, "")])
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for("A A")
    screen.wait_for_prompt()
    assert screen.status_bar().startswith(expected)


def test_window_that_is_resized_in_the_midst_of_an_answer(terminal, reply) -> None:
    words = [f"word{number}" for number in range(120)]
    screen = terminal(columns=60, rows=40, completions=[reply(" ".join(words), "")], token_delay_s=0.005)
    screen.wait_for_prompt()
    screen.type("Hi\r")
    screen.wait_for(".*word20")
    screen.resize(100, 40)
    screen.wait_for(".*word119")
    lines = screen.wait_for_prompt()
    shown = " ".join(lines[lines.index("> Hi") + 1 : -1]).split()
    assert shown == words
    assert max(map(len, lines)) > 60


def test_key_that_is_a_signal_leaves_what_was_typed() -> None:
    program = (
        "import sys, time\n"
        "from gptoss.cli.line.keyboard import echo, key_calls\n"
        "pressed = []\n"
        "with echo(sys.stdin, on=False), key_calls(sys.stdin, 'n', lambda: pressed.append(1)):\n"
        "    print('ready', flush=True)\n"
        "    end = time.monotonic() + 10\n"
        "    while not pressed and time.monotonic() < end: time.sleep(0.01)\n"
        "print(pressed, repr(sys.stdin.readline()))\n"
    )
    child = pexpect.spawn(sys.executable, ["-c", program], encoding="utf-8", timeout=20)
    child.delaybeforesend = None
    child.expect("ready")
    child.send("typed\x0e")
    child.send("\n")
    child.expect_exact(r"[1] 'typed\n'")
    child.close()


def test_ctrl_n_ends_the_reasoning_and_has_the_model_answer(terminal, reply) -> None:
    thoughts = " ".join(f"thought{number}" for number in range(300))
    screen = terminal(
        completions=[reply("never", thoughts)], after_forced="Now then.<|return|>", token_delay_s=0.02, rows=50
    )
    screen.wait_for_prompt()
    screen.type("Why?\r")
    screen.wait_for(".*Ctrl-N: answer now")
    screen.wait_for(".*thought9")
    screen.type("next\x0e")
    lines = screen.wait_for("> next")
    assert "Now then." in lines
    assert not any("thought299" in line for line in lines)
    assert any(re.search(r"thought for .* tokens", line) for line in lines)


def test_ctrl_z_is_no_character(terminal, reply) -> None:
    """Without a shell above, the system lets nothing be stopped; the chat goes on at once."""
    screen = terminal(completions=[reply("A", "")])
    screen.wait_for_prompt()
    screen.type("one\x1a two\r")
    screen.wait_for("> one two$")
    screen.wait_for("A")


def test_ctrl_t_folds_the_reasoning_and_leaves_what_was_typed(terminal, reply) -> None:
    thoughts = "\n".join(f"thought{number}" for number in range(60))
    screen = terminal(completions=[reply("Now then.", thoughts), reply("B", "")], token_delay_s=0.02, rows=100)
    screen.wait_for_prompt()
    screen.type("Why?\r")
    screen.wait_for("thought9")
    screen.type("ne\x14xt\u4e2d")
    screen.wait_for(f"{RULE * 2} thinking: ")
    lines = screen.wait_for("> next\u4e2d")
    assert any(re.match(f"{RULE * 2} thought for", line) for line in lines)
    assert "thought59" not in lines
    assert "thought5" in lines
    screen.type("\r")
    screen.wait_for("B$")


def test_lines_pasted_during_an_answer_are_one_message(terminal, reply) -> None:
    screen = terminal(completions=[reply("one two three four five", ""), reply("B", "")], token_delay_s=0.2)
    screen.wait_for_prompt()
    screen.type("Count\r")
    screen.wait_for("one")
    screen.type("first\rsecond\rthird")
    lines = screen.wait_for("  third")
    assert lines[-3:] == ["> first", "  second", "  third"]
    screen.type("\r")
    screen.wait_for("B$")


def test_lines_that_the_terminal_does_not_mark_as_a_paste_are_one_message(terminal, reply, kept) -> None:
    screen = terminal(completions=[reply("A", "")])
    screen.wait_for_prompt()
    screen.type("first\r\tsecond\r\rthird\r")
    screen.wait_for("  third")
    screen.type("!\r")
    screen.wait_for("A")
    screen.wait_for_prompt()
    assert kept() == ["first\n\tsecond\n\nthird!", "A"]


def test_a_long_paste_without_marks_is_one_message(terminal, reply, kept) -> None:
    lines = [f"line {number} of a text that somebody pastes" for number in range(400)]
    screen = terminal(completions=[reply("A", "")], max_context=100_000)
    screen.wait_for_prompt()
    for begin in range(0, len(lines), 50):
        screen.type("\r".join(lines[begin : begin + 50]) + "\r")
    screen.wait_for("  line 399")
    screen.type("\r")
    screen.wait_for("A")
    screen.wait_for_prompt()
    assert kept() == ["\n".join(lines), "A"]


def test_a_terminal_that_does_not_say_where_its_cursor_is(terminal, reply) -> None:
    screen = terminal(completions=[reply("A", ""), reply("B", "")])
    screen.screen.write_process_input = lambda data: None
    screen.wait_for("this terminal does not say where its cursor is")
    assert screen.status_bar().startswith("nano ")
    screen.type("Hi\r")
    screen.wait_for("A")
    screen.wait_for_prompt()
    assert screen.status_bar().startswith("nano ")
    assert "WARNING" not in screen.raw


def test_message_typed_during_an_answer_is_sent_after_it(terminal, reply) -> None:
    screen = terminal(completions=[reply("one two three four five", ""), reply("B", "")], token_delay_s=0.2)
    screen.wait_for_prompt()
    screen.type("Count\r")
    screen.wait_for("one")
    screen.type("again\x1b[D\x1b[D\x7fx\r")
    screen.wait_for("> agxin")
    screen.wait_for("B$")
