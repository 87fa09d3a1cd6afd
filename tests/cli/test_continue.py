"""`/continue`: an answer that was cut goes on where it was, as one message."""

import time

import pytest

from gptoss.cli.constraints.turn import ConstraintFactory
from gptoss.cli.startup.answer_format import choice_format
from gptoss.harmony import Conversation, Message, SystemContent
from gptoss.model.constraint import LogitMask

REST = " three four<|return|>"


@pytest.fixture
def chat(gptoss):
    def run(*lines: str, **options):
        return gptoss("chat", "-m", "nano", *options.pop("arguments", ()), stdin="\n".join(lines).encode(), **options)

    return run


def test_cut_answer_goes_on_and_becomes_one_message(chat, reply, kept) -> None:
    completions = [reply("one two three four"), REST, reply("B")]
    result = chat("a", "/continue", "/continue", "b", arguments=["-n", "15"], completions=completions)
    assert result.stdout == "one two\n three four\nB\n"
    assert result.stderr.splitlines() == [
        "cut at --max-tokens; /continue goes on",
        "the last answer came to its end; there is nothing to go on with",
    ]
    again, following = result.prompts[1:]
    reasoning = "<|channel|>analysis<|message|>Let me see.<|end|>"
    assert again == result.prompts[0] + f"{reasoning}<|start|>assistant<|channel|>final<|message|>one two"
    assert "<|message|>one two three four<|end|><|start|>user<|message|>b" in following
    assert kept() == ["a", "Let me see.", "one two three four", "b", "Let me see.", "B"]


def test_cut_reasoning_goes_on(chat, reply) -> None:
    rest = " four<|end|><|start|>assistant<|channel|>final<|message|>A<|return|>"
    arguments = ["-n", "6", "--reasoning", "show"]
    result = chat("a", "/continue", arguments=arguments, completions=[reply("A", "one two three four"), rest])
    assert result.prompts[1] == result.prompts[0] + "<|channel|>analysis<|message|>one two three"
    assert "one two three" in result.stderr
    assert " four" in result.stderr


def test_answer_goes_on_in_a_later_run_and_with_its_effort(gptoss, reply) -> None:
    gptoss("ask", "-m", "nano", "-e", "none", "-n", "2", "a", completions=["one two three"])
    closed = "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>"
    result = gptoss("chat", "-c", stdin=b"/continue\n", completions=[" three<|return|>"])
    assert result.stdout == " three\n"
    assert result.prompts[0].endswith(f"a<|end|><|start|>assistant{closed}one two")


def test_cut_twice(chat, reply) -> None:
    completions = [reply("one", ""), " two three four five", " six<|return|>", reply("B", "")]
    result = chat("a", "/continue", "/continue", "b", arguments=["-n", "4"], completions=completions)
    assert result.prompts[2].endswith("<|message|>one two three four five")
    assert "<|message|>one two three four five six<|end|>" in result.prompts[3]


def test_nothing_to_go_on_with(chat) -> None:
    result = chat("/continue", completions=[])
    assert result.stderr == "nothing has been said yet\n"


def test_failure_leaves_what_was_said(chat, scripted, encoding, reply, kept) -> None:
    from gptoss.model.errors import ModelError

    completions = [encoding.encode_with_special(reply("one two three four")), [ModelError("it broke")]]
    result = chat("a", "/continue", arguments=["-n", "15"], engine=scripted.ScriptedEngine(completions))
    assert result.stderr.splitlines()[-1] == "it broke"
    assert kept() == ["a", "Let me see.", "one two"]


def test_the_rest_follows_the_grammar_of_the_answer(encoding) -> None:
    conversation = Conversation.of(Message.system(SystemContent()), Message.user("a"))
    header = encoding.encode_with_special("<|channel|>final<|message|>")
    turn = ConstraintFactory(encoding).turn(
        conversation, header, encoding.encode("alp"), answer=choice_format("alpha,alpine,beta").grammar
    )
    hold = turn.next()
    assert isinstance(hold, LogitMask)
    assert {text for text in ("h", "i", "b", "ha", "ine") if hold.allows(encoding.encode(text)[0])} == {
        "h",
        "i",
        "ha",
        "ine",
    }
    assert turn.describe() is None


def test_screen_has_the_whole_answer_once(terminal, reply) -> None:
    code = "Look:\n\n```python\nx = 1\ny = 2\nz = 3\n```\n\nDone."
    screen = terminal(completions=[reply(code, ""), "\nz = 3\n```\n\nDone.<|return|>"], token_delay_s=0.05)
    screen.wait_for_prompt()
    screen.type("Code\r")
    screen.wait_for("y = 2")
    time.sleep(0.05)
    screen.type("\x03")
    screen.wait_for("stopped; what was said is kept, /continue goes on")
    screen.wait_for_prompt()
    screen.type("/continue\r")
    screen.wait_for("Done")
    lines = screen.wait_for_prompt()
    shown = lines[lines.index("> /continue") + 1 :]
    assert shown[-4:] == ["", "Done.", "", ">"]
    assert "z = 3" in shown
    assert "x = 1" not in shown
    assert "```" not in "".join(shown)
