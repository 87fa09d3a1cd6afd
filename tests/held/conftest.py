"""Engines of random weights over real vocabularies: the most hostile sampling there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gptoss.model.nano
from gptoss.cli.session.options import SessionModel, SessionRules
from gptoss.cli.session.session import Session
from gptoss.cli.session.transcript import Transcript
from gptoss.harmony import Conversation, Encoding, Message, SystemContent
from gptoss.model import LocalEngine, SamplingParams
from gptoss.model.architecture.transformer import Transformer

SPECIALS = ("return", "constrain", "endoftext", "channel", "start", "end", "message", "call")


@pytest.fixture(scope="session")
def o200k() -> Encoding:
    return Encoding.o200k_harmony()


@pytest.fixture(scope="session")
def nano() -> Encoding:
    return Encoding.from_tokenizer_json(Path(gptoss.model.nano.__file__).parent / "checkpoint" / "tokenizer.json")


@pytest.fixture(scope="session")
def byte_encoding(make_byte_tokenizer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Encoding:
    """Single bytes and the special tokens: random weights come to an end with it."""
    folder = tmp_path_factory.mktemp("bytes")
    return Encoding.from_tokenizer_json(make_byte_tokenizer(folder, [f"<|{name}|>" for name in SPECIALS]))


@pytest.fixture(scope="session")
def random_engine(make_transformer: Callable[..., Transformer]) -> Callable[..., LocalEngine]:
    """`random_engine(encoding, seed)`: an engine of random weights over this vocabulary."""
    made: dict[Any, LocalEngine] = {}

    def make(encoding: Encoding, seed: int = 0) -> LocalEngine:
        key = (encoding.name, seed)
        if key not in made:
            transformer = make_transformer(seed, num_layers=1, vocabulary=encoding.vocab_size)
            made[key] = LocalEngine(transformer, max_context=512)
        return made[key]

    return make


@pytest.fixture(scope="session")
def open_random_session(random_engine: Callable[..., LocalEngine]) -> Callable[..., Session]:
    """`open_random_session(encoding, conversation, seed, max_tokens, **of SessionRules)` at temperature 1."""
    models: dict[Any, SessionModel] = {}

    def make(
        encoding: Encoding,
        conversation: Conversation | None = None,
        *,
        seed: int = 0,
        max_tokens: int = 200,
        skip_reasoning: bool = False,
        **rules: Any,
    ) -> Session:
        conversation = conversation or Conversation.of(Message.system(SystemContent(None, None, None, None, None)))
        params = SamplingParams(temperature=1.0, seed=seed, max_tokens=max_tokens)
        key = (encoding.name, seed % 4)
        if key not in models:
            models[key] = SessionModel("random", random_engine(encoding, seed % 4), encoding)
        transcript = Transcript.read(conversation, skip_reasoning=skip_reasoning)
        return Session(models[key], transcript, SessionRules(params=params, **rules))

    return make
