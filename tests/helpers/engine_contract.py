"""The contract of `gptoss.model.interface.Engine`, held against every engine.

A subclass of `EngineContract` has a fixture `subject`, a `Subject`: an engine and what is known of it. Nothing here
assumes how an engine computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gptoss.model.errors import ContextFullError, ModelError
from gptoss.model.interface import Engine, Generation, Request, SamplingParams

GREEDY = SamplingParams(temperature=0.0)


@dataclass
class Subject:
    """An engine under test.

    Attributes:
        engine: its context holds at least 64 tokens.
        prompt: whose greedy continuation is known.
        greedy: that continuation, at least 8 tokens, without the engine's own stop tokens, none of them twice in the
            first 8.
        vocabulary: the number of token ids.
        make: makes an engine like it, with stop tokens or a context length of its own.
        during_prefill: a prompt whose prefill takes so long that another thread can act in it.
    """

    engine: Engine
    prompt: tuple[int, ...]
    greedy: tuple[int, ...]
    vocabulary: int
    make: Callable[..., Engine]
    during_prefill: tuple[int, ...]


class Force:
    """A constraint that forces tokens, then masks all but one, and is complete with the last."""

    def __init__(self, forced: tuple[int, ...], then: int, vocabulary: int) -> None:
        self.accepted: list[int] = []
        self._forced, self._then, self._vocabulary = forced, then, vocabulary

    def next(self) -> Any:
        from gptoss.model import constraint

        if not self.accepted:
            return constraint.Forced(self._forced)
        return constraint.LogitMask.allowing([self._then], self._vocabulary)

    def forced(self) -> Any:
        return None if self.accepted else self.next()

    def allows(self, token_id: int) -> bool:
        return token_id == self._then

    def accept(self, token_id: int) -> bool:
        self.accepted.append(token_id)
        return token_id == self._then

    def describe(self) -> None:
        return None


def ids_of(generation: Generation) -> list[int]:
    return [token.id for token in generation]


Begin = Callable[..., Generation]


class EngineContract:
    """The tests; collected where a subclass begins with Test."""

    @pytest.fixture
    def begin(self, subject: Subject) -> Begin:
        def begin(params: SamplingParams = GREEDY, **fields: Any) -> Generation:
            progress = fields.pop("progress", None)
            values: dict[str, Any] = {"ids": subject.prompt, "params": params} | fields
            return subject.engine.generate(Request(**values), progress)

        return begin

    def test_goes_on_greedily(self, subject: Subject, begin: Begin) -> None:
        generation = begin(replace(GREEDY, max_tokens=8))
        assert ids_of(generation) == list(subject.greedy[:8])
        assert generation.finish_reason == "length"
        assert generation.prompt_tokens == len(subject.prompt)
        assert generation.cached_tokens is not None
        assert next(generation, None) is None

    def test_ends_at_a_stop_token_of_the_request_and_yields_it(self, subject: Subject, begin: Begin) -> None:
        generation = begin(stop=frozenset({subject.greedy[3]}))
        assert ids_of(generation) == list(subject.greedy[:4])
        assert generation.finish_reason == "stop"

    def test_ends_at_its_own_stop_tokens_without_being_told(self, subject: Subject) -> None:
        engine = subject.make(stop_tokens=[subject.greedy[2]])
        assert engine.info.stop_tokens == {subject.greedy[2]}
        generation = engine.generate(Request(subject.prompt, GREEDY))
        assert ids_of(generation) == list(subject.greedy[:3])
        assert generation.finish_reason == "stop"
        beyond = engine.generate(Request(subject.prompt, replace(GREEDY, max_tokens=6), ignore_stop=True))
        assert ids_of(beyond) == list(subject.greedy[:6])

    def test_ends_when_the_context_is_full(self, subject: Subject) -> None:
        engine = subject.make(max_context=len(subject.prompt) + 4)
        generation = engine.generate(Request(subject.prompt, GREEDY))
        assert ids_of(generation) == list(subject.greedy[:4])
        assert generation.finish_reason == "context"

    def test_refuses_prompts_that_cannot_be(self, subject: Subject) -> None:
        engine = subject.make(max_context=len(subject.prompt))
        with pytest.raises(ContextFullError):
            engine.generate(Request(subject.prompt, GREEDY))
        for ids in ((), (subject.vocabulary,), (-1,)):
            with pytest.raises(ModelError):
                subject.engine.generate(Request(ids, GREEDY))

    def test_a_seed_repeats_and_is_told(self, begin: Begin) -> None:
        first = begin(SamplingParams(max_tokens=6))
        ids = ids_of(first)
        assert ids_of(begin(SamplingParams(max_tokens=6, seed=first.seed))) == ids
        assert begin(SamplingParams(seed=5)).seed == 5

    def test_progress_grows_to_the_length_of_the_prompt(self, subject: Subject, begin: Begin) -> None:
        seen: list[tuple[int, int]] = []
        next(begin(progress=lambda done, total: seen.append((done, total))))
        done = [each for each, _ in seen]
        assert done == sorted(done)
        assert done[-1] == len(subject.prompt)
        assert {total for _, total in seen} == {len(subject.prompt)}

    def test_an_earlier_prompt_is_cached(self, subject: Subject, begin: Begin) -> None:
        said = ids_of(begin(replace(GREEDY, max_tokens=6)))
        follow_up = begin(replace(GREEDY, max_tokens=1), ids=(*subject.prompt, *said, said[0]))
        assert len(list(follow_up)) == 1
        assert follow_up.cached_tokens is not None
        assert len(subject.prompt) < follow_up.cached_tokens <= len(subject.prompt) + len(said)

    def test_cancelled_before_it_began(self, begin: Begin) -> None:
        generation = begin()
        generation.cancel()
        assert ids_of(generation) == []
        assert generation.finish_reason == "cancelled"
        generation.cancel()

    def test_cancelled_in_the_prefill_from_another_thread(self, subject: Subject, begin: Begin) -> None:
        reading = threading.Event()
        generation = begin(ids=subject.during_prefill, progress=lambda done, total: reading.set())

        def cancel() -> None:
            assert reading.wait(10)
            generation.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        assert ids_of(generation) == []
        thread.join()
        assert generation.finish_reason == "cancelled"
        assert ids_of(begin(replace(GREEDY, max_tokens=4))) == list(subject.greedy[:4])

    def test_cancelled_between_tokens(self, subject: Subject, begin: Begin) -> None:
        generation = begin()
        said = [next(generation).id, next(generation).id]
        generation.cancel()
        assert ids_of(generation) == []
        assert (said, generation.finish_reason) == (list(subject.greedy[:2]), "cancelled")

    def test_cancelled_after_its_end_changes_nothing(self, begin: Begin) -> None:
        generation = begin(replace(GREEDY, max_tokens=1))
        next(generation)
        generation.cancel()
        assert next(generation, None) is None
        assert generation.finish_reason == "length"

    def test_closing_is_idempotent_and_ends_it(self, subject: Subject, begin: Begin) -> None:
        generation = begin()
        next(generation)
        generation.close()
        generation.close()
        assert next(generation, None) is None
        assert ids_of(begin(replace(GREEDY, max_tokens=3))) == list(subject.greedy[:3])

    def test_two_at_once_do_not_disturb_each_other(self, subject: Subject, begin: Begin) -> None:
        one, two = begin(replace(GREEDY, max_tokens=6)), begin(SamplingParams(seed=3, max_tokens=6))
        pairs = [(next(one).id, next(two).id) for _ in range(6)]
        assert [first for first, _ in pairs] == list(subject.greedy[:6])
        assert [second for _, second in pairs] == ids_of(begin(SamplingParams(seed=3, max_tokens=6)))

    def test_obeys_a_constraint_token_by_token(self, subject: Subject, begin: Begin) -> None:
        if subject.engine.info.capabilities.constraints != "stepwise":
            pytest.skip("this engine takes described constraints only")
        forced = subject.greedy[5:7]
        constraint = Force(forced, subject.greedy[0], subject.vocabulary)
        generation = begin(constraint=constraint)
        tokens = list(generation)
        assert [token.id for token in tokens] == [*forced, subject.greedy[0]]
        assert [token.forced for token in tokens] == [True, True, False]
        assert constraint.accepted == [*forced, subject.greedy[0]]
        assert generation.finish_reason == "stop"

    def test_tells_the_likeliest_tokens(self, subject: Subject, begin: Begin) -> None:
        token = next(begin(replace(GREEDY, top_logprobs=2)))
        assert len(token.top) == 2
        assert token.top[0][0] == subject.greedy[0]
        assert token.logprob <= 0

    def test_says_what_memory_its_caches_take_or_that_it_does_not_know(self, subject: Subject, begin: Begin) -> None:
        before = subject.engine.contexts
        list(begin(replace(GREEDY, max_tokens=4)))
        after = subject.engine.contexts
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert after.nbytes > before.nbytes
            assert (after.contexts, after.busy) >= (1, 0)

    def test_retains_and_closes(self, subject: Subject) -> None:
        engine = subject.make()
        next(engine.generate(Request(subject.prompt, GREEDY)))
        engine.retain(subject.prompt)
        engine.retain()
        engine.close()
        engine.close()
