"""Servers in a thread of the tests' process: on nano, and on an engine that says what a script says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest
from requested import load_request
from serving_in_thread import Running, serve

from gptoss.cli.server.gate import Gate
from gptoss.cli.server.limits import Limits
from gptoss.cli.session.options import SessionModel
from gptoss.cli.startup.loading import load_model

SCRIPTED = Path(__file__).parents[1] / "cli" / "scripted.py"
JSON = {"Content-Type": "application/json"}


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


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    """The official client, of the one on nano."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


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
