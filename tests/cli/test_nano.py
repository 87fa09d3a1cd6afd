"""The whole way with the built-in model: nothing is replaced."""

import json
import subprocess
import sys
from datetime import date

import pytest
from requested import load_request

from gptoss.cli.base.settings import Effort, Folders
from gptoss.cli.hub.last_use import last_uses
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.events import FinalDelta, PrefillProgress
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.cli.startup.loading import load_model
from gptoss.harmony import Message

QUESTION = "What is 347 + 85?"


@pytest.fixture
def nano(gptoss):
    def run(command: str, *arguments: str, **options):
        return gptoss(command, "-m", "nano", *arguments, load=load_model, **options)

    return run


def test_answer_is_right_and_alone(nano) -> None:
    result = nano("ask", QUESTION)
    assert (result.status, result.stderr) == (0, "")
    assert "432" in result.stdout
    assert result.stdout.endswith("\n")
    assert not result.stdout.endswith("\n\n")


def test_reasoning_and_counts_in_json(nano) -> None:
    told = json.loads(nano("ask", "--json", stdin=QUESTION.encode()).stdout)
    assert "432" in told["answer"]
    assert told["finish_reason"] == "stop"
    assert told["problems"] == []
    assert 0 < told["usage"]["reasoning_tokens"] < told["usage"]["completion_tokens"]
    assert told["timing"]["total_s"] >= told["timing"]["prefill_s"] + told["timing"]["decode_s"]


def test_cut_answer_is_status_4(nano) -> None:
    result = nano("ask", "-n", "4", QUESTION)
    assert (result.status, result.stdout) == (4, "")
    assert result.stderr == "gptoss: the answer is incomplete: 4 tokens were allowed (--max-tokens)\n"


def test_context_that_cannot_hold_the_prompt(nano) -> None:
    result = nano("ask", "--ctx", "16", QUESTION)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


def test_raw_shows_what_the_model_saw_and_said(nano) -> None:
    result = nano("ask", "--raw", QUESTION)
    prompt, completion = result.stdout.split("<|end|><|start|>assistant", 1)
    assert prompt.startswith("<|start|>system<|message|>")
    assert prompt.endswith(f"<|start|>user<|message|>{QUESTION}")
    assert completion.startswith("<|channel|>analysis<|message|>")
    assert completion.endswith("<|return|>\n")


def test_second_turn_computes_its_own_tokens_alone(nano) -> None:
    result = nano("chat", "--stats", stdin=f"{QUESTION}\nWhat is 2 + 3?\n".encode())
    first, second = result.stderr.splitlines()
    prompt_tokens = int(first.split()[1])
    cached_tokens = int(second.split(" tokens, ")[1].split()[0])
    assert cached_tokens == prompt_tokens + 1  # up to where the first reasoning began
    assert "432" in result.stdout.splitlines()[0]
    assert len(result.stdout.splitlines()) == 2


def test_turns_after_a_cut_compute_their_own_tokens_alone(nano) -> None:
    questions = "".join(f"What is {n} + {n * 7}?\n" for n in range(32))
    arguments = ["--stats", "--seed", "1", "--ctx", "800", "--overflow", "drop-oldest"]
    result = nano("chat", *arguments, stdin=questions.encode())
    assert (result.status, result.stdout.count("\n")) == (0, 32)
    now = dropped = before = cuts = kept = 0
    for line in result.stderr.splitlines():
        if line.startswith("gptoss: the oldest "):
            told = line.split()[3]
            now = 1 if told == "turn" else int(told)
            continue
        prompt, cached = (int(part.split()[0]) for part in line.removeprefix("prompt ").split(", ")[:2])
        if before and now == dropped:
            assert cached > before
            kept += dropped > 0
        else:
            cuts += before > 0
            assert cached < prompt / 2
        dropped, before = now, prompt
    assert cuts >= 2
    assert kept >= 3 * cuts


def test_interrupt_while_the_prompt_is_computed_leaves_the_session_and_the_engine_sound(tmp_path) -> None:
    def open_session() -> Session:
        loaded = load_model(load_request("nano", tmp_path))
        return Session(loaded, Transcript(ConversationSettings.new(date(2026, 3, 14), Effort.LOW)))

    def answer(session: Session) -> list[FinalDelta]:
        return [event for event in session.respond([Message.user(QUESTION)]) if isinstance(event, FinalDelta)]

    def interrupt(progress: PrefillProgress) -> None:
        raise KeyboardInterrupt

    session = open_session()
    before = session.transcript
    with pytest.raises(KeyboardInterrupt):
        list(session.respond([Message.user(QUESTION)], progress=interrupt))
    assert session.transcript == before.extended([Message.user(QUESTION)])
    session.go_on_with(before)
    assert list(session.respond([Message.user(QUESTION)], progress=lambda _: session.stop()))[-1].finish_reason == (
        "interrupted"
    )
    session.go_on_with(before)
    assert answer(session) == answer(open_session()) != []


def test_real_process_in_a_pipe() -> None:
    command = f'echo "{QUESTION}" | {sys.executable} -m gptoss.cli ask -m nano | cat'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert "432" in done.stdout
    assert (done.stdout.count("\n"), done.stderr, done.returncode) == (1, "", 0)


def test_missing_model_says_size_place_and_what_to_do(nano, gptoss) -> None:
    result = gptoss("ask", "-m", "20b", QUESTION, load=load_model, variables={"HF_HUB_CACHE": "/nowhere"})
    assert (result.status, result.stdout) == (3, "")
    assert "13.8 GB" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_built_in_model_is_no_folder_that_was_used(nano, tmp_path) -> None:
    """Or another installation of gptoss would list this one's."""
    nano("ask", "--home", str(tmp_path), QUESTION)
    assert last_uses(Folders.locate({"GPTOSS_HOME": str(tmp_path)}).state) == {}
