"""A hub on the loopback, a home with nothing in it, and `gptoss` against both: in this process, and as one of its own.

No test here reaches further than the loopback: every address that the client library knows is that of the local hub.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from hub_server import HubServer, Repository

from gptoss.cli.app import run
from gptoss.cli.hub import client
from gptoss.cli.startup.environment import Environment, ModelLoader
from gptoss.cli.startup.lazy_loading import load_model

NAME = "owner/made"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> dict[str, bytes]:
    """The files of a repository with a made checkpoint of three shards (3 MB), and what does not belong to it."""
    folder = make_checkpoint(tmp_path_factory.mktemp("made"), "hub_mxfp4", shards=3, vocabulary=12_000)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    other = {"original/config.json": b"{}", "original/model.safetensors": b"x" * 999, "metal/model.bin": b"x" * 999}
    return files | other | {"README.md": b"# Made\n", "LICENSE": b"Apache-2.0\n", ".gitattributes": b"*\n"}


@pytest.fixture
def hub(checkpoint: dict[str, bytes]) -> Iterator[HubServer]:
    """The hub, with the made checkpoint as `owner/made`."""
    with HubServer() as server:
        server.repositories[NAME] = Repository(dict(checkpoint))
        yield server


@pytest.fixture
def home(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; the client library is pointed there and at the local hub, and waits hardly at all."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    for name, value in variables(hub, folder).items():
        monkeypatch.setenv(name, value)
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(folder / "agents.json"))
    monkeypatch.setattr(client, "RETRY_WAITS_S", (0.01, 0.01))
    return folder


def variables(hub: HubServer, folder: Path) -> dict[str, str]:
    return {
        "HOME": str(folder),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "GPTOSS_HOME": str(folder / "gptoss"),
        "TERM": "xterm-256color",
        "OMP_NUM_THREADS": "1",
    }


class Stream(io.TextIOWrapper):
    def __init__(self, data: bytes = b"", *, terminal: bool = False) -> None:
        self._bytes = io.BytesIO(data)
        super().__init__(self._bytes, encoding="utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        return self._bytes.getvalue().decode("utf-8")


@dataclass
class Result:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def gptoss(home: Path) -> Callable[..., Result]:
    """Run a command line in this process; `typed` is what a person at a terminal types."""

    def invoke(*arguments: str, typed: str | None = None, load_model: ModelLoader = load_model) -> Result:
        stdout, stderr = Stream(terminal=typed is not None), Stream(terminal=typed is not None)
        stdin = Stream((typed or "").encode(), terminal=typed is not None)
        status = run(arguments, Environment(load_model, stdin, stdout, stderr))
        return Result(status, stdout.text, stderr.text)

    return invoke


@pytest.fixture
def spawn(home: Path, hub: HubServer) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `gptoss` as a process of its own."""
    started = []

    def start(*arguments: str, **fields: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gptoss.cli", *arguments],
            env=variables(hub, home) | {"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **fields,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def cache(home: Path) -> Path:
    """The entry of `owner/made` in the hub's cache."""
    return home / "hf" / "hub" / "models--owner--made"
