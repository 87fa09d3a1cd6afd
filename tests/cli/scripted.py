"""An engine that says what a script says, and `gptoss` with that engine in place of a model.

Run as a program it is `gptoss` for tests that need a process of their own:

    python scripted.py SCRIPT.json ask "What is 2 + 2?"

The script is an object: `completions`, the texts with special tokens that the turns are to sample, one a turn; and
optionally `token_delay_s`, `prefill_delay_s`, `load_delay_s`, `loading` (a file to make when loading begins),
`load_until` (a file for which loading waits), `pause` (how many tokens to give before it, and seconds), `after_forced`
(what follows where a constraint forces tokens; without it constraints are not asked), `max_context`, `load_error` (a
class of gptoss.model.errors and its text).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from gptoss.cli.app import run
from gptoss.cli.startup.environment import Environment, LoadRequest
from gptoss.cli.startup.loaded import LoadedModel
from gptoss.harmony import Encoding
from gptoss.model.constraint import Forced, LogitMask
from gptoss.model.errors import ContextFullError, ModelError
from gptoss.model.interface import (
    ContextUsage,
    EngineInfo,
    FinishReason,
    Progress,
    Request,
    SamplingParams,
    Timing,
    Token,
)


class ScriptedGeneration:
    """Yields a completion token by token. `cancel` ends a delay too."""

    def __init__(
        self, engine: ScriptedEngine, request: Request, completion: list[Any], progress: Progress | None
    ) -> None:
        self.constraint = request.constraint if engine.after_forced or engine.obeys else None
        self.engine, self.progress = engine, progress
        self.params = request.params or engine.info.defaults
        self.stop = frozenset() if request.ignore_stop else request.stop | engine.info.stop_tokens
        self.completion = list(completion)
        self.prompt_tokens = len(request.ids)
        self.cached_tokens: int | None = engine.cached_prefix(request.ids)
        self.generated = 0
        self.finish_reason: FinishReason | None = None
        self.seed = 7 if self.params.seed is None else self.params.seed
        self.timing = Timing(prefill_s=0.5, decode_s=2.0)
        self.closed = False
        self.ids = request.ids
        self._cancelled = False
        self._forced_left = 0

    def __iter__(self) -> ScriptedGeneration:
        return self

    def __next__(self) -> Token:
        if self.closed or self.finish_reason is not None:
            raise StopIteration
        if self.generated == 0:
            self.engine.cache = list(self.ids)
            if self.progress is not None:
                self.progress(self.cached_tokens or 0, self.prompt_tokens)
            self._wait(self.engine.prefill_delay_s)
            if self.progress is not None:
                self.progress(self.prompt_tokens, self.prompt_tokens)
        after, seconds = self.engine.pause
        if self.generated == after:
            time.sleep(seconds)  # a token that is too long in coming: not even `cancel` ends this
        self._wait(self.engine.token_delay_s)
        if not self.completion and self.constraint is None:
            raise AssertionError("the script ended before the turn did")
        is_forced = self._obey()
        token = self.completion.pop(0)
        if isinstance(token, BaseException):
            raise token
        is_complete = self.constraint is not None and self.constraint.accept(token)
        self.generated += 1
        self.engine.cache.append(token)
        if token in self.stop or is_complete:
            self.finish_reason = "stop"
        elif self.generated == self.params.max_tokens:
            self.finish_reason = "length"
        elif self.prompt_tokens + self.generated >= self.engine.info.max_context:
            self.finish_reason = "context"
        top = tuple((token + n, -0.5 - n) for n in range(self.params.top_logprobs))
        return Token(token, -0.5, top, is_forced)

    def cancel(self) -> None:
        self._cancelled = True

    def close(self) -> None:
        self.closed = True

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._cancelled and time.monotonic() < end:
            time.sleep(min(0.01, seconds))
        if self._cancelled:
            self.finish_reason = "cancelled"
            raise StopIteration

    def _obey(self) -> bool:
        """Put what the constraint asks for in the place of the script; whether it forces the next token."""
        if self._forced_left:
            self._forced_left -= 1
            return True
        hold = None if self.constraint is None else self.constraint.next()
        if isinstance(hold, Forced):
            self.completion = [*hold.token_ids, *self.engine.after_forced]
            self._forced_left = len(hold.token_ids) - 1
            if not self.engine.obeys:
                self.constraint = None
        elif isinstance(hold, LogitMask) and not (self.completion and hold.allows(self.completion[0])):
            self.completion = [next(i for i in range(self.engine.vocabulary) if hold.allows(i)), *self.completion]
        return isinstance(hold, Forced)


class ScriptedEngine:
    """An engine whose completions are given: lists of token ids, or exceptions to raise in their place.

    It `obeys` constraints, or only what they force (`after_forced`), or does not ask them at all.
    """

    def __init__(
        self,
        completions: Iterable[Iterable[Any]],
        *,
        max_context: int = 4096,
        token_delay_s: float = 0.0,
        prefill_delay_s: float = 0.0,
        pause: tuple[int, float] = (-1, 0),
        defaults: SamplingParams | None = None,
        stop_tokens: Iterable[int] = (),
        after_forced: Iterable[int] = (),
        obeys: bool = False,
        vocabulary: int = 201_088,
    ) -> None:
        self.obeys, self.vocabulary = obeys, vocabulary
        self.info = EngineInfo(max_context, defaults or SamplingParams(), frozenset(stop_tokens))
        self.after_forced = list(after_forced)
        self.completions = [list(completion) for completion in completions]
        self.token_delay_s = token_delay_s
        self.prefill_delay_s = prefill_delay_s
        self.pause = pause
        self.prompts: list[list[int]] = []
        self.params: list[SamplingParams] = []
        self.cache: list[int] = []
        self.retained: list[list[int]] = []
        self.is_closed = False

    @property
    def contexts(self) -> ContextUsage:
        """As if each token took a kilobyte."""
        return ContextUsage(1, 0, 1000 * len(self.cache), 1_000_000_000)

    def retain(self, ids: Sequence[int] = ()) -> None:
        self.retained.append(list(ids))

    def close(self) -> None:
        self.is_closed = True

    def cached_prefix(self, ids: Sequence[int]) -> int:
        count = 0
        for ours, theirs in zip(self.cache, ids[:-1], strict=False):
            if ours != theirs:
                break
            count += 1
        return count

    def generate(self, request: Request, progress: Progress | None = None) -> ScriptedGeneration:
        if not request.ids:
            raise ModelError("the prompt is empty: at least one token is needed")
        if not 0 <= min(request.ids) <= max(request.ids) < self.vocabulary:
            raise ModelError("a token id is not in the vocabulary")
        if len(request.ids) >= self.info.max_context:
            raise ContextFullError(f"{len(request.ids)} tokens do not fit a context of {self.info.max_context}")
        self.prompts.append(list(request.ids))
        self.params.append(request.params or self.info.defaults)
        return ScriptedGeneration(self, request, self.completions.pop(0), progress)


def main() -> int:
    script = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def load(request: LoadRequest) -> LoadedModel:
        if "loading" in script:
            Path(script["loading"]).touch()
        time.sleep(script.get("load_delay_s", 0))
        while "load_until" in script and not Path(script["load_until"]).exists():
            time.sleep(0.01)
        if "load_error" in script:
            from gptoss.model import errors

            kind, text = script["load_error"]
            raise getattr(errors, kind)(text)
        encoding = Encoding.o200k_harmony()
        engine = ScriptedEngine(
            [encoding.encode_with_special(text) for text in script["completions"]],
            max_context=request.settings.ctx or script.get("max_context", 4096),
            token_delay_s=script.get("token_delay_s", 0),
            prefill_delay_s=script.get("prefill_delay_s", 0),
            pause=script.get("pause", (-1, 0)),
            after_forced=encoding.encode_with_special(script.get("after_forced", "")),
        )
        return LoadedModel(request.model, engine, encoding)

    environment = Environment(load_model=load, today=lambda: date(2026, 3, 14))
    return run(sys.argv[2:], environment)


if __name__ == "__main__":
    sys.exit(main())
