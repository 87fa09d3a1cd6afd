"""nano behind a server that speaks vLLM's completions, and `gptoss` in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import llguidance
import pytest
import torch
from completions_server import CompletionsServer
from loaded import loaded_engine

import gptoss.model.nano
from gptoss.cli.app import run
from gptoss.cli.constraints.grammars import llguidance_tokenizer
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.lazy_loading import find_model, load_model
from gptoss.harmony import Encoding
from gptoss.model import LocalEngine
from gptoss.model.constraint import LogitMask

FOLDER = Path(gptoss.model.nano.__file__).parent / "checkpoint"


class _Lark:
    """A server's side of a grammar."""

    def __init__(self, grammar: str, tokenizer: llguidance.LLTokenizer, vocab_size: int) -> None:
        self._matcher = llguidance.LLMatcher(tokenizer, f"%llguidance {{}}\n{grammar}", log_level=0)
        assert not self._matcher.is_error(), self._matcher.get_error()
        self._bits = torch.empty(-(-vocab_size // 32), dtype=torch.int32)

    def next(self) -> LogitMask:
        self._matcher.unsafe_compute_mask_ptr(self._bits.data_ptr(), self._bits.numel() * 4)
        return LogitMask(self._bits)

    def accept(self, token_id: int) -> bool:
        self._matcher.consume_token(token_id)
        return self._matcher.is_stopped()

    def describe(self) -> None:
        return None


@pytest.fixture(scope="session")
def encoding() -> Encoding:
    return Encoding.from_tokenizer_json(Path(FOLDER) / "tokenizer.json")


@pytest.fixture(scope="session")
def local() -> LocalEngine:
    return loaded_engine(FOLDER)


@pytest.fixture
def server(local: LocalEngine, encoding: Encoding) -> Iterator[CompletionsServer]:
    tokenizer = llguidance_tokenizer(encoding)
    with CompletionsServer(local, constrain=lambda text: _Lark(text, tokenizer, encoding.vocab_size)) as server:
        yield server


@dataclass
class Result:
    """What one run of `gptoss` did."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def gptoss_run(tmp_path: Path) -> Callable[..., Result]:
    """Run a command line in this process, with a home of its own."""

    def invoke(*arguments: str, stdin: str = "", **variables: str) -> Result:
        given, out, err = io.BytesIO(stdin.encode()), io.BytesIO(), io.BytesIO()
        streams = [io.TextIOWrapper(data, "utf-8", write_through=True) for data in (given, out, err)]
        home = {"GPTOSS_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "hub")}
        environment = Environment(
            load_model,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            variables=home | variables,
            find_model=find_model,
        )
        return Result(run(arguments, environment), out.getvalue().decode(), err.getvalue().decode())

    return invoke
