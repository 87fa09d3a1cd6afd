"""The slash commands that ask again, take back, account for the conversation and take it elsewhere."""

import base64
import json

import pytest

from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.slash.table import TABLE
from gptoss.cli.startup.loaded import LoadedModel


@pytest.fixture
def chat(gptoss):
    def run(*lines: str, **options):
        return gptoss("chat", "-m", "nano", *options.pop("arguments", ()), stdin="\n".join(lines).encode(), **options)

    return run


def test_every_command_has_its_place_in_the_help(chat) -> None:
    shown = chat("/help all").stderr
    assert all(f"{command.name} {command.argument}".strip() in shown for command in TABLE.values())


@pytest.mark.parametrize("line", ["/clear the cache", "/exit now", "/stats all", "/context 2", "/EDIT it"])
def test_words_behind_a_command_that_takes_none_are_refused(chat, reply, line) -> None:
    result = chat("a", line, "b", completions=[reply("A"), reply("B")])
    name, words = line.split(" ", 1)
    assert result.stderr == f"{name} takes nothing, and {words!r} follows it (a message may begin with a space)\n"
    assert "<|message|>a<|end|>" in result.prompts[1]


def test_undo_of_several_messages(chat, reply) -> None:
    lines = ["a", "b", "c", "/undo 2", "/undo 2", "/undo x", "d"]
    result = chat(*lines, completions=[reply(letter) for letter in "ABCD"])
    assert result.stderr.splitlines() == [
        "took back: c",
        "took back: b",
        "/undo takes a number of messages, 1 to 1",
        "/undo takes a number of messages, 1 to 1",
    ]
    assert "<|message|>A<|end|><|start|>user<|message|>d<|end|>" in result.prompts[3]


def test_retry_takes_one_seed_and_one_effort(chat, reply) -> None:
    result = chat("a", "/retry 1 2", "/retry low high", completions=[reply("A")])
    assert len(result.prompts) == 1
    assert result.stderr == "/retry takes one effort and one seed at most\n" * 2


@pytest.mark.parametrize("line", ["/", "/?", "/Help", "/HELP"])
def test_help_is_asked_for_in_many_ways(chat, line) -> None:
    assert chat(line).stderr.startswith("/help [NAME|all] ")


def test_help_of_one_command(chat) -> None:
    said = chat("/help UNDO", "/help /clear", "/help nosuch").stderr.splitlines()
    assert said[0].startswith("/undo [N]: take the last message")
    assert said[1].startswith("/clear: start a new conversation")
    assert said[2].startswith("there is no command /nosuch")


@pytest.mark.parametrize("line", ["/EXIT", "/bye", "/quit", "/Quit"])
def test_names_of_leaving(chat, reply, line) -> None:
    assert chat("a", line, "b", completions=[reply("A")]).stdout == "A\n"


def test_new_begins_anew(chat, reply) -> None:
    result = chat("a", "/new", "b", completions=[reply("A"), reply("B")])
    assert result.stderr == "a new conversation\n"
    assert "<|message|>a<|end|>" not in result.prompts[1]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("/set system Be brief.", "/system TEXT"),
        ("/set parameter temperature 1", "--temperature"),
        ("/SET think", "/effort low"),
        ("/set", "gptoss config set"),
        ("/set whatever", "/help lists"),
        ("/regen", "/retry"),
    ],
)
def test_commands_of_other_programs_are_pointed_to_ours(chat, line, hint) -> None:
    result = chat(line)
    assert result.stderr.startswith(f"there is no command {line.split()[0]}: ")
    assert hint in result.stderr
    assert result.prompts == []


def test_show_has_the_last_turns(chat, reply) -> None:
    lines = ["/show", "a", "b", "/show", "/show 2", "/show all", "/show 3", "/show x"]
    result = chat(*lines, completions=[reply("A"), reply("B")])
    assert result.stderr.splitlines() == [
        "nothing has been said yet",
        *["> b", "B"],
        *["> a", "A", "> b", "B"] * 2,
        *["/show takes a number of turns, 1 to 2, or all"] * 2,
    ]


def test_load_of_a_conversation_that_there_is_not_names_the_command_that_lists_them(chat) -> None:
    assert chat("/load nosuch").stderr == "there is no conversation 'nosuch': /sessions lists them\n"


def test_retry_with_a_seed_and_an_effort(chat, reply) -> None:
    lines = ["a", "/retry 41", "/retry high 42"]
    result = chat(*lines, completions=[reply("A"), reply("B"), reply("C")])
    assert [params.seed for params in result.engine.params] == [None, 41, 42]
    assert "Reasoning: high" in result.prompts[2]


def test_undo_takes_the_last_turn_back(chat, reply) -> None:
    lines = ["/undo", "first", "second", "/undo", "third"]
    result = chat(*lines, completions=[reply("A"), reply("B"), reply("C")])
    assert result.stderr.splitlines() == ["nothing has been said yet", "took back: second"]
    assert "second" not in result.prompts[2]
    assert "<|message|>A<|end|><|start|>user<|message|>third" in result.prompts[2]


def test_file_goes_with_the_next_message_alone(chat, reply, tmp_path) -> None:
    path = tmp_path / "my notes.txt"
    path.write_text("one two\n")
    lines = ["/file", f"/file {path}", "/file", "What is this?", "/file", "And now?"]
    result = chat(*lines, completions=[reply("A"), reply("B")])
    assert "<|message|>What is this?\n\nmy notes.txt:\n```\none two\n```<|end|>" in result.prompts[0]
    assert "<|start|>user<|message|>And now?<|end|>" in result.prompts[1]
    assert result.stderr.splitlines() == [
        "no file goes with the next message; /file PATH adds one",
        "my notes.txt (2 tokens) goes with the next message",
        str(path),
        "no file goes with the next message; /file PATH adds one",
    ]


def test_file_that_cannot_be_sent(chat, reply, tmp_path) -> None:
    (tmp_path / "binary").write_bytes(b"a\0b")
    lines = [f"/file {tmp_path / 'binary'}", f"/file {tmp_path / 'none'}", "a"]
    result = chat(*lines, completions=[reply("A")])
    binary, missing = result.stderr.splitlines()
    assert "is binary" in binary
    assert missing.endswith("No such file or directory")
    assert result.prompts[0].endswith("<|message|>a<|end|><|start|>assistant")


def test_message_that_did_not_fit_keeps_its_files(chat, scripted, encoding, reply, tmp_path) -> None:
    path = tmp_path / "notes"
    path.write_text("x")
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("A"))], max_context=90)
    result = chat(f"/file {path}", "y " * 100, "short", engine=engine)
    assert "notes:\n```\nx\n```" in result.prompts[0]


def test_why_shows_the_reasoning_of_any_turn(chat, reply) -> None:
    lines = ["/why", "a", "b", "/why", "/why 1", "/why -2", "/why 3", "/why x"]
    result = chat(*lines, completions=[reply("A", "first"), reply("B", "second")])
    assert result.stderr.splitlines() == [
        "nothing has been answered yet",
        "second",
        "first",
        "first",
        "/why takes the number of a turn, 1 to 2",
        "/why takes the number of a turn, 1 to 2",
    ]


def test_why_of_a_turn_without_reasoning(chat, reply) -> None:
    assert chat("a", "/why", completions=[reply("A", "")]).stderr == "turn 1 has no reasoning\n"


def test_context_counts_every_message_and_channel(chat, reply, encoding) -> None:
    lines = ["a", "/context", "b"]
    result = chat(*lines, arguments=["-s", "Be brief."], completions=[reply("A", "hm"), reply("B")])
    rows = result.stderr.splitlines()
    assert [row.split()[0] for row in rows[:5]] == ["system", "developer", "user", "analysis", "final"]
    assert "(not sent again) hm" in rows[3]
    sent = sum(int(row.split()[1]) for row in rows[:5] if "not sent" not in row)
    ahead = len(encoding.encode_with_special("<|start|>assistant"))
    assert rows[6].startswith(f"the next prompt: {sent + ahead} of 4,096 tokens")
    cached = len(result.engine.prompts[0]) + len(encoding.encode_with_special(reply("A", "hm")))
    memory = f"memory: 1 KV cache of {show_bytes(1000 * cached)}; idle ones take 1 GB at most (--context-gb)"
    assert rows[7] == memory
    message = len(encoding.encode_with_special("<|start|>user<|message|>b<|end|>"))
    assert len(result.engine.prompts[1]) == sent + ahead + message


def test_copy_asks_the_terminal(chat, reply) -> None:
    answer = "See:\n```python\nx = 1\n```\n"
    options = {"terminal": "out err", "variables": {"PATH": ""}}
    shown = chat("/copy", "a", "/copy", "/copy code", "/copy x", completions=[reply(answer)], **options)
    for text in (answer, "x = 1\n"):
        assert f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07" in shown.stdout
    for said in ("there is no answer to copy", "by the terminal", "/copy takes nothing, code or command"):
        assert said in shown.stderr


def test_copy_prefers_a_program_of_the_desktop(chat, reply, tmp_path) -> None:
    program = tmp_path / "wl-copy"
    program.write_text(f"#!/bin/sh\n/bin/cat > {tmp_path}/copied\n")
    program.chmod(0o755)
    variables = {"PATH": str(tmp_path), "WAYLAND_DISPLAY": "w"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        result = chat("a", "/copy", completions=[reply("A")], terminal="out err", variables=variables)
    assert (tmp_path / "copied").read_text() == "A"
    assert "\x1b]52" not in result.stdout


def test_copy_where_there_is_no_clipboard(chat, reply) -> None:
    result = chat("a", "/copy", completions=[reply("A")], variables={"PATH": ""})
    assert result.stderr == "no clipboard can be reached from here: /export writes a file\n"


def test_copy_of_too_much() -> None:
    from gptoss.cli.base.errors import InputError
    from gptoss.cli.base.output import Output
    from gptoss.cli.line.clipboard import copy

    output = Output(None, "screen", {"TERM": "xterm"}, essential=False)
    output.is_terminal = True
    with pytest.raises(InputError, match="too long for the terminal's clipboard"):
        copy("x" * 60_000, output, {"PATH": ""})


def test_export_as_markdown(chat, reply, tmp_path) -> None:
    path = tmp_path / "talk.md"
    lines = ["/export", "a", f"/export {path}", f"/export {path}", "/export x.pdf"]
    result = chat(*lines, arguments=["-s", "Be brief."], completions=[reply("A", "hm\n\nso")])
    assert path.read_text() == (
        "# A conversation with nano\n\n## Instructions\n\nBe brief.\n\n## You\n\na\n\n## nano\n\n> hm\n>\n> so\n\nA\n"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    nothing, written, there, form = result.stderr.splitlines()
    assert (nothing, written) == ("nothing has been said yet", f"written to {path}")
    assert there.endswith("is there already: name another file")
    assert form.endswith("name a file that ends in .md or .json")


def test_exported_call_and_result_stand_in_fences() -> None:
    from gptoss.cli.conversations.export import as_markdown
    from gptoss.harmony import Conversation, Message

    talk = Conversation.of(
        Message.user("a"),
        Message.assistant("```", channel="commentary", recipient="functions.f"),
        Message.tool("functions.f", "1"),
    )
    text = as_markdown(talk, "m", None)
    assert "*call of `functions.f`*\n\n````\n```\n````" in text
    assert "*result of `functions.f`*\n\n```\n1\n```" in text


def test_exported_json_renders_to_the_same_prompt(chat, gptoss, reply, tmp_path) -> None:
    path = tmp_path / "talk.json"
    result = chat("a", f"/export {path}", "b", completions=[reply("A"), reply("B")])
    conversation = json.loads(path.read_text())
    conversation["messages"].append({"role": "user", "content": [{"type": "text", "text": "b"}]})
    rendered = gptoss("harmony", "render", stdin=json.dumps(conversation).encode())
    assert json.loads(rendered.stdout) == result.engine.prompts[1]


def test_export_without_a_name_never_writes_over(chat, reply, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    chat("a", "/export", "/export", completions=[reply("A")])
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["gptoss-2026-03-14-2.md", "gptoss-2026-03-14.md"]


def test_tools_without_any(chat) -> None:
    assert chat("/tools").stderr == "no tools are offered to the model\n"


def test_edit_needs_a_terminal(chat) -> None:
    assert chat("/edit").stderr == "/edit needs a terminal for the editor\n"


class Models:
    """A loader with two models, one of which cannot be used."""

    def __init__(self, scripted, encoding, reply) -> None:
        self._scripted = scripted
        self._encoding = encoding
        self._reply = reply
        self.loaded: list[str] = []

    def __call__(self, request):
        from gptoss.model.errors import CheckpointError, ModelNotFoundError

        if request.model == "missing":
            raise ModelNotFoundError("it is not there")
        if request.before_weights is not None:
            request.before_weights()
        if request.model == "broken":
            raise CheckpointError("it is broken")
        self.loaded.append(request.model)
        texts = [self._reply(f"{request.model} says {n}") for n in range(3)]
        engine = self._scripted.ScriptedEngine([self._encoding.encode_with_special(text) for text in texts])
        return LoadedModel(request.model, engine, self._encoding, can_skip_reasoning=request.model != "puzzle")


def test_another_model_goes_on_with_the_conversation(chat, scripted, encoding, reply) -> None:
    models = Models(scripted, encoding, reply)
    lines = ["/model", "a", "/model other", "b", "/model missing", "c", "/model broken", "d"]
    result = chat(*lines, load=models)
    assert result.stdout == "nano says 0\nother says 0\nother says 1\nother says 0\n"
    assert models.loaded == ["nano", "other", "other"]
    assert result.stderr.splitlines() == [
        "* nano",
        "other from now on; it reads the whole conversation before its first answer",
        "it is not there",
        "it is broken",
    ]


def test_models_of_this_machine_are_listed(chat, tmp_path, scripted, encoding, reply) -> None:
    assert chat("/model").stderr == "* nano\n"
    result = chat("/model other", "/model", "/model other", load=Models(scripted, encoding, reply))
    assert result.stderr.splitlines()[1:] == ["* other", "  nano", "other it is already"]


def test_model_that_needs_its_reasoning_refuses_effort_none(chat, gptoss, scripted, encoding, reply) -> None:
    models = Models(scripted, encoding, reply)
    refusal = "is known to fail without its reasoning: choose the effort low, medium or high"
    result = gptoss("ask", "-m", "puzzle", "-e", "none", "a", load=models)
    assert (result.status, result.stderr) == (2, f"gptoss: puzzle {refusal}\n")
    result = chat("/model puzzle", "/effort none", "/effort", "a", load=models)
    assert result.stderr.splitlines()[1:] == [f"puzzle {refusal}", "effort medium"]
    result = chat("/effort none", "/model puzzle", "/model", load=models)
    assert result.stderr.splitlines()[1:] == [f"puzzle {refusal}", "* nano"]


def test_the_rule_comes_from_the_models_config() -> None:
    from dataclasses import replace

    from gptoss.model.config import LayerConfig, ModelConfig, RopeConfig

    config = ModelConfig(
        hidden_size=8,
        intermediate_size=8,
        vocab_size=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        rope=RopeConfig(10_000.0, 1.0, 128),
        max_context_length=128,
        layers=(LayerConfig(num_experts=2, experts_per_token=1, sliding_window=None),),
    )
    assert config.can_skip_reasoning
    assert not replace(config, architecture="gpt_oss_puzzle").can_skip_reasoning
