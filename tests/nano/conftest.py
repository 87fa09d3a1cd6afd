"""The shipped checkpoint, loaded once."""

from pathlib import Path

import pytest
from loaded import load_options

import gptoss.model.nano
from gptoss.model.nano.evaluate import Evaluator
from gptoss.model.nano.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The folder of the built-in model."""
    return Path(gptoss.model.nano.__file__).parent / "checkpoint"


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path) -> Tokenizer:
    """Its tokenizer, as the training program has it."""
    return Tokenizer.load(checkpoint / "tokenizer.json")


@pytest.fixture(scope="session")
def evaluator(checkpoint: Path) -> Evaluator:
    """The model itself, on the CPU."""
    return Evaluator(checkpoint, load_options())
