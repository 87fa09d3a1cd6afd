"""Kills programs that record a conversation, at random moments, or before and in the midst of each of its calls:

    python killed.py FOLDER moments TIMES SEED
    python killed.py FOLDER calls

Everything is loaded once; each time a fork of this process says the whole conversation into a home of its own,
FOLDER/0, FOLDER/1, ..., and is killed. Prints how many messages each had recorded by then, as a list in JSON.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from scripted import ScriptedEngine

from gptoss.cli.conversations.recorder import Recorder
from gptoss.cli.conversations.store import Store
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.options import SessionModel
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Encoding, Message

TURN = "<|channel|>analysis<|message|>t{0}<|end|><|start|>assistant<|channel|>final<|message|>A{0}<|return|>"
TURNS = 4


def converse(encoding: Encoding, home: Path, told: int) -> None:
    """Say it all, and write a byte to `told` for each message that was recorded."""
    store = Store(home, lambda: datetime.datetime.now(datetime.UTC))
    engine = ScriptedEngine([encoding.encode_with_special(TURN.format(n)) for n in range(TURNS)])
    recorder = Recorder(store, lambda line: None, saving=True)
    count = 0

    def record(session: Session) -> None:
        nonlocal count
        recorder.record(session)
        said = len(session.transcript.messages)
        os.write(told, b"." * (said - count))
        count = said

    settings = ConversationSettings(Message.system(""))
    session = Session(SessionModel("nano", engine, encoding), Transcript(settings), observer=record)
    for n in range(TURNS):
        for _ in session.respond([Message.user(f"q{n}")]):
            pass


def die_at(number: int) -> None:
    """Have this process kill itself at its call of that number to the file system; each `os.write` counts as two."""
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            if function is write:
                if arguments[1:] == (b".",):  # tells the test, see `converse`
                    count -= 1
                elif count == number:
                    write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                else:
                    count += 1
            return function(*arguments, **options)

        return call

    write = os.write
    for name in ("open", "write", "fsync", "ftruncate", "rename", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def killed(encoding: Encoding, home: Path, after_s: float | None, call: int | None = None) -> tuple[int, float, bool]:
    """How many messages a fork had recorded when it was killed, how long it was alive, and whether it was killed."""
    reader, writer = os.pipe()
    began = time.perf_counter()
    process = os.fork()
    if process == 0:
        try:
            if call is not None:
                die_at(call)
            converse(encoding, home, writer)
        finally:
            os._exit(0)
    os.close(writer)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(process, signal.SIGKILL)
    told = b""
    while data := os.read(reader, 100):
        told += data
    os.close(reader)
    _, status = os.waitpid(process, 0)
    return len(told), time.perf_counter() - began, os.WIFSIGNALED(status)


def main() -> None:
    folder = Path(sys.argv[1])
    encoding = Encoding.o200k_harmony()
    converse(encoding, folder / "warm", os.open(os.devnull, os.O_WRONLY))
    recorded: list[int] = []
    if sys.argv[2] == "calls":
        was_killed = True
        while was_killed:
            number = len(recorded)
            count, _, was_killed = killed(encoding, folder / str(number), None, call=number)
            recorded.append(count)
    else:
        times, moments = int(sys.argv[3]), random.Random(int(sys.argv[4]))
        whole_s = sorted(killed(encoding, folder / f"whole{n}", None)[1] for n in range(5))[2]
        recorded += [killed(encoding, folder / str(n), moments.uniform(0, whole_s))[0] for n in range(times)]
    print(json.dumps(recorded))


if __name__ == "__main__":
    main()
