"""`gptoss chat` with its input in a pipe: turns, commands, what is kept between them."""

import pytest


@pytest.fixture
def chat(gptoss):
    def run(*lines: str, **options):
        return gptoss("chat", "-m", "nano", *options.pop("arguments", ()), stdin="\n".join(lines).encode(), **options)

    return run


def test_each_line_is_a_turn(chat, reply) -> None:
    result = chat("2 + 2?", "", "And 1 more?\r", completions=[reply("4"), reply("5")])
    assert (result.status, result.stdout, result.stderr) == (0, "4\n5\n", "")
    assert result.prompts[1].endswith(
        "<|start|>user<|message|>2 + 2?<|end|><|start|>assistant<|channel|>final<|message|>4<|end|>"
        "<|start|>user<|message|>And 1 more?<|end|><|start|>assistant"
    )


def test_block_is_one_message(chat, reply) -> None:
    result = chat('"""', "one", "", '/help"""', '"""two"""', '"""open', "end", completions=[reply("a")] * 3)
    assert [prompt.rsplit("<|message|>", 1)[1] for prompt in result.prompts] == [
        "one\n\n/help<|end|><|start|>assistant",
        "two<|end|><|start|>assistant",
        "open\nend<|end|><|start|>assistant",
    ]


def test_answers_have_their_own_reasoning_on_demand(chat, reply) -> None:
    result = chat("a", "b", arguments=["--reasoning", "show"], completions=[reply("A", "x"), reply("B", "y")])
    assert (result.stdout, result.stderr) == ("A\nB\n", "x\ny\n")


def test_stats_of_every_turn(chat, reply) -> None:
    result = chat("a", "b", arguments=["--stats"], completions=[reply("A"), reply("B")])
    first, second = result.stderr.splitlines()
    cached = len(result.engine.prompts[0]) + 1
    assert first.startswith(f"prompt {len(result.engine.prompts[0])} tokens, 0 cached")
    assert second.startswith(f"prompt {len(result.engine.prompts[1])} tokens, {cached} cached")


# Commands


def test_help_lists_every_command(chat) -> None:
    from gptoss.cli.slash.table import TABLE

    result = chat("/help all")
    listed = {line.split()[0] for line in result.stderr.splitlines() if line.startswith("/")}
    assert listed - {"/help"} == set(TABLE) - {"/help"}
    assert result.stdout == ""


def test_effort_changes_the_system_message_alone(chat, reply) -> None:
    result = chat("a", "/effort", "/effort high", "/effort", "b", completions=[reply("A"), reply("B")])
    again = len(result.engine.prompts[1]) - result.engine.prompts[1].index(result.encoding.encode(" high")[0])
    again -= len(result.encoding.encode_with_special("<|start|>user<|message|>b<|end|>"))
    assert result.stderr.splitlines() == [
        "effort medium",
        f"effort high from now on; {again} tokens will be read again before the next answer",
        "effort high",
    ]
    first, second = result.prompts
    assert "Reasoning: medium" in first
    assert second.startswith(first.replace("Reasoning: medium", "Reasoning: high").removesuffix("<|start|>assistant"))


def test_effort_none_and_back(chat, reply) -> None:
    result = chat("/effort none", "a", "/effort", "/effort low", "b", completions=["A<|return|>", reply("B")])
    assert result.stdout == "A\nB\n"
    assert result.prompts[0].endswith("<|channel|>final<|message|>")
    assert result.prompts[1].endswith("<|start|>assistant")
    assert "effort none\n" in result.stderr


def test_system_changes_the_developer_message(chat, reply) -> None:
    lines = ["/system", "/system Be brief.", "a", "/system", "/system off", "b", "/system"]
    result = chat(*lines, completions=[reply("A"), reply("B")])
    assert "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|><|start|>user" in result.prompts[0]
    assert "developer" not in result.prompts[1]
    assert "<|message|>A<|end|>" in result.prompts[1]
    assert result.stderr.splitlines() == [
        "no instructions",
        "instructions changed",
        "Be brief.",
        "no instructions from now on; 13 tokens will be read again before the next answer",
        "no instructions",
    ]


def test_reasoning_is_shown_and_hidden(chat, reply) -> None:
    lines = ["/reasoning show", "a", "/reasoning", "b", "/reasoning x"]
    result = chat(*lines, completions=[reply("A", "x"), reply("B", "y")])
    assert result.stderr.splitlines() == [
        "reasoning is shown from now on",
        "x",
        "reasoning is hidden from now on",
        "/reasoning takes show, fold or hide",
    ]


def test_retry_answers_the_last_message_anew(chat, reply) -> None:
    lines = ["/retry", "a", "/retry", "/retry high", "/retry huge", "b"]
    result = chat(*lines, arguments=["--seed", "5"], completions=[reply(letter) for letter in "ABCD"])
    assert result.stdout == "A\nB\nC\nD\n"
    assert result.prompts[0] == result.prompts[1]
    assert result.prompts[2] == result.prompts[0].replace("medium", "high")
    assert "<|message|>C<|end|><|start|>user<|message|>b" in result.prompts[3]
    assert "<|message|>B<|end|>" not in result.prompts[3]
    assert [params.seed for params in result.engine.params] == [5, 6, 7, 5]
    assert "Reasoning: medium" in result.prompts[3]
    assert result.stderr.splitlines() == [
        "there is nothing to answer again yet",
        "there is no effort 'huge': choose none, low, medium, high",
    ]


def test_stats_and_clear_and_exit(chat, reply) -> None:
    lines = ["/stats", "a", "/stats", "/clear", "/stats", "b", "/exit", "c"]
    result = chat(*lines, completions=[reply("A"), reply("B")])
    assert (result.status, result.stdout) == (0, "A\nB\n")
    nothing, figures, cleared, nothing_again = result.stderr.splitlines()
    assert nothing == nothing_again == "nothing has been answered yet"
    assert figures.startswith("prompt ")
    assert cleared == "a new conversation"
    assert result.prompts[1] == result.prompts[0].replace("<|message|>a<|end|>", "<|message|>b<|end|>")


@pytest.mark.parametrize("line", [" /help", "/etc/passwd", "/1", "//", "/?x", " /"])
def test_what_is_no_command_is_a_message(chat, reply, line) -> None:
    result = chat(line, completions=[reply("A")])
    assert f"<|message|>{line}<|end|>" in result.prompts[0]


def test_unknown_command_is_no_message(chat) -> None:
    result = chat("/efort high", "/zzz")
    assert result.stderr.splitlines() == [
        "there is no command /efort: did you mean /effort? (a message may begin with a space)",
        "there is no command /zzz: /help lists them (a message may begin with a space)",
    ]


# What goes wrong


def test_message_that_does_not_fit_is_taken_back_and_the_chat_goes_on(chat, scripted, encoding, reply) -> None:
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("A"))], max_context=90)
    result = chat("x " * 100, "a", engine=engine)
    assert (result.status, result.stdout) == (1, "A\n")
    assert "tokens do not fit a context of 90: " in result.stderr
    assert "x x" not in result.prompts[0]


def test_cut_answer_is_said_so(chat, reply) -> None:
    result = chat("a", arguments=["-n", "15"], completions=[reply("one two three four")])
    assert (result.status, result.stdout) == (4, "one two\n")
    assert result.stderr == "cut at --max-tokens; /continue goes on\n"


def test_turn_without_an_answer_is_said_so(chat) -> None:
    result = chat("a", completions=["<|channel|>analysis<|message|>Hm.<|end|><|return|>"])
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == "the model ended without an answer; /retry asks again\n"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["whole"], 0),
        (["cut", "whole"], 4),
        (["cut", "none", "whole"], 1),
        (["none", "cut", "whole"], 1),
        (["whole", "cut", "/exit"], 4),
        (["/file missing.txt", "whole"], 1),
        (["/zzz"], 1),
    ],
)
def test_status_is_that_of_the_worst_line(chat, reply, lines, status) -> None:
    completions = {
        "whole": reply("A", ""),
        "cut": reply("one two three four five six seven eight nine ten eleven twelve", ""),
        "none": "<|channel|>analysis<|message|>Hm.<|end|><|return|>",
    }
    messages = [completions[line] for line in lines if not line.startswith("/")]
    assert chat(*lines, arguments=["-n", "10"], completions=messages).status == status


def test_model_that_is_missing(chat) -> None:
    from gptoss.model.errors import ModelNotFoundError

    def load(request):
        raise ModelNotFoundError("it is not there")

    result = chat("a", load=load)
    assert (result.status, result.stdout, result.stderr) == (3, "", "gptoss: it is not there\n")


def test_input_that_is_no_text(gptoss, reply) -> None:
    result = gptoss("chat", stdin=b"a\n\xff\n", completions=[reply("A")])
    assert (result.status, result.stdout) == (1, "A\n")
    assert result.stderr == "gptoss: standard input is not UTF-8 text (0xff at byte 0 of a line)\n"


def test_failure_in_mid_answer_begins_a_line_of_its_own(chat, scripted, encoding, reply) -> None:
    from gptoss.model.errors import ModelError

    completion = [*encoding.encode_with_special(reply("one two", "hm"))[:-1], ModelError("the logits are not numbers")]
    engine = scripted.ScriptedEngine([completion, encoding.encode_with_special(reply("three", "hm"))])
    result = chat("a", "b", engine=engine, arguments=["--reasoning", "show"])
    assert result.stdout == "one two\nthree\n"
    assert result.stderr == "hm\nthe logits are not numbers\nhm\n"
    assert "<|channel|>final<|message|>one two<|end|><|start|>user<|message|>b" in result.prompts[1]
