"""The prompts of turns with tools are those of the official library."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gptoss import harmony
from gptoss.harmony import Conversation, HeaderOrder, Role, conversation_to_dict, loads_conversation, render
from gptoss.harmony.messages import Message

pytest.importorskip("openai_harmony")

THOUGHT = "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant"
PREAMBLE = "<|channel|>commentary<|message|>I look at the files.<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>Done.<|return|>"
# Recipient first, as the official library renders calls.
COMPLETIONS = (
    f"{THOUGHT}{PREAMBLE} to=functions.list_dir<|channel|>commentary <|constrain|>json<|message|>{{}}<|call|>",
    f"{THOUGHT} to=python<|channel|>analysis code<|message|>print(6 * 7)<|call|>",
    " to=functions.apply_patch<|channel|>commentary code<|message|>*** Begin Patch\n*** Add File: b\n+b\n"
    "*** End Patch<|call|>",
    ' to=functions.greet<|channel|>commentary json<|message|>{"name": "An\\u00e9"}<|call|>',
    " to=functions.nothing<|channel|>analysis<|message|>{}<|call|>",
    THOUGHT + ANSWER,
)
FUNCTIONS = 'def greet(name: str, times: int = 2) -> str:\n    """Greet somebody."""\n    return "Hello " + name\n'


@pytest.fixture(scope="module")
def official():
    # Without this the library would download the vocabulary that the package ships.
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(Path(harmony.__file__).with_name("data"))
    import openai_harmony

    inner = openai_harmony.load_harmony_encoding("HarmonyGptOss")._inner

    def rendered(messages: tuple[Message, ...], *, for_completion: bool = True, drop: bool = True) -> list[int]:
        text = json.dumps(conversation_to_dict(Conversation(messages)))
        options = {"auto_drop_analysis": drop}
        if for_completion:
            return inner.render_conversation_for_completion(text, "assistant", options)
        return inner.render_conversation(text, options)

    return rendered


@pytest.fixture
def with_tools(gptoss, tmp_path):
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "a.txt").touch()
    (tmp_path / "own.py").write_text(FUNCTIONS)
    tools = (
        "--tool",
        "python",
        "--sandbox",
        "off",
        "--tool",
        "files",
        "--tool",
        "apply_patch",
        "--functions",
        str(tmp_path / "own.py"),
    )
    return lambda *arguments, **options: gptoss(
        *arguments, *tools, "--workspace", str(folder), "--allow", "*", **options
    )


def exported(gptoss) -> tuple[Message, ...]:
    return loads_conversation(gptoss("sessions", "export", "2", "--json").stdout).messages


def test_every_prompt_of_a_turn_with_tools_is_official(with_tools, gptoss, official) -> None:
    result = with_tools("ask", "Hi", "-s", "Be brief.", completions=COMPLETIONS)
    assert result.status == 0, result.stderr
    messages = exported(gptoss)
    ends = [place for place, message in enumerate(messages) if message.role in (Role.USER, Role.TOOL)]
    assert len(ends) == len(result.engine.prompts) == len(COMPLETIONS)
    for end, prompt in zip(ends, result.engine.prompts, strict=True):
        assert prompt == official(messages[: end + 1])


def test_history_that_was_not_sampled_here_is_rendered_as_the_official_library_does(
    with_tools, gptoss, official, encoding, tmp_path
) -> None:
    with_tools("ask", "Hi", completions=COMPLETIONS)
    messages = exported(gptoss)
    assert all(message.header_order is HeaderOrder.RECIPIENT_FIRST for message in messages)
    path = tmp_path / "history.json"
    for end in (len(messages), len(messages) - 2):  # with its answer, and in the midst of the turn
        history = Conversation(messages[:end])
        path.write_text(json.dumps(conversation_to_dict(history)))
        assert render(history, encoding, drop_analysis=False) == official(
            history.messages, for_completion=False, drop=False
        )
        identifier = gptoss("sessions", "import", str(path)).stdout.strip()
        result = with_tools("ask", "--session", identifier, "And now?", completions=(ANSWER,))
        assert result.engine.prompts[0] == official((*messages[:end], Message.user("And now?")))
