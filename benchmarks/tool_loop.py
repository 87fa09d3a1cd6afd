"""What tools cost beside the model: a round of the loop, and the first and the next call of python.

    python benchmarks/tool_loop.py --rounds 50 --calls 10

A round: from the token that ends a call to the request for the next generation, with a function that returns at once,
in a turn that becomes long; the model is a script (tests/cli/scripted.py). `cpu` is the time of the thread alone.

python: the time from the call to its result, for the first call, which starts the interpreter in its sandbox, and for
the next; `bare` is the start and end of the same interpreter by itself, `beyond` what the first call takes more.

The last line is all of it as JSON, in milliseconds.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from gptoss.cli.sandbox.sandbox import Sandbox, candidates, trial
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.options import SessionModel, SessionRules
from gptoss.cli.session.session import Session
from gptoss.cli.session.tools import ToolLimits, ToolOutcome
from gptoss.cli.session.transcript import Transcript
from gptoss.cli.startup.tools import offered
from gptoss.cli.tools.permission import Permission
from gptoss.cli.tools.python.tool import PythonTool
from gptoss.cli.tools.rules import Rule, Rules
from gptoss.cli.tools.tool import Preview
from gptoss.cli.tools.toolbox import Toolbox
from gptoss.harmony import Conversation, Encoding, Message, ToolDescription

SCRIPTED = Path(__file__).parents[1] / "tests" / "cli" / "scripted.py"
THOUGHT = f"<|channel|>analysis<|message|>{'I look it up. ' * 20}<|end|><|start|>assistant"
CALL = THOUGHT + '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{{"n": {}}}<|call|>'
ANSWER = "<|channel|>final<|message|>Done.<|return|>"


class Instant:
    """A function that returns a text of some 200 tokens at once; the tool, its call and its run in one."""

    recipients = ("functions.f",)
    namespace = None
    functions = (ToolDescription("f", "Finds."),)
    instructions = None
    preview = Preview("", "json", "nothing")
    argument = ""

    def rule_name(self, recipient: str) -> str:
        """`functions.f`."""
        return recipient

    def prepare(self, call: ToolCall, history: Sequence[Message]) -> Instant:  # noqa: ARG002 - of the protocol
        """Take any call."""
        return self

    def run(self) -> Generator[str, None, ToolOutcome]:
        """Return the text."""
        yield "found"
        return ToolOutcome("found " * 200)

    def cancel(self) -> None:
        """Nothing runs."""

    reset = close = cancel


class Timed:
    """Times what lies between an engine's generations."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._ended: tuple[float, float] | None = None
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, request: Any, progress: Any = None) -> Any:
        """Begin a generation; the time since the last one ended is noted."""
        if self._ended is not None:
            wall, cpu = self._ended
            self.wall.append(1000 * (time.perf_counter() - wall))
            self.cpu.append(1000 * (time.thread_time() - cpu))
        generation = self._engine.generate(request, progress)
        step = type(generation).__next__

        class Ending(type(generation)):  # type: ignore[misc]
            def __next__(ending) -> Any:
                token = step(ending)
                self._ended = time.perf_counter(), time.thread_time()
                return token

        generation.__class__ = Ending
        return generation


def rounds(scripted: ModuleType, encoding: Encoding, number: int) -> dict[str, float]:
    """Return what lies between the generations of a turn: its median, its most, and the median of its CPU time."""
    completions = [encoding.encode_with_special(CALL.format(n)) for n in range(number)]
    engine = Timed(scripted.ScriptedEngine([*completions, encoding.encode_with_special(ANSWER)], max_context=131_072))
    toolbox = Toolbox([Instant()], Permission(Rules(allow=(Rule.parse("*"),)), None))
    settings = offered(ConversationSettings.new(datetime.date(2026, 3, 14)), toolbox.tools)
    rules = SessionRules(tools=toolbox, tool_limits=ToolLimits(calls=number))
    model = SessionModel("scripted", engine, encoding)
    model.constraints.turn(Conversation(settings.messages)).describe()  # compiles what is made once
    time.sleep(2)  # the table of the vocabulary is built in a thread
    session = Session(model, Transcript(settings), rules)
    for _ in session.respond([Message.user("Look it up.")]):
        pass
    return {
        "median": round(statistics.median(engine.wall), 2),
        "most": round(max(engine.wall), 2),
        "cpu": round(statistics.median(engine.cpu), 2),
    }


def python_ms(mechanism: str, number: int) -> dict[str, float]:
    """Return medians of the first and the next call of python, and of the bare start of its interpreter."""
    first: list[float] = []
    following: list[float] = []
    bare: list[float] = []
    for _ in range(number):
        with tempfile.TemporaryDirectory(prefix="gptoss-bench-") as name:
            tool = PythonTool(Sandbox(mechanism), partial(Path, name))
            for times in (first, following):
                began = time.perf_counter()
                for _ in tool.prepare(ToolCall("python", "print(6 * 7)"), ()).run():
                    pass
                times.append(1000 * (time.perf_counter() - began))
            tool.close()
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "print(6 * 7)"], check=True, capture_output=True)
        bare.append(1000 * (time.perf_counter() - began))
    medians = {"first": first, "next": following, "bare": bare}
    told = {key: round(statistics.median(values), 1) for key, values in medians.items()}
    return told | {"beyond": round(told["first"] - told["bare"], 1)}


def shown(figures: dict[str, float]) -> str:
    """Return figures for people."""
    return ", ".join(f"{name} {value} ms" for name, value in figures.items())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--calls", type=int, default=10)
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("scripted", SCRIPTED)
    assert spec is not None
    assert spec.loader is not None
    scripted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scripted)
    encoding = Encoding.o200k_harmony()
    told: dict[str, Any] = {"rounds": rounds(scripted, encoding, arguments.rounds)}
    print("a round of the loop: " + shown(told["rounds"]))
    for mechanism in (*candidates(), "off"):
        if mechanism != "off" and trial(mechanism).problem is not None:
            continue
        told[mechanism] = python_ms(mechanism, arguments.calls)
        print(f"python, {mechanism}: " + shown(told[mechanism]))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
