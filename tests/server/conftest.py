"""Servers in a thread of the tests' process: on nano, and on an engine that says what a script says."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
from requested import load_request

from gptoss.cli.server.app import Application, Seen
from gptoss.cli.server.gate import Gate
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.listening import listen_tcp
from gptoss.cli.server.served import Served
from gptoss.cli.server.serving import Serving
from gptoss.cli.session.options import SessionModel
from gptoss.cli.startup.loading import load_model

SCRIPTED = Path(__file__).parents[1] / "cli" / "scripted.py"
JSON = {"Content-Type": "application/json"}


@dataclass
class Running:
    """A server that answers."""

    application: Application
    serving: Serving
    port: int
    seen: list[Seen] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **fields: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30, trust_env=False, **fields)


@contextmanager
def serve(model: SessionModel, gate: Gate | None = None, limits: Limits | None = None) -> Iterator[Running]:
    served = Served(model, limits=limits or Limits(), today=lambda: date(2026, 3, 14))
    application = Application(served, gate or Gate())
    listener = listen_tcp("127.0.0.1", 0)
    running = Running(application, Serving(application, listener), listener.getsockname()[1])
    application.seen, application.complain = running.seen.append, running.complaints.append
    thread = threading.Thread(target=running.serving.run)
    thread.start()
    try:
        yield running
    finally:
        running.serving.end()
        running.serving.end()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionModel]:
    # The kernels: the exact backend takes a hundred times as long for a token.
    model = load_model(load_request("nano", tmp_path_factory.mktemp("home"), backend="cpu"))
    yield model
    model.engine.close()


@pytest.fixture(scope="module")
def server(nano: SessionModel) -> Iterator[Running]:
    """One on nano."""
    with serve(nano) as running:
        yield running


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripted_engine_of_servers", SCRIPTED)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start(nano: SessionModel, scripted: ModuleType) -> Iterator[Callable[..., Running]]:
    """Start a server; `completions` are texts with special tokens that a scripted engine says, None is nano's engine.

    The other keywords are `gate`, those of `Limits`, and in `engine` those of the scripted engine.
    """
    with ExitStack() as stack:

        def run(
            *completions: str, gate: Gate | None = None, engine: dict[str, Any] | None = None, **limits: Any
        ) -> Running:
            model = nano
            if completions:
                texts = [nano.encoding.encode_with_special(text) for text in completions]
                fields = {"stop_tokens": nano.encoding.stop_tokens, "vocabulary": nano.encoding.vocab_size}
                made = scripted.ScriptedEngine(texts, **(fields | (engine or {})))
                model = SessionModel("nano", made, nano.encoding)
            return stack.enter_context(serve(model, gate, Limits(**limits)))

        yield run
