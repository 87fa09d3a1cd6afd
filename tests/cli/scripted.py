"""An engine that says what a script says, and `gptoss` with that engine in place of a model.

Run as a program it is `gptoss` for tests that need a process of their own:

    python scripted.py SCRIPT.json ask "What is 2 + 2?"

The script is an object: `completions`, the texts with special tokens that the turns are to sample, one a turn; and
optionally `token_delay_s`, `prefill_delay_s`, `load_delay_s`, `loading` (a file to make when loading begins),
`pause` (how many tokens to give before it, and seconds), `after_forced` (what follows where a constraint forces tokens;
without it constraints are not asked), `max_context`, `load_error` (a class of gptoss.model.errors
and its text).
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from gptoss.cli.app import run
from gptoss.cli.startup.environment import Environment, LoadedModel, LoadRequest
from gptoss.harmony import Encoding
from gptoss.model.constraint import Forced


@dataclass(frozen=True)
class Params:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    top_logprobs: int = 0

    def override(self, **changes: Any) -> Params:
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True)
class ScriptedToken:
    id: int
    logprob: float = -0.5
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class ScriptedTiming:
    prefill_s: float = 0.5
    decode_s: float = 2.0


class ScriptedGeneration:
    def __init__(self, engine, ids, params, completion, stop, progress, constraint=None) -> None:
        self.constraint = constraint if engine.after_forced else None
        self.engine, self.params, self.stop, self.progress = engine, params, stop, progress
        self.completion = list(completion)
        self.prompt_tokens = len(ids)
        self.cached_tokens = engine.cached_prefix(ids)
        self.generated = 0
        self.finish_reason = None
        self.seed = 7 if params.seed is None else params.seed
        self.timing = ScriptedTiming()
        self.closed = False
        self.ids = ids

    def __iter__(self):
        return self

    def __next__(self):
        if self.finish_reason is not None or self.closed:
            raise StopIteration
        if self.generated == 0:
            self.engine.cache = list(self.ids)
            if self.progress is not None:
                self.progress(self.cached_tokens, self.prompt_tokens)
                time.sleep(self.engine.prefill_delay_s)
                self.progress(self.prompt_tokens, self.prompt_tokens)
        after, seconds = self.engine.pause
        time.sleep(seconds if self.generated == after else self.engine.token_delay_s)
        if not self.completion:
            raise AssertionError("the script ended before the turn did")
        self._obey()
        token = self.completion.pop(0)
        if self.constraint is not None:
            self.constraint.accept(token)
        if isinstance(token, BaseException):
            raise token
        self.generated += 1
        self.engine.cache.append(token)
        if token in self.stop:
            self.finish_reason = "stop"
        elif self.generated == self.params.max_tokens:
            self.finish_reason = "length"
        elif self.prompt_tokens + self.generated >= self.engine.max_context:
            self.finish_reason = "context"
        return ScriptedToken(token, top=tuple((token + n, -0.5 - n) for n in range(self.params.top_logprobs)))

    def _obey(self) -> None:
        hold = None if self.constraint is None else self.constraint.next()
        if isinstance(hold, Forced):
            self.completion = [*hold.token_ids, *self.engine.after_forced]
            self.constraint = None

    def close(self) -> None:
        self.closed = True


class ScriptedEngine:
    def __init__(
        self,
        completions,
        *,
        max_context=4096,
        token_delay_s=0.0,
        prefill_delay_s=0.0,
        pause=(-1, 0),
        defaults=None,
        after_forced=(),
    ) -> None:
        self.after_forced = list(after_forced)
        self.completions = [list(completion) for completion in completions]
        self.max_context = max_context
        self.token_delay_s = token_delay_s
        self.prefill_delay_s = prefill_delay_s
        self.pause = pause
        self.defaults = defaults or Params()
        self.stop_tokens = frozenset()
        self.prompts: list[list[int]] = []
        self.params: list[Params] = []
        self.cache: list[int] = []
        self.kept: list[list[int]] = []

    def keep_weights(self):
        pass

    def keep(self, ids):
        self.kept.append(list(ids))

    def cached_prefix(self, ids):
        count = 0
        for ours, theirs in zip(self.cache, ids[:-1], strict=False):
            if ours != theirs:
                break
            count += 1
        return count

    def generate(self, ids, params=None, constraint=None, stop=(), progress=None):
        if len(ids) >= self.max_context:
            from gptoss.model.errors import ContextFullError

            raise ContextFullError(f"{len(ids)} tokens do not fit a context of {self.max_context}")
        self.prompts.append(list(ids))
        self.params.append(params or self.defaults)
        return ScriptedGeneration(
            self, list(ids), params or self.defaults, self.completions.pop(0), frozenset(stop), progress, constraint
        )


def main() -> int:
    script = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def load(request: LoadRequest) -> LoadedModel:
        if "loading" in script:
            Path(script["loading"]).touch()
        time.sleep(script.get("load_delay_s", 0))
        if "load_error" in script:
            from gptoss.model import errors

            kind, text = script["load_error"]
            raise getattr(errors, kind)(text)
        encoding = Encoding.o200k_harmony()
        engine = ScriptedEngine(
            [encoding.encode_with_special(text) for text in script["completions"]],
            max_context=request.ctx or script.get("max_context", 4096),
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
