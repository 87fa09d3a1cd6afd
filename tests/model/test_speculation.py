"""Guessing tokens changes when they are computed, never which ones come."""

import pytest
import torch
from generating import generate as begin

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.constraint import Forced
from gptoss.model.inference.engine import LocalEngine
from gptoss.model.inference.speculation import PromptLookup
from gptoss.model.interface import SamplingParams

cpu_ops = pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)


class Counting(Transformer):
    """Counts passes through the model."""

    passes = 0

    def __call__(self, *arguments):
        self.passes += 1
        return super().__call__(*arguments)


@pytest.fixture
def model(make_transformer):
    reference = make_transformer()
    return Counting(reference.config, reference.weights, cpu_ops.CpuOps())


class Repeats:
    """Lets a cycle of tokens come, with one of its own choice now and then."""

    def __init__(self, cycle, every=20):
        self.cycle, self.every, self.count = cycle, every, 0

    def next(self):
        if self.count % self.every == self.every - 1:
            return None
        return Forced((self.cycle[self.count % len(self.cycle)],))

    def accept(self, token):
        self.count += 1
        return False


def generate(model, foreseeing, params, constraint=None, prompt=tuple(range(5, 40)), **limits):
    engine = LocalEngine(model, **limits)
    model.ops.identical_tokens = 4 if foreseeing else 1
    generation = begin(engine, list(prompt), params, constraint)
    before = model.passes
    return list(generation), generation, model.passes - before


@pytest.mark.parametrize("params", [SamplingParams(temperature=0), SamplingParams(seed=3, top_logprobs=2)])
def test_what_comes_is_the_same_to_the_bit_and_takes_fewer_passes(model, params):
    params = params.override(max_tokens=160)
    plain, alone, passes = generate(model, False, params, Repeats([11, 12, 13, 14, 15]))
    foreseen, ahead, fewer = generate(model, True, params, Repeats([11, 12, 13, 14, 15]))
    assert foreseen == plain  # ids, log probabilities and alternatives
    assert ahead.finish_reason == alone.finish_reason == "length"
    assert (alone.drafted_tokens, passes) == (0, 160)
    assert ahead.drafted_tokens > 20
    assert fewer == 160 - ahead.drafted_tokens


def test_the_distribution_is_that_of_one_token_at_a_time(model, monkeypatch):
    """Over many seeds, with guesses of which some are right and some wrong: the same tokens come for each seed."""
    used, passes = 0, 0
    for seed in range(25):
        params = SamplingParams(temperature=0.7, top_k=3, seed=seed, max_tokens=24)
        plain, _, _ = generate(model, False, params)
        ids = [token.id for token in plain]

        def guess(lookup, ids=ids, seed=seed):
            come = len(lookup._ids) - 35
            next_ones = ids[come : come + 3]
            wrong = (come + seed) % 4  # 3 is none of them
            return [299 if place == wrong else token for place, token in enumerate(next_ones)]

        with monkeypatch.context() as patch:
            patch.setattr(PromptLookup, "guess", guess)
            foreseen, ahead, needed = generate(model, True, params)
        assert foreseen == plain
        used, passes = used + ahead.drafted_tokens, passes + needed
    assert used > 25 * 6
    assert passes == 25 * 24 - used


def test_what_a_constraint_forces_is_computed_together(model):
    class Header:
        tokens = (21, 22, 23, 24, 25, 26)
        done = 0

        def next(self):
            return Forced(self.tokens[self.done :]) if self.done < 6 else None

        def accept(self, token):
            self.done += 1
            return False

    params = SamplingParams(temperature=0, max_tokens=8)
    plain, _, passes = generate(model, False, params, Header())
    together, generation, fewer = generate(model, True, params, Header())
    assert together == plain
    assert [token.id for token in together[:6]] == list(Header.tokens)
    assert (passes, fewer) == (8, 8 - generation.drafted_tokens)
    assert generation.drafted_tokens >= 4


def test_the_context_is_filled_to_its_last_token(model):
    plain, alone, _ = generate(model, False, SamplingParams(temperature=0), Repeats([1, 2, 3]), max_context=100)
    foreseen, ahead, _ = generate(model, True, SamplingParams(temperature=0), Repeats([1, 2, 3]), max_context=100)
    assert ahead.finish_reason == alone.finish_reason == "context"
    assert foreseen == plain
    assert len(plain) == 100 - 35


def test_a_generation_given_up_in_the_middle_leaves_the_cache_true(model):
    engine = LocalEngine(model)
    params = SamplingParams(temperature=0, max_tokens=90)
    generation = begin(engine, list(range(5, 40)), params, Repeats([11, 12, 13]))
    said = [next(generation).id for _ in range(61)]
    generation.close()
    prompt = [*range(5, 40), *said, 77]
    after = begin(engine, prompt, params)
    assert after.cached_tokens >= len(prompt) - 2
    fresh = begin(LocalEngine(model), prompt, params)
    assert [t.id for t in after] == [t.id for t in fresh]


def told(lookup, tokens):
    for token in tokens:
        lookup.append(token)
    return lookup.guess()


def test_nothing_is_guessed_of_what_was_never_said():
    assert PromptLookup([1, 2, 3, 4], most=3).guess() == []
    assert PromptLookup([], most=3).guess() == []
    assert told(PromptLookup([1, 2], most=3), [5, 6, 7, 8]) == []


def test_guesses_are_used_once_they_have_shown_to_be_right():
    lookup = PromptLookup(list(range(100)), most=3)
    assert told(lookup, [10, 11, 12]) == []  # it has yet to be seen whether this is a quotation
    assert told(lookup, range(13, 40)) == [40, 41, 42]
    assert told(lookup, [200, 201, 202]) == []
    assert told(lookup, range(50, 53)) == [53, 54]  # a little less sure of itself


def test_guesses_that_were_wrong_are_given_up():
    lookup = PromptLookup(list(range(100)), most=3)
    assert told(lookup, range(10, 60)) != []
    for wrong in range(30):
        told(lookup, [20, 21, 22, 1000 + wrong])
    assert told(lookup, [20, 21, 22]) == []


def test_the_latest_place_counts():
    lookup = PromptLookup([1, 2, 3, 4, 9, 1, 2, 3, 5, 9], most=1)
    lookup._right = 1.0
    assert told(lookup, [1, 2, 3]) == [5]


def test_none_are_guessed_where_none_may_be():
    lookup = PromptLookup(list(range(100)), most=0)
    assert told(lookup, range(10, 40)) == []


@pytest.mark.parametrize(("right", "count"), [(0.3, 0), (0.5, 0), (0.6, 1), (0.9, 3), (1.0, 3)])
def test_as_many_are_guessed_as_pay(right, count):
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 1, 2, 3], most=3)
    lookup._right = right
    assert len(lookup.guess()) == count


def test_logits_of_guesses_are_not_kept_for_another_token(model):
    """A wrong guess is computed, and thrown away: the positions after it are computed again."""
    ids = torch.arange(5, 40).tolist()
    engine = LocalEngine(model)
    generation = begin(engine, ids, SamplingParams(temperature=0, max_tokens=4))
    next(generation)
    run, context = generation._run, generation._run._context
    run._logits_after(context, 60, [61, 62, 63])
    assert [token for token, _ in run._ahead] == [61, 62]  # two more may come after the next
    context._ids[-1] = 999
    logits = run._logits_after(context, 62, [])
    assert context._ids[-1] == 62
    assert context._cache.length == len(ids) + 1
    fresh = model.new_cache(len(ids) + 1)
    with torch.inference_mode():
        model(ids, fresh, "none")
        assert torch.equal(logits, model([62], fresh, "last")[0])
