"""Generation: what is computed, what is reused, when it ends, what constraints do."""

import pytest
import torch
from generating import generate

from gptoss.model import (
    Constraints,
    ContextFullError,
    DeviceError,
    Forced,
    LocalEngine,
    LogitMask,
    ModelError,
    SamplingParams,
    StopTokens,
)
from gptoss.model.config import GenerationDefaults
from gptoss.model.loading.device import select_device

GREEDY = SamplingParams(temperature=0)
CHUNK = 200


class CountingTransformer:
    """Counts the tokens that pass through the model."""

    def __init__(self, transformer):
        self._transformer = transformer
        self.config = transformer.config
        self.new_cache = transformer.new_cache
        self.ops = transformer.ops
        self.made = None
        self.calls = []

    def step(self, cache):
        return None

    def __call__(self, ids, cache, logits, layer_done=None):
        self.calls.append((len(ids), logits))
        return self._transformer(ids, cache, logits, layer_done)


@pytest.fixture
def counting(transformer):
    return CountingTransformer(transformer)


@pytest.fixture
def engine(counting):
    # float32 keys and values: what is compared with runs that have no cache is then exact.
    return LocalEngine(counting, cache_dtype=torch.float32)


def prompt(n, seed=1):
    return torch.randint(0, 300, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def greedy_by_hand(transformer, ids, n):
    """Without a cache: the whole sequence again for every token."""
    ids = list(ids)
    for _ in range(n):
        ids.append(int(transformer(ids, logits="last").argmax()))
    return ids[-n:]


def test_greedy_is_the_argmax_of_the_whole_sequence(engine, transformer):
    tokens = list(generate(engine, prompt(20), GREEDY.override(max_tokens=12)))
    assert [t.id for t in tokens] == greedy_by_hand(transformer, prompt(20), 12)


def test_logprobs_are_those_of_the_model(engine, transformer):
    token = next(generate(engine, prompt(9), SamplingParams(temperature=0.3, seed=1, top_logprobs=3)))
    expected = torch.log_softmax(transformer(prompt(9), logits="last")[0], -1)
    assert token.logprob == pytest.approx(float(expected[token.id]), abs=1e-3)
    best = torch.topk(expected, 3)
    assert [i for i, _ in token.top] == best.indices.tolist()
    assert [p for _, p in token.top] == pytest.approx(best.values.tolist(), abs=1e-3)


@pytest.fixture
def chunks(monkeypatch):
    """Chunks of which a test's context holds more than one."""
    monkeypatch.setattr("gptoss.model.inference.context.PREFILL_CHUNK", CHUNK)


@pytest.mark.usefixtures("chunks")
def test_long_prompts_are_computed_in_chunks_with_progress(engine, counting):
    ids, seen = prompt(CHUNK + 40), []
    generation = generate(engine, ids, GREEDY, progress=lambda done, total: seen.append((done, total)))
    assert counting.calls == [], "nothing is computed before the first token is asked for"
    next(generation)
    assert counting.calls == [(CHUNK, "none"), (40, "last")]
    layers = counting.config.num_layers
    first = [(CHUNK * done // layers, len(ids)) for done in range(layers + 1)]
    assert seen == first + [(CHUNK + 40 * done // layers, len(ids)) for done in range(1, layers + 1)]


def test_the_same_prompt_again_computes_one_token(engine, counting):
    first = next(generate(engine, prompt(30), GREEDY))
    counting.calls.clear()
    again = generate(engine, prompt(30), GREEDY)
    assert (again.prompt_tokens, again.cached_tokens) == (30, 29)
    assert next(again).id == first.id
    assert counting.calls == [(1, "last")]


def test_a_follow_up_computes_only_what_is_new(engine, counting):
    answer = [t.id for t in generate(engine, prompt(30), GREEDY.override(max_tokens=10))]
    counting.calls.clear()
    follow_up = prompt(30) + answer + prompt(7, seed=2)
    generation = generate(engine, follow_up, GREEDY)
    next(generation)
    # The last token of an answer was sampled but never computed.
    assert generation.cached_tokens == 39
    assert counting.calls == [(8, "last")]


def test_a_prompt_that_departs_earlier_rewinds_and_is_exact(engine, counting, transformer):
    list(generate(engine, prompt(60), GREEDY.override(max_tokens=30)))
    counting.calls.clear()
    departed = prompt(60)[:25] + prompt(40, seed=3)
    tokens = [t.id for t in generate(engine, departed, GREEDY.override(max_tokens=8))]
    assert counting.calls[0] == (40, "last")
    assert tokens == greedy_by_hand(transformer, departed, 8)


@pytest.mark.usefixtures("chunks")
def test_an_interrupted_prefill_leaves_the_engine_usable(engine, counting, transformer):
    list(generate(engine, prompt(40), GREEDY.override(max_tokens=2)))

    def interrupt(done, total):
        if done:
            raise KeyboardInterrupt

    long = prompt(10) + prompt(2 * CHUNK, seed=5)[: CHUNK + 60]
    with pytest.raises(KeyboardInterrupt):
        next(generate(engine, long, GREEDY, progress=interrupt))
    tokens = [t.id for t in generate(engine, prompt(40), GREEDY.override(max_tokens=5))]
    assert tokens == greedy_by_hand(transformer, prompt(40), 5)


def test_an_interrupt_inside_the_model_leaves_the_cache_true(transformer):
    class Interrupted(CountingTransformer):
        armed = False

        def __call__(self, ids, cache, logits, layer_done=None):
            out = super().__call__(ids, cache, logits, layer_done)
            if self.armed:
                cache.rewind(cache.length - len(ids))  # as if it had been broken off before the end
                raise KeyboardInterrupt
            return out

    model = Interrupted(transformer)
    engine = LocalEngine(model)
    generation = generate(engine, prompt(12), GREEDY)
    said = [next(generation).id, next(generation).id]
    model.armed = True
    with pytest.raises(KeyboardInterrupt):
        next(generation)
    model.armed = False
    again = generate(engine, prompt(12) + said, GREEDY.override(max_tokens=3))
    assert again.cached_tokens == 13
    assert [t.id for t in again] == greedy_by_hand(transformer, prompt(12) + said, 3)


def test_it_ends_at_a_stop_token_which_is_yielded(engine, transformer):
    expected = greedy_by_hand(transformer, prompt(20), 6)
    generation = generate(engine, prompt(20), GREEDY, stop={expected[3]})
    cut = expected.index(expected[3])
    assert [t.id for t in generation] == expected[: cut + 1]
    assert generation.finish_reason == "stop"


def test_it_ends_at_max_tokens(engine):
    generation = generate(engine, prompt(5), GREEDY.override(max_tokens=4))
    assert generation.finish_reason is None
    assert len(list(generation)) == 4
    assert (generation.finish_reason, generation.generated_tokens) == ("length", 4)


def test_it_ends_when_the_context_is_full(transformer):
    generation = generate(LocalEngine(transformer, max_context=24), prompt(20), GREEDY)
    assert len(list(generation)) == 4
    assert generation.finish_reason == "context"


@pytest.mark.parametrize(
    ("ids", "error", "says"),
    [
        ([], ModelError, "empty"),
        ([1, 300], ModelError, "300"),
        ([-1], ModelError, "-1"),
        (list(range(24)), ContextFullError, "24"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(transformer, ids, error, says):
    with pytest.raises(error, match=says):
        generate(LocalEngine(transformer, max_context=24), ids)


def test_a_context_larger_than_the_models_is_refused(transformer):
    with pytest.raises(ContextFullError, match="512"):
        LocalEngine(transformer, max_context=513)


def test_the_seed_decides_whatever_the_chunking(transformer, monkeypatch):
    params = SamplingParams(seed=7, max_tokens=20)
    whole = [t.id for t in generate(LocalEngine(transformer), prompt(90), params)]
    monkeypatch.setattr("gptoss.model.inference.context.PREFILL_CHUNK", 13)
    pieces = [t.id for t in generate(LocalEngine(transformer), prompt(90), params)]
    assert whole == pieces
    assert whole != [t.id for t in generate(LocalEngine(transformer), prompt(90), params.override(seed=8))]


def test_the_seed_that_was_chosen_is_told_and_repeats_the_answer(engine):
    generation = generate(engine, prompt(9), SamplingParams(max_tokens=12))
    tokens = [t.id for t in generation]
    again = generate(engine, prompt(9), SamplingParams(max_tokens=12, seed=generation.seed))
    assert [t.id for t in again] == tokens


def test_the_checkpoints_defaults_are_the_engines(transformer):
    engine = LocalEngine(transformer, defaults=GenerationDefaults(temperature=0.0, top_p=0.5, stop_token_ids=(3, 4)))
    assert engine.info.defaults == SamplingParams(temperature=0.0, top_p=0.5)
    assert engine.info.stop_tokens == {3, 4}


class Script:
    """A constraint that plays a list of holds and notes what came."""

    def __init__(self, *holds):
        self.holds = list(holds)
        self.accepted = []

    def next(self):
        return self.holds.pop(0) if self.holds else None

    def accept(self, token_id):
        self.accepted.append(token_id)
        return False


def test_a_constraint_masks_and_forces(engine, transformer):
    script = Script(None, LogitMask.allowing([10, 20], 300), Forced((5, 6, 7)))
    tokens = list(generate(engine, prompt(11), GREEDY.override(max_tokens=7), constraint=script))
    ids = [t.id for t in tokens]
    assert ids[1] in (10, 20)
    assert ids[2:5] == [5, 6, 7]
    assert [t.forced for t in tokens] == [False, False, True, True, True, False, False]
    assert script.accepted == ids
    assert ids[5:] == greedy_by_hand(transformer, prompt(11) + ids[:5], 2)
    # A forced token has the probability that the model gives it where it stands.
    expected = torch.log_softmax(transformer(prompt(11) + ids[:3], logits="last")[0], -1)
    assert tokens[3].logprob == pytest.approx(float(expected[6]), abs=1e-3)


def test_a_forced_stop_token_ends_it(engine):
    tokens = list(generate(engine, prompt(4), GREEDY, constraint=Script(Forced((8, 9, 10))), stop={9}))
    assert [t.id for t in tokens] == [8, 9]


def test_constraints_join():
    both = Constraints(Script(LogitMask.allowing([1, 2, 290], 300)), Script(LogitMask.allowing([2, 290, 5], 300)))
    mask = both.next()
    assert [token for token in range(300) if mask.allows(token)] == [2, 290]
    forced = Constraints(Script(LogitMask.allowing([1], 300)), Script(Forced((4,))))
    assert forced.next() == Forced((4,))
    assert Constraints(Script(), Script()).next() is None
    with pytest.raises(ModelError, match="no token"):
        Constraints(Script(LogitMask.allowing([1], 300)), Script(LogitMask.allowing([2], 300))).next()


def test_constraints_tell_all_even_when_one_is_satisfied():
    one, two = Script(), Script()
    joined = Constraints(one, StopTokens({3}), two)
    assert [joined.accept(2), joined.accept(3)] == [False, True]
    assert one.accepted == two.accepted == [2, 3]


def test_a_constraint_can_end_the_generation(engine):
    generation = generate(engine, prompt(4), GREEDY, constraint=Constraints(StopTokens({7}), Script(Forced((6, 7, 8)))))
    assert [t.id for t in generation] == [6, 7]
    assert generation.finish_reason == "stop"


# What the engine sampled from these seeds before it knew constraints that end a generation or masks in place.
PINNED = [
    (
        {"seed": 1},
        [29, 263, 229, 88, 176, 107, 211, 235, 28, 13, 255, 143, 219, 0, 133, 253, 87, 297, 278, 23, 17, 135, 281, 114],
    ),
    (
        {"seed": 2, "temperature": 0.7, "top_p": 0.9},
        [291, 278, 33, 50, 267, 83, 216, 99, 208, 181, 195, 67, 125, 125, 171, 278, 250, 88, 203, 73, 88, 15, 86, 34],
    ),
    (
        {"seed": 3, "top_k": 20, "min_p": 0.05},
        [
            30,
            178,
            134,
            186,
            224,
            20,
            16,
            187,
            76,
            45,
            291,
            216,
            234,
            67,
            199,
            16,
            224,
            250,
            119,
            242,
            216,
            41,
            216,
            108,
        ],
    ),
    (
        {"temperature": 0.0},
        [142, 172, 259, 93, 257, 259, 24, 181, 259, 132, 23, 87, 23, 34, 97, 74, 119, 45, 89, 75, 91, 233, 86, 237],
    ),
]


@pytest.mark.parametrize(("params", "expected"), PINNED, ids=str)
def test_what_no_constraint_holds_is_sampled_as_ever(transformer, params, expected):
    engine = LocalEngine(transformer, max_context=128)
    sampling = SamplingParams(max_tokens=24, **params)
    assert [t.id for t in generate(engine, [1, 2, 3, 4, 5], sampling)][: len(expected)] == expected
    everything = LogitMask.forbidding([], 300)
    held = generate(engine, [1, 2, 3, 4, 5], sampling, constraint=Script(*[everything] * 24))
    assert [t.id for t in held][: len(expected)] == expected, "a mask that allows everything changes nothing"


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "xpu", "cpu:7"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(DeviceError, match=name):
        select_device(name)
