"""Functions of a Python file and command lines of a JSON file."""

import json
import os
import select
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gptoss.cli.base.errors import InputError
from gptoss.cli.sandbox.limits import Limits
from gptoss.cli.sandbox.sandbox import Sandbox
from gptoss.cli.session.events import ToolCall
from gptoss.cli.session.tools import ToolOutcome
from gptoss.cli.tools.functions.tool import FunctionsTool, functions_of
from gptoss.cli.tools.tool import ToolInputError

PYTHON = '''
"""Functions."""
import time
from dataclasses import dataclass
from enum import Enum
from json import dumps
from pathlib import Path

class Unit(Enum):
    C = "celsius"
    F = "fahrenheit"

def get_weather(city: str, unit: Unit = Unit.C, days: int = 1) -> dict:
    """Get the weather of a city."""
    print("looking it up")
    return {"city": city, "unit": unit, "days": days}

def text() -> str:
    return "caf\\u00e9"

def nothing() -> None:
    pass

def fail(title: str) -> None:
    raise ValueError(f"no {title}")

async def later(seconds: float) -> str:
    import asyncio
    await asyncio.sleep(seconds)
    return "awaited"

def _private(): ...
'''


@pytest.fixture
def python(tmp_path) -> FunctionsTool:
    path = tmp_path / "functions.py"
    path.write_text(PYTHON)
    return FunctionsTool(functions_of(path), tmp_path)


def run(tool: FunctionsTool, name: str, **arguments) -> ToolOutcome:
    running = tool.prepare(ToolCall(f"functions.{name}", json.dumps(arguments)), ()).run()
    while True:
        try:
            next(running)
        except StopIteration as ending:
            return ending.value


def test_python_functions_describe_themselves(python) -> None:
    described = {each.name: each for each in python.functions}
    assert sorted(described) == ["fail", "get_weather", "later", "nothing", "text"]
    weather = described["get_weather"]
    assert weather.description == "Get the weather of a city."
    assert weather.parameters["required"] == ["city"]
    assert weather.parameters["properties"]["city"] == {"type": "string"}
    assert weather.parameters["properties"]["days"] == {"type": "integer", "default": 1}
    assert weather.parameters["additionalProperties"] is False
    assert described["fail"].parameters["properties"] == {"title": {"type": "string"}}


def test_python_functions_run_with_converted_arguments(python) -> None:
    outcome = run(python, "get_weather", city="Paris", unit="fahrenheit")
    assert outcome == ToolOutcome('looking it up\n{"city":"Paris","unit":"fahrenheit","days":1}')
    assert run(python, "text") == ToolOutcome("caf\u00e9")
    assert run(python, "nothing") == ToolOutcome("[It returned nothing.]")
    assert run(python, "later", seconds=0) == ToolOutcome("awaited")
    assert run(python, "fail", title="way") == ToolOutcome("ValueError: no way", "error")


def test_arguments_are_checked_before_anything_runs(python) -> None:
    with pytest.raises(ToolInputError, match="'city' is a required property"):
        run(python, "get_weather")
    with pytest.raises(ToolInputError, match="unit: 'kelvin' is not one of"):
        run(python, "get_weather", city="Paris", unit="kelvin")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:", "SyntaxError"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("x = 1", "no public function"),
        ("def f(*args): ...", "cannot be given by name"),
        ("class A: ...\ndef f(a: A): ...", "f: .*A"),
    ],
)
def test_file_without_usable_functions_is_one_line(tmp_path, text, message) -> None:
    path = tmp_path / "f.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as failed:
        functions_of(path)
    assert "\n" not in str(failed.value)
    with pytest.raises(InputError, match="no file"):
        functions_of(tmp_path / "missing.py")


@pytest.fixture
def commands(tmp_path):
    def make(*entries: dict) -> FunctionsTool:
        path = tmp_path / "tools.json"
        path.write_text(json.dumps(list(entries)))
        return FunctionsTool(functions_of(path), tmp_path)

    return make


def test_command_gets_its_arguments_on_standard_input(commands) -> None:
    tool = commands({"name": "echo", "command": ["cat"], "parameters": {"type": "object"}})
    assert run(tool, "echo", b="$(id)", a="`x`; y").text == '{"a": "`x`; y", "b": "$(id)"}'
    tool = commands({"name": "words", "command": ["printf", "%s|", "a b", "$HOME", "*"]})
    assert run(tool, "words").text == "a b|$HOME|*|"


def test_last_words_of_a_command_that_ends_while_nothing_is_ready_are_read(commands, monkeypatch) -> None:
    from gptoss.cli.tools.functions import process

    # It ends after it was asked whether it has, and before the answer that nothing is ready.
    tool, real = commands({"name": "f", "command": ["sh", "-c", "sleep 0.5; echo last words"]}), select.select

    class Slow:
        def __init__(self) -> None:
            self.waits = 1

        def select(self, *arguments):
            self.waits -= 1
            if self.waits < 0:
                return real(*arguments)
            time.sleep(1)
            return [], [], []

    monkeypatch.setattr(process, "select", Slow())
    assert run(tool, "f").text == "last words"


def test_command_beside_the_file(commands, tmp_path) -> None:
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\necho out; echo err >&2; exit 3\n")
    script.chmod(0o755)
    tool = commands({"name": "f", "command": ["./script.sh"]})
    assert run(tool, "f") == ToolOutcome("out\nerr", "error")
    tool = commands({"name": "f", "command": ["./missing.sh"]})
    assert run(tool, "f").status == "error"
    tool = commands({"name": "f", "command": ["false"]})
    assert run(tool, "f") == ToolOutcome("[It failed with exit status 1.]", "error")


def test_time_limit_ends_the_whole_group(commands, tmp_path) -> None:
    line = f"sleep 654 & echo $! > {tmp_path}/child; echo begun; wait"
    tool = commands({"name": "f", "command": ["sh", "-c", line], "seconds": 0.4})
    assert run(tool, "f") == ToolOutcome("begun\n[Ended after 0.4 seconds.]", "timeout")
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        with suppress(ProcessLookupError):
            os.kill(child, 0)
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                time.sleep(0.05)
                continue
        break
    else:
        raise AssertionError("the child is still there")


def test_cancel_ends_a_call_that_ignores_its_input(commands) -> None:
    tool = commands({"name": "f", "command": ["sleep", "60"], "parameters": {"type": "object"}})
    call = tool.prepare(ToolCall("functions.f", json.dumps({"a": "x" * (1 << 20)})), ())
    threading.Timer(0.2, call.cancel).start()
    with pytest.raises(StopIteration) as ending:
        next(call.run())
    assert ending.value.value.status == "cancelled"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "f"}, "command must be a list"),
        ({"name": "f g", "command": ["x"]}, "name must be"),
        ({"name": "f", "command": "x"}, "command must be a list"),
        ({"name": "f", "command": ["x"], "seconds": True}, "seconds must be"),
        ({"name": "f", "command": ["x"], "parameters": 1}, "parameters must be"),
        ({"name": "f", "command": ["x"], "shell": True}, "unknown key 'shell'"),
        ("f", "it must be an object"),
    ],
)
def test_wrong_entry_says_where(commands, entry, message) -> None:
    with pytest.raises(InputError, match=rf"tools\.json, function 1: {message}"):
        commands(entry)


def test_two_functions_of_one_name_are_refused(commands) -> None:
    with pytest.raises(InputError, match="two functions f"):
        commands({"name": "f", "command": ["x"]}, {"name": "f", "command": ["y"]})


CURIOUS = '''
import socket
from pathlib import Path

SECRET = {secret!r}
def _reads(path: str) -> bool:
    try:
        return bool(Path(path).read_text())
    except OSError:
        return False

assert _reads(SECRET) == {is_free}

def look() -> list:
    """Look around."""
    found = []
    for path in (SECRET, "/etc/passwd"):
        try:
            found.append(len(Path(path).read_text()))
        except OSError:
            found.append("denied")
    try:
        socket.create_connection(("127.0.0.1", 9), 1)
    except ConnectionRefusedError:
        found.append("reached")
    except OSError:
        found.append("denied")
    Path("own.txt").write_text("x")
    return found
'''


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that other users can enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="gptoss-functions-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's mechanisms")
@pytest.mark.parametrize(
    "mechanism",
    [
        pytest.param(
            "bubblewrap", marks=pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not there")
        ),
        "landlock",
    ],
)
def test_functions_in_the_sandbox_reach_nothing_else(base, mechanism) -> None:
    secret = base / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    path = base / "own.py"
    path.write_text(CURIOUS.format(secret=str(secret), is_free=True))
    path.chmod(0o644)
    assert run(FunctionsTool(functions_of(path), base), "look").text.startswith("[6,")
    (base / "own.txt").unlink()
    path.write_text(CURIOUS.format(secret=str(secret), is_free=False))  # importing it is confined too
    with pytest.raises(InputError):
        functions_of(path)
    sandbox = Sandbox(mechanism, Limits(memory=600 << 20))
    tool = FunctionsTool(functions_of(path, sandbox), base, sandbox)
    assert tool.prepare(ToolCall("functions.look", "{}"), ()).preview.reaches == (
        "a folder of its own and the programs of the system, no network; it comes from own.py"
    )
    assert run(tool, "look").text == '["denied","denied","denied"]'
    assert sorted(os.listdir(base)) == ["own.py", "secret"]  # noqa: PTH208
    tool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's mechanisms")
def test_commands_in_the_sandbox_read_what_their_line_names_and_end_with_it(base) -> None:
    (base / "named.txt").write_text("named\n")
    (base / "named.txt").chmod(0o644)
    (base / "tools.json").write_text(
        json.dumps(
            [
                {"name": "show", "command": ["cat", "named.txt"]},
                {"name": "list", "command": ["ls", "-a"]},
                {"name": "wait", "command": ["sleep", "60"], "seconds": 0.5},
                {"name": "none", "command": ["no-such-program"]},
                {"name": "much", "command": ["sh", "-c", "x=x; while :; do x=$x$x$x; done"]},
            ]
        )
    )
    sandbox = Sandbox("landlock", Limits(memory=100 << 20))
    tool = FunctionsTool(functions_of(base / "tools.json", sandbox), base, sandbox)
    assert run(tool, "show").text == "named"
    assert run(tool, "list").text == ".\n.."
    assert run(tool, "wait").status == "timeout"
    assert run(tool, "none").text == "It could not be started: there is no program no-such-program"
    assert run(tool, "much").status == "error"
    tool.close()
