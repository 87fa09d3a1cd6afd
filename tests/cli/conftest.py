"""`gptoss` as a function, and as a process, with a scripted engine in place of a model; its conversations."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gptoss.cli.app import run
from gptoss.cli.conversations.log import ConversationLog, SavedConversation
from gptoss.cli.conversations.recorder import Recorder
from gptoss.cli.conversations.store import Store
from gptoss.cli.session.conversation_settings import ConversationSettings
from gptoss.cli.session.options import SessionModel
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.loaded import LoadedModel
from gptoss.harmony import Conversation, Encoding, Message, Role

SCRIPTED = Path(__file__).parent / "scripted.py"
PSEUDO_TERMINAL = Path(__file__).parent / "pseudo_terminal.py"
TMUX = Path(__file__).parent / "tmux.py"
TODAY = date(2026, 3, 14)
NOTHING_SAID = ConversationSettings(Message.system(""))


class Stream(io.TextIOWrapper):
    """A text stream in memory that can say that it is a terminal."""

    def __init__(self, data: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode("utf-8")


@dataclass
class Result:
    """What one run of `gptoss` did."""

    status: int
    stdout: str
    stderr: str
    engine: Any
    encoding: Encoding

    @property
    def prompts(self) -> list[str]:
        return [self.encoding.decode(prompt) for prompt in self.engine.prompts]


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    return _module("scripted_engine", SCRIPTED)


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def encoding() -> Encoding:
    return Encoding.o200k_harmony()


@pytest.fixture(scope="session")
def reply() -> Callable[..., str]:
    """The completion of a well-formed turn."""

    def build(answer: str, reasoning: str = "Let me see.") -> str:
        final = f"<|channel|>final<|message|>{answer}<|return|>"
        return f"<|channel|>analysis<|message|>{reasoning}<|end|><|start|>assistant{final}" if reasoning else final

    return build


@pytest.fixture
def gptoss(scripted: ModuleType, encoding: Encoding, tmp_path: Path) -> Callable[..., Result]:
    """Run a command line in this process.

    The keyword arguments: `completions` (what the turns sample, in order), `engine` (a whole engine instead), `stdin`
    (bytes in a pipe; None: a terminal), `terminal` (the streams that are terminals: "out", "err", "out err"),
    `variables` (beside a home, a hub's cache and the exact backend), and `load` (a model loader instead).
    """

    def invoke(
        *arguments: str,
        completions: tuple[str, ...] = (),
        engine: Any = None,
        stdin: bytes | None = None,
        terminal: str = "",
        variables: dict[str, str] | None = None,
        load: Callable[..., LoadedModel] | None = None,
    ) -> Result:
        engine = engine or scripted.ScriptedEngine([encoding.encode_with_special(text) for text in completions])
        stdout = Stream(terminal="out" in terminal.split())
        stderr = Stream(terminal="err" in terminal.split())
        environment = Environment(
            stdin=Stream(stdin or b"", terminal=stdin is None),
            stdout=stdout,
            stderr=stderr,
            variables={
                "TERM": "xterm-256color",
                "GPTOSS_HOME": str(tmp_path / "home"),
                "HF_HUB_CACHE": str(tmp_path / "hub"),
                "GPTOSS_BACKEND": "reference",
            }
            | (variables or {}),
            load_model=load or (lambda request: LoadedModel(request.model, engine, encoding)),
            today=lambda: TODAY,
        )
        status = run(arguments, environment)
        return Result(status, stdout.text, stderr.text, engine, encoding)

    return invoke


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a process that is `gptoss` with a scripted engine; see scripted.py for the keywords."""

    def write(*arguments: str, **fields: Any) -> list[str]:
        path = tmp_path / "script.json"
        path.write_text(json.dumps(fields), encoding="utf-8")
        return [sys.executable, str(SCRIPTED), str(path), *arguments]

    return write


@pytest.fixture
def spawn(tmp_path: Path, script: Callable[..., list[str]]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start such a process with pipes on all streams, unless `streams` says otherwise."""
    started = []

    def start(*arguments: str, streams: dict[str, Any] | None = None, **fields: Any) -> subprocess.Popen[bytes]:
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            script(*arguments, **fields),
            env={"GPTOSS_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
            **(pipes | (streams or {})),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def pseudo_terminal() -> ModuleType:
    return _module("pseudo_terminal", PSEUDO_TERMINAL)


@pytest.fixture
def terminal(
    script: Callable[..., list[str]], pseudo_terminal: ModuleType, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """Start `gptoss chat` with a scripted engine at a pseudo-terminal; see scripted.py for the other keywords."""
    opened = []

    def start(*arguments: str, columns: int = 80, rows: int = 24, variables: Any = None, **fields: Any) -> Any:
        environment = {
            "PATH": os.environ["PATH"],
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
            "GPTOSS_HOME": str(tmp_path / "home"),
            "OMP_NUM_THREADS": "1",
        }
        command = script("chat", "-m", "nano", *arguments, **fields)
        opened.append(pseudo_terminal.Terminal(command, columns, rows, environment | (variables or {})))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start a program in a pane of a real tmux; see tmux.py."""
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux")
    panes: list[Any] = []
    home = {"GPTOSS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}

    def start(command: list[str], columns: int = 80, rows: int = 24, **variables: str) -> Any:
        folder = tmp_path / f"tmux-{len(panes)}"
        folder.mkdir()
        panes.append(_module("tmux_pane", TMUX).Tmux(folder, command, columns, rows, home | variables))
        return panes[-1]

    yield start
    for pane in panes:
        pane.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The conversations of the home in which `gptoss`, `spawn` and `terminal` run."""
    return Store(tmp_path / "home" / "conversations", lambda: datetime(2026, 3, 14, 9, 26, tzinfo=UTC))


@pytest.fixture
def create(store: Store) -> Callable[..., ConversationLog]:
    """Keep a conversation: by default a greeting and its answer."""
    greeting = Conversation.of(Message.user("Hello"), Message.assistant("Hi", channel="final"))

    def make(conversation: Conversation = greeting, **fields: Any) -> ConversationLog:
        return store.create(conversation, **({"model": "nano", "effort": "low"} | fields))

    return make


@pytest.fixture(scope="session")
def said() -> Callable[[ConversationLog], list[str]]:
    """What the file of a conversation has."""

    def texts(log: ConversationLog) -> list[str]:
        messages = ConversationLog.read(log.path).saved.messages
        return [message.text for message in messages if message.role not in (Role.SYSTEM, Role.DEVELOPER)]

    return texts


@pytest.fixture
def kept(store: Store, said: Callable[[ConversationLog], list[str]]) -> Callable[[], list[str]]:
    """What was said in the one conversation that there is."""

    def texts() -> list[str]:
        damaged: list[str] = []
        (log,) = store.readable(damaged)
        assert damaged == []
        return said(log)

    return texts


@pytest.fixture
def talk(store: Store, scripted: ModuleType, encoding: Encoding, reply: Callable[..., str]) -> type:
    """A session that is recorded; `said` is what its recorder tells."""

    class Talk:
        person_types = False

        def __init__(self, *answers: str, log: ConversationLog | None = None, saving: bool = True) -> None:
            engine = scripted.ScriptedEngine([encoding.encode_with_special(reply(answer)) for answer in answers])
            self.said: list[str] = []
            self.recorder = Recorder(store, self.said.append, log, saving=saving)
            self.session = Session(
                SessionModel("nano", engine, encoding), Transcript(NOTHING_SAID), observer=self.recorder.record
            )

        def say(self, text: str) -> None:
            self.said.append(text)

        def ask(self, text: str) -> None:
            for _ in self.session.respond([Message.user(text)]):
                pass

        def go_on_with(self, saved: SavedConversation) -> None:
            self.session.go_on_with(Transcript.read(saved.messages))

    return Talk
