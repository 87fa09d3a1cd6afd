"""kill -9: it costs at most the message being written, and the file always opens."""

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gptoss.cli.conversations.store import Store
from gptoss.harmony import Message

KILLER = Path(__file__).parent / "killed.py"
TURNS = 4


def check(store: Store, said, whole: list[str]) -> int:
    """What is on the disk is a beginning of the conversation, and it can go on; how many messages there are."""
    damaged: list[str] = []
    logs = list(store.readable(damaged))
    assert damaged == []
    assert len(logs) <= 1
    kept = said(logs[0]) if logs else []
    assert kept == whole[: len(kept)]
    for log in logs:
        log.write(replace(log.saved, messages=(*log.saved.messages, Message.user("on"))))
        assert said(log) == [*kept, "on"]
        assert store.latest().saved.id == log.saved.id
    return len(kept)


def whole_conversation(turns: int) -> list[str]:
    return [text for n in range(turns) for text in (f"q{n}", f"t{n}", f"A{n}")]


def killed(folder: Path, said, *how: str) -> list[int]:
    """How many messages forks of a program had recorded when they were killed; all of these are there."""
    command = [sys.executable, str(KILLER), str(folder), *how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    recorded = json.loads(done.stdout)
    for number, count in enumerate(recorded):
        store = Store(folder / str(number), lambda: datetime.now(UTC))
        # It may have been killed when a message was on the disk and it had not yet said so.
        assert count <= check(store, said, whole_conversation(TURNS)) <= count + 1
    return recorded


def test_killed_at_two_hundred_moments(tmp_path, said) -> None:
    recorded = killed(tmp_path, said, "moments", "200", "1")
    assert len(recorded) == 200
    assert len(set(recorded)) >= 2 * TURNS  # the moments were spread over the conversation


def test_killed_before_and_in_the_midst_of_each_call(tmp_path, said) -> None:
    recorded = killed(tmp_path, said, "calls")
    assert set(recorded) == set(range(3 * TURNS + 1))
    assert len(recorded) > 3 * (3 * TURNS)  # open, write, sync, at least


def kill_a_chat(spawn, tmp_path: Path, store: Store, said, delay_s: float) -> int:
    """Kill a chat of three turns after `delay_s`; how many messages are on the disk then."""
    turn = "<|channel|>analysis<|message|>t{0}<|end|><|start|>assistant<|channel|>final<|message|>A{0}<|return|>"
    loading = tmp_path / "loading"
    process = spawn(
        "chat",
        completions=[turn.format(n) for n in range(3)],
        token_delay_s=0.02,
        loading=str(loading),
        streams={"stdin": subprocess.PIPE},
    )
    process.stdin.write(b"q0\nq1\nq2\n")
    process.stdin.close()
    while not loading.exists():
        time.sleep(0.005)
        assert process.poll() is None
    time.sleep(delay_s)
    process.kill()
    written = process.stdout.read().decode().split()
    process.wait()
    whole = whole_conversation(3)
    kept = check(store, said, whole)
    # An answer that has been shown in full is lost only while it is being written.
    shown = [text for text in written if text in whole]
    assert kept >= (whole.index(shown[-1]) if shown else 0)
    for log in store.readable():
        store.delete(log.path)
    loading.unlink()
    return kept


def test_chat_killed_at_any_moment(spawn, tmp_path, store, said) -> None:
    moments = random.Random(1)
    for _ in range(4):
        kill_a_chat(spawn, tmp_path, store, said, moments.uniform(0.3, 1.2))


@pytest.mark.long
def test_chat_killed_at_a_hundred_moments(spawn, tmp_path, store, said) -> None:
    moments = random.Random(2)
    kept = [kill_a_chat(spawn, tmp_path, store, said, moments.uniform(0.2, 1.3)) for _ in range(100)]
    assert len(set(kept)) >= 6  # the moments were spread over the whole conversation
