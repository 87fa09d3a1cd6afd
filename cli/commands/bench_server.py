"""`gptoss bench -m URL`: time to the first token and speed of a model on a server, alone and under load."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.text import counted, one_line
from gptoss.cli.startup.opening import load
from gptoss.cli.startup.options import Invocation
from gptoss.cli.terminal.status_line import StatusLine
from gptoss.cli.terminal.ticker import Ticker
from gptoss.model.interface import Request, SamplingParams

if TYPE_CHECKING:
    from gptoss.cli.startup.loaded import LoadedModel

_LABEL_WIDTH = 12


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        tokens: how many came.
        first_s: seconds until the first one.
        total_s: seconds until the last one.
    """

    tokens: int
    first_s: float
    total_s: float


@dataclass(frozen=True)
class ServerRun:
    """The measurement of a server.

    Attributes:
        model: as it was named.
        prompt_tokens: length of each prompt; no two begin alike.
        alone: answers one after the other.
        together: answers that were asked for at once.
        together_s: seconds until the last of these was there.
    """

    model: str
    prompt_tokens: int
    alone: list[Answer]
    together: list[Answer]
    together_s: float

    @property
    def first_s(self) -> float:
        """Median of the seconds until the first token."""
        return statistics.median(answer.first_s for answer in self.alone)

    @property
    def decode(self) -> float:
        """Median of the tokens a second after the first one."""
        return statistics.median(
            (answer.tokens - 1) / max(answer.total_s - answer.first_s, 1e-9) for answer in self.alone
        )

    @property
    def throughput(self) -> float:
        """Tokens a second of all answers together, prompts included in the time."""
        return sum(answer.tokens for answer in self.together) / self.together_s

    def as_json(self) -> str:
        """Return one JSON object."""
        return json.dumps(
            {
                "model": self.model,
                "prompt_tokens": self.prompt_tokens,
                "gen_tokens": self.alone[0].tokens,
                "first_token_s": [round(answer.first_s, 6) for answer in self.alone],
                "decode_tokens_per_s": round(self.decode, 3),
                "parallel": len(self.together),
                "throughput_tokens_per_s": round(self.throughput, 3) if self.together else None,
            },
            ensure_ascii=False,
        )

    def as_text(self) -> str:
        """Return a table."""
        rows = [
            ("model", one_line(self.model)),
            ("first token", f"{self.first_s:.3f} s after {counted(self.prompt_tokens, 'token')} (median)"),
            ("decode", f"{self.decode:.1f} tokens/s (median of {counted(len(self.alone), 'answer')})"),
        ]
        if self.together:
            rows.append(("together", f"{self.throughput:.1f} tokens/s of {len(self.together)} answers at once"))
        return "".join(f"{label:{_LABEL_WIDTH}} {value}\n" for label, value in rows)


def measure_server(
    invocation: Invocation,
    status_line: StatusLine,
    prompt_tokens: int,
    gen_tokens: int,
    repetitions: int,
    parallel: int,
) -> ServerRun:
    """Ask for answers of random prompts, first one after the other, then `parallel` at once.

    Raises:
        ModelError: the server cannot be reached or fails.
        UsageError: it cannot hold so many tokens.
    """
    model = load(invocation, invocation.settings.model, status_line)
    context = model.engine.info.max_context
    if prompt_tokens + gen_tokens > context:
        raise UsageError(f"{prompt_tokens + gen_tokens:,} tokens of prompt and answer: the server holds {context:,}")
    draw = random.Random(invocation.settings.seed)
    ids = sorted(model.encoding.ordinary_tokens)
    prompts = [tuple(draw.choices(ids, k=prompt_tokens)) for _ in range(1 + repetitions + parallel)]
    with Ticker(status_line, f"measuring {one_line(model.name)}"):
        _ask(model, prompts[0], 1)  # the first request may compile kernels
        alone = [_ask(model, prompt, gen_tokens) for prompt in prompts[1 : repetitions + 1]]
        begin = time.perf_counter()
        together = _ask_at_once(model, prompts[repetitions + 1 :], gen_tokens)
        together_s = time.perf_counter() - begin
    return ServerRun(model.name, prompt_tokens, alone, together, together_s)


def _ask(model: LoadedModel, prompt: tuple[int, ...], tokens: int) -> Answer:
    params = SamplingParams(temperature=0, max_tokens=tokens)
    begin = time.perf_counter()
    generation = model.engine.generate(Request(prompt, params, ignore_stop=True))
    next(generation)
    first_s = time.perf_counter() - begin
    count = 1 + sum(1 for _ in generation)
    return Answer(count, first_s, time.perf_counter() - begin)


def _ask_at_once(model: LoadedModel, prompts: list[tuple[int, ...]], tokens: int) -> list[Answer]:
    answers: list[Answer] = []
    errors: list[Exception] = []

    def ask(prompt: tuple[int, ...]) -> None:
        try:
            answers.append(_ask(model, prompt, tokens))
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that was asked
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers
