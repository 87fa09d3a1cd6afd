"""How long a key takes to be echoed at the input line of `gptoss chat`, seen from outside at a pseudo-terminal.

    python benchmarks/typing_speed.py --history 10000 --tokens 100000

The history of the input line has so many lines, the conversation, which `chat -c` goes on in, so many tokens; the model
is a script (tests/cli/scripted.py). Letters are typed one by one, the next when the last has been echoed: at a new
prompt, in the menu of the commands, going through the history by the arrow keys and Ctrl-R, and after an answer, whose
next prompt is timed too. The last line is all of it as JSON, in milliseconds. It needs pexpect.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pexpect

from gptoss.cli.conversations.store import Store
from gptoss.harmony import Conversation, Encoding, Message, SystemContent

SCRIPTED = Path(__file__).parents[1] / "tests" / "cli" / "scripted.py"
LETTERS = "the quick brown fox jumps over the lazy dog "
CURSOR_QUERY, CURSOR_REPLY = b"\x1b[6n", b"\x1b[20;1R"


class Chat:
    """`gptoss chat` at a pseudo-terminal that says where its cursor is."""

    def __init__(self, home: Path, script: Path, columns: int = 100, rows: int = 30) -> None:
        variables = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "GPTOSS_HOME": str(home)}
        self.child = pexpect.spawn(
            sys.executable,
            [str(SCRIPTED), str(script), "chat", "-c"],
            dimensions=(rows, columns),
            env={**os.environ, **variables},
            timeout=60,
        )
        self.child.delaybeforesend = None

    def read(self, seconds: float) -> bytes:
        """Return what comes within so many seconds, the first piece alone."""
        try:
            data: bytes = self.child.read_nonblocking(65536, timeout=seconds)
        except pexpect.TIMEOUT:
            return b""
        if CURSOR_QUERY in data:
            self.child.send(CURSOR_REPLY)
        return data

    def settle(self, quiet_s: float = 0.5) -> None:
        """Read until nothing comes for a while."""
        while self.read(quiet_s):
            pass

    def wait_for(self, text: bytes) -> None:
        """Read until the text has come."""
        seen = b""
        end = time.monotonic() + 60
        while text not in seen:
            if time.monotonic() > end:
                raise SystemExit(f"{text!r} did not come")
            seen += self.read(1)

    def echo_ms(self, key: str) -> float:
        """Return the time from a key to the first byte that it brings."""
        begin = time.perf_counter()
        self.child.send(key)
        while not self.read(5):
            if time.perf_counter() - begin > 20:
                raise SystemExit(f"{key!r} brings nothing")
        elapsed = 1000 * (time.perf_counter() - begin)
        while self.read(0.02):  # the rest of the same drawing
            pass
        return elapsed

    def type(self, text: str) -> list[float]:
        """Return the times of the keys of a text."""
        return [self.echo_ms(key) for key in text]

    def clear(self) -> None:
        """Empty the line."""
        self.child.send("\x05\x15")
        self.settle(0.2)


def main() -> None:
    """Measure, and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--history", type=int, default=10_000, help="lines in the history")
    arguments.add_argument("--tokens", type=int, default=100_000, help="tokens of the conversation")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        _make_history(home / "state" / "history", options.history)
        tokens = _make_conversation(home / "conversations", options.tokens)
        script = Path(folder, "script.json")
        answer = "<|channel|>final<|message|>Done.<|return|>"
        script.write_text(json.dumps({"completions": [answer], "max_context": 2 * options.tokens + 8192}))
        times = _measured(Chat(home, script))
    print(f"{options.history:,} lines of history, {tokens:,} tokens of conversation; milliseconds to the echo of a key")
    summary = {}
    for name, found in times.items():
        ordered = sorted(found)
        figures = {"keys": len(found), "median": statistics.median(found), "p95": ordered[int(0.95 * len(found))]}
        summary[name] = {**figures, "most": ordered[-1]}
        print(f"  {name:<14}" + "".join(f"  {key} {value:.1f}" for key, value in summary[name].items()))
    print(json.dumps({"history": options.history, "tokens": tokens, "echo_ms": summary}))


def _measured(chat: Chat) -> dict[str, list[float]]:
    chat.wait_for(b"> ")
    chat.settle(2)
    times = {"new prompt": chat.type(LETTERS * 3)}
    chat.clear()
    times["menu"] = [time for _ in range(5) for time in (*chat.type("/"), *chat.type("con"), *_cleared(chat))]
    times["arrow keys"] = [chat.echo_ms("\x1b[A") for _ in range(40)]
    chat.clear()
    times["Ctrl-R"] = [*chat.type("\x12"), *chat.type("number 4")]
    chat.child.send("\x07")
    chat.settle()
    chat.clear()
    chat.child.send("Is it done?\r")
    chat.wait_for(b"Done.")
    begin = time.perf_counter()
    chat.wait_for(b"> ")
    times["next prompt"] = [1000 * (time.perf_counter() - begin)]
    chat.settle()
    times["after answer"] = chat.type(LETTERS[:20])
    chat.child.send("\x15\x04")
    chat.child.wait()
    return times


def _cleared(chat: Chat) -> list[float]:
    chat.clear()
    return []


def _make_history(path: Path, lines: int) -> None:
    path.parent.mkdir(parents=True)
    entries = (f"\n# 2026-01-01 00:00:00\n+line number {number} of what somebody typed\n" for number in range(lines))
    path.write_text("".join(entries))
    path.chmod(0o600)


def _make_conversation(folder: Path, tokens: int) -> int:
    encoding = Encoding.o200k_harmony()
    text = "The river runs through the town, and the people of the town fish in it all year long. " * 40
    each = len(encoding.encode(text))
    messages: list[Message] = [Message.system(SystemContent())]
    for number in range(max(1, tokens // (2 * each))):
        messages += [Message.user(f"{number}: {text}"), Message.assistant(text, channel="final")]
    store = Store(folder, lambda: datetime.datetime.now(datetime.UTC))
    store.mark_latest(store.create(Conversation(tuple(messages)), model="nano", effort="low"))
    return 2 * each * ((len(messages) - 1) // 2)


if __name__ == "__main__":
    main()
