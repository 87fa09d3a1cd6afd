"""Several generations over one engine: whose turn it is, which context each gets, and how much memory they take."""

import threading
import time

import pytest
import torch
from generating import generate

from gptoss.model import EngineBusyError, Forced, KVCache, LocalEngine, LogitMask, SamplingParams
from gptoss.model.inference import contexts

GREEDY = SamplingParams(temperature=0.0)
CHUNK = 16


def prompt(n, seed=1):
    return torch.randint(0, 300, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(params=["reference", "cpu"])
def model(request, make_transformer, monkeypatch):
    monkeypatch.setattr("gptoss.model.inference.context.PREFILL_CHUNK", CHUNK)
    transformer = make_transformer(num_layers=2)
    if request.param == "cpu":
        transformer = type(transformer)(transformer.config, transformer.weights, cpu_ops())
    return transformer


def cpu_ops():
    from gptoss.model.ops.cpu import CpuOps

    return CpuOps()


@pytest.fixture
def small(make_transformer, monkeypatch):
    monkeypatch.setattr("gptoss.model.inference.context.PREFILL_CHUNK", CHUNK)
    return make_transformer(num_layers=2)


class Recording:
    """A transformer that notes which prompt each pass belongs to, by its first token."""

    def __init__(self, transformer, delay_s=0.0):
        self._transformer, self._delay_s = transformer, delay_s
        self.passes: list[int] = []

    def __getattr__(self, name):
        return getattr(self._transformer, name)

    def __call__(self, ids, cache, logits, layer_done=None):
        self.passes.append(len(ids))
        time.sleep(self._delay_s)
        return self._transformer(ids, cache, logits, layer_done)


class Mixed:
    """A constraint that masks, forces and leaves free, by turns."""

    def __init__(self):
        self.count = 0

    def next(self):
        return (None, LogitMask.allowing(range(0, 300, 3), 300), Forced((7, 8)))[self.count % 3]

    def accept(self, token_id):
        self.count += 1
        return False

    def describe(self):
        return None


REQUESTS = [
    (prompt(40), GREEDY.override(max_tokens=30), False),
    (prompt(70, seed=2), SamplingParams(seed=5, max_tokens=30), False),
    (prompt(9, seed=3), SamplingParams(seed=6, temperature=0.7, top_p=0.9, max_tokens=30), True),
    (prompt(20, seed=4) * 3, GREEDY.override(max_tokens=30), True),  # repeats itself: some tokens come as drafts
]


def begin(engine, number):
    ids, params, is_held = REQUESTS[number]
    return generate(engine, ids, params, Mixed() if is_held else None)


def tokens_of(generation):
    return [(token.id, token.logprob) for token in generation]


def alone(model):
    return [tokens_of(begin(LocalEngine(model), number)) for number in range(len(REQUESTS))]


def test_round_robin_in_one_thread_equals_each_alone_to_the_bit(model):
    engine = LocalEngine(model)
    generations = [begin(engine, number) for number in range(len(REQUESTS))]
    said = [[] for _ in generations]
    for _ in range(30):
        for tokens, generation in zip(said, generations, strict=True):
            token = next(generation)
            tokens.append((token.id, token.logprob))
    assert said == alone(model)


def test_threads_equal_each_alone_to_the_bit(model):
    engine = LocalEngine(model)
    said = [None] * len(REQUESTS)

    def run(number):
        said[number] = tokens_of(begin(engine, number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(REQUESTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said == alone(model)
    assert engine.contexts.busy == 0


def test_a_short_question_does_not_wait_for_a_long_prompt(small):
    recording = Recording(small, delay_s=0.01)
    engine = LocalEngine(recording)
    order: list[str] = []

    def run(name, ids, count):
        generation = generate(engine, ids, GREEDY.override(max_tokens=count))
        for _ in generation:
            order.append(name)

    long = threading.Thread(target=run, args=("long", prompt(25 * CHUNK), 1))
    long.start()
    while len(recording.passes) < 2:
        time.sleep(0.001)
    run("short", prompt(5, seed=2), 3)
    long.join(60)
    assert order == ["short"] * 3 + ["long"]
    # The long prompt was computed meanwhile, a chunk for each token of the short one.
    short = [i for i, tokens in enumerate(recording.passes) if tokens < CHUNK]
    assert short[-1] < 14


def test_cancelled_prompt_stays_cached_as_far_as_whole_chunks_were_computed(small):
    engine = LocalEngine(small)
    ids = prompt(6 * CHUNK)
    generation = None

    def progress(done, total):
        if 2 * CHUNK < done < 3 * CHUNK:
            generation.cancel()

    generation = generate(engine, ids, GREEDY, progress=progress)
    assert next(generation, None) is None
    again = generate(engine, ids, GREEDY.override(max_tokens=5))
    assert again.cached_tokens == 2 * CHUNK
    assert tokens_of(again) == tokens_of(generate(LocalEngine(small), ids, GREEDY.override(max_tokens=5)))


def test_cancel_ends_the_waiting_for_a_turn(small):
    entered, go_on = threading.Event(), threading.Event()

    class Stuck(Recording):
        def __call__(self, ids, cache, logits, layer_done=None):
            entered.set()
            assert go_on.wait(20)
            return super().__call__(ids, cache, logits, layer_done)

    engine = LocalEngine(Stuck(small))
    first = threading.Thread(target=lambda: next(generate(engine, prompt(5), GREEDY)))
    first.start()
    assert entered.wait(10)
    waiting = generate(engine, prompt(6, seed=2), GREEDY)
    assert waiting.cached_tokens is None  # the model computes: nothing is known yet
    threading.Timer(0.05, waiting.cancel).start()
    began = time.monotonic()
    assert next(waiting, None) is None
    assert time.monotonic() - began < 5
    assert waiting.finish_reason == "cancelled"
    go_on.set()
    first.join(20)
    assert engine.contexts.busy == 0


def test_a_conversation_that_goes_on_takes_its_context_whatever_its_reasoning_was(small):
    engine = LocalEngine(small)
    list(generate(engine, prompt(40), GREEDY.override(max_tokens=20)))
    follow_up = generate(engine, [*prompt(40), *prompt(10, seed=2)], GREEDY)  # without what was sampled
    assert follow_up.cached_tokens == 40
    next(follow_up)
    assert engine.contexts.contexts == 1


def test_two_conversations_do_not_drive_each_other_out_and_share_their_beginning(small):
    recording = Recording(small)
    engine = LocalEngine(recording)
    one, two = prompt(50) + prompt(20, seed=2), prompt(50) + prompt(20, seed=3)
    first = [token.id for token in generate(engine, one, GREEDY.override(max_tokens=4))]
    other = generate(engine, two, GREEDY.override(max_tokens=4))
    assert other.cached_tokens == 50
    second = [token.id for token in other]
    assert engine.contexts.contexts == 2
    for ids, said in ((one, first), (two, second)):
        again = generate(engine, [*ids, *said[:3], 5], GREEDY)
        assert again.cached_tokens == len(ids) + 3
        next(again)


def test_a_prefix_is_copied_from_a_context_that_is_in_use(small):
    engine = LocalEngine(small)
    running = generate(engine, prompt(60), GREEDY)
    next(running)
    other = generate(engine, [*prompt(60)[:48], 1, 2, 3], GREEDY.override(max_tokens=6))
    assert other.cached_tokens == 48
    assert tokens_of(other) == tokens_of(
        generate(LocalEngine(small), [*prompt(60)[:48], 1, 2, 3], GREEDY.override(max_tokens=6))
    )
    assert next(running).id >= 0


def position_bytes(model):
    return model.new_cache().nbytes_of(1)


def test_idle_contexts_are_dropped_the_least_recently_used_first(small):
    engine = LocalEngine(small, context_bytes=3 * 256 * position_bytes(small))
    prompts = [prompt(60, seed=seed) for seed in range(4)]
    for ids in prompts:
        next(generate(engine, ids, GREEDY))
    usage = engine.contexts
    assert (usage.contexts, usage.busy) == (3, 0)
    assert usage.nbytes <= usage.limit
    cached = [generate(engine, ids, GREEDY).cached_tokens for ids in prompts[1:]]
    assert cached == [59, 59, 59]
    assert generate(engine, prompts[0], GREEDY).cached_tokens < 59


def test_one_generation_may_always_take_what_its_context_needs(small):
    engine = LocalEngine(small, context_bytes=0)
    assert len(list(generate(engine, prompt(300), GREEDY.override(max_tokens=10)))) == 10
    follow_up = generate(engine, [*prompt(300), *prompt(10, seed=2)], GREEDY)
    assert follow_up.cached_tokens == 300
    next(follow_up)
    assert engine.contexts.contexts == 1


def test_a_second_generation_waits_for_memory_until_the_first_is_done(small):
    engine = LocalEngine(small, context_bytes=256 * position_bytes(small))
    first = generate(engine, prompt(20), GREEDY.override(max_tokens=3))
    next(first)
    second = generate(engine, prompt(20, seed=2), GREEDY.override(max_tokens=3))
    assert second.cached_tokens is None
    said = []
    thread = threading.Thread(target=lambda: said.extend(second))
    thread.start()
    time.sleep(0.2)
    assert said == []
    list(first)
    thread.join(10)
    assert len(said) == 3
    assert second.timing.queued_s >= 0.1


def test_growth_waits_too_and_the_oldest_goes_on(small):
    engine = LocalEngine(small, context_bytes=2 * 256 * position_bytes(small))
    oldest = generate(engine, prompt(250), GREEDY.override(max_tokens=20))
    next(oldest)
    younger = generate(engine, prompt(250, seed=2), GREEDY.override(max_tokens=20))
    said = []
    thread = threading.Thread(target=lambda: said.extend(younger))
    thread.start()
    time.sleep(0.3)
    assert 0 < len(said) < 20  # as far as its memory reaches
    assert len(list(oldest)) == 19  # beyond the limit, for it is the oldest
    thread.join(10)
    assert len(said) == 20


def test_waiting_that_could_never_end_is_an_error(small, monkeypatch):
    monkeypatch.setattr(contexts, "_STUCK_S", 0.2)
    engine = LocalEngine(small, context_bytes=256 * position_bytes(small))
    first = generate(engine, prompt(20), GREEDY)
    next(first)
    second = generate(engine, prompt(20, seed=2), GREEDY)
    with pytest.raises(EngineBusyError, match="finish or close"):
        next(second)
    first.close()
    next(generate(engine, prompt(20, seed=2), GREEDY))


def test_an_abandoned_generation_gives_its_context_back(small):
    engine = LocalEngine(small)
    generation = generate(engine, prompt(20), GREEDY)
    next(generation)
    assert engine.contexts.busy == 1
    del generation
    assert engine.contexts.busy == 0


def test_closing_from_another_thread_ends_a_running_generation(small):
    recording = Recording(small, delay_s=0.005)
    engine = LocalEngine(recording)
    generation = generate(engine, prompt(20), GREEDY)
    said = []
    thread = threading.Thread(target=lambda: said.extend(generation))
    thread.start()
    while not said:
        time.sleep(0.001)
    generation.close()
    thread.join(10)
    assert not thread.is_alive()
    assert engine.contexts.busy == 0


def test_closing_the_engine_ends_what_runs_and_frees_the_contexts(small):
    engine = LocalEngine(small)
    generation = generate(engine, prompt(20), GREEDY)
    next(generation)
    engine.close()
    assert next(generation, None) is None
    assert generation.finish_reason == "cancelled"
    assert (engine.contexts.busy, engine.contexts.nbytes) == (0, 0)


def test_a_recorded_step_belongs_to_its_cache(make_transformer):
    from gptoss.model.ops.gpu import GpuOps

    transformer = make_transformer(num_layers=1)
    model = type(transformer)(transformer.config, transformer.weights, GpuOps())
    one, two = model.new_cache(64), model.new_cache(64)
    first, second = model.step(one), model.step(two)
    assert first is not None
    assert model.step(one) is first is not second
    assert model.step(two) is second


def test_a_context_that_is_copied_from_is_not_dropped_meanwhile(small, monkeypatch):
    """Another generation that needs its memory while its keys and values are copied."""
    engine = LocalEngine(small, context_bytes=3 * 256 * position_bytes(small))
    source = prompt(100)
    for ids in (source, prompt(90, seed=9)):
        next(generate(engine, ids, GREEDY))
    copying, go_on = threading.Event(), threading.Event()
    copy = KVCache.append_from

    def slow(self, other, end):
        copying.set()
        assert go_on.wait(10)
        return copy(self, other, end)

    monkeypatch.setattr(KVCache, "append_from", slow)
    said, ids, params = [], [*source[:50], *prompt(40, seed=2)], GREEDY.override(max_tokens=3)
    thread = threading.Thread(target=lambda: said.extend(tokens_of(generate(engine, ids, params))))
    thread.start()
    assert copying.wait(10)
    other = generate(engine, prompt(300, seed=7), GREEDY)  # wants the memory of the source
    go_on.set()
    thread.join(10)
    other.close()
    fresh = LocalEngine(small)
    next(generate(fresh, source, GREEDY))  # so that the same prefix is cached
    assert said == tokens_of(generate(fresh, ids, params))


def test_idle_contexts_are_few_however_small_they_are(small):
    engine = LocalEngine(small)
    for seed in range(40):
        next(generate(engine, prompt(20, seed=seed), GREEDY))
    assert engine.contexts.contexts <= contexts.MOST_IDLE
    assert generate(engine, prompt(20, seed=39), GREEDY).cached_tokens == 19


def test_threads_that_wait_for_each_other_get_an_error(small, monkeypatch):
    monkeypatch.setattr(contexts, "_STUCK_S", 0.3)
    engine = LocalEngine(small, context_bytes=3 * 256 * position_bytes(small))
    oldest = generate(engine, prompt(200), GREEDY)
    next(oldest)
    ready, grow, ended = threading.Event(), threading.Event(), []

    def run(generation, name):
        try:
            for _ in generation:
                pass
        except EngineBusyError:
            ended.append(name)

    def other():
        generation = generate(engine, prompt(200, seed=3), GREEDY)
        next(generation)
        ready.set()
        assert grow.wait(10)
        run(generation, "other")

    thread = threading.Thread(target=other)
    thread.start()
    assert ready.wait(10)
    mine = generate(engine, prompt(200, seed=2), GREEDY)
    next(mine)
    grow.set()
    run(mine, "mine")
    thread.join(20)
    assert not thread.is_alive()
    assert ended, "this thread has the oldest generation and waits, the other waits for it"


def test_a_generation_that_another_thread_takes_over_is_no_reason_for_an_error(small, monkeypatch):
    """As a pool of threads drives generations: who drove one last need not be who drives it next."""
    monkeypatch.setattr(contexts, "_STUCK_S", 1.0)
    engine = LocalEngine(small, context_bytes=256 * position_bytes(small))
    first = generate(engine, prompt(20), GREEDY.override(max_tokens=4))
    next(first)  # by this thread, which waits below
    thread = threading.Timer(0.2, lambda: list(first))
    thread.start()
    assert len(list(generate(engine, prompt(20, seed=2), GREEDY.override(max_tokens=3)))) == 3
    thread.join(10)


def test_driving_another_generation_from_a_progress_callback_is_an_error(small):
    engine = LocalEngine(small)
    other = generate(engine, prompt(20, seed=3), GREEDY)
    generation = generate(engine, prompt(20), GREEDY, progress=lambda done, total: next(other))
    with pytest.raises(EngineBusyError, match="callback"):
        next(generation)
    assert next(generate(engine, prompt(20), GREEDY)).id >= 0


def test_closing_while_a_token_is_sampled_gives_the_context_back_at_its_end(small):
    sampling, go_on = threading.Event(), threading.Event()

    class Slow(Recording):
        armed = False

        def __call__(self, ids, cache, logits, layer_done=None):
            if self.armed:
                sampling.set()
                assert go_on.wait(10)
            return super().__call__(ids, cache, logits, layer_done)

    model = Slow(small)
    engine = LocalEngine(model)
    generation = generate(engine, prompt(5), GREEDY)
    next(generation)
    model.armed = True
    said = []
    thread = threading.Thread(target=lambda: said.append(next(generation, None)))
    thread.start()
    assert sampling.wait(10)
    generation.close()
    go_on.set()
    thread.join(10)
    assert said == [None]
    assert (engine.contexts.busy, generation.finish_reason) == (0, "cancelled")


def test_a_younger_generation_keeps_to_the_limit_with_a_prompt_of_many_chunks(small):
    limit = (256 + 400 + 10) * position_bytes(small)
    engine = LocalEngine(small, context_bytes=limit)
    first, second = generate(engine, prompt(20), GREEDY), generate(engine, prompt(400, seed=2), GREEDY)
    next(first), next(second)
    assert engine.contexts.nbytes <= limit


def test_cached_tokens_are_known_at_the_end_even_of_one_that_never_began(small):
    engine = LocalEngine(small, context_bytes=1)
    first = generate(engine, prompt(20), GREEDY)
    next(first)
    waiting = generate(engine, prompt(20, seed=2), GREEDY)
    assert waiting.cached_tokens is None
    waiting.cancel()
    assert list(waiting) == []
    assert (waiting.finish_reason, waiting.cached_tokens) == ("cancelled", 0)


def test_a_slow_constraint_does_not_hold_up_other_generations(small):
    asked, go_on = threading.Event(), threading.Event()

    class Slow:
        def next(self):
            asked.set()
            assert go_on.wait(10)

        def accept(self, token_id):
            return False

        def describe(self):
            return None

    engine = LocalEngine(small)
    slow = generate(engine, prompt(5), GREEDY, Slow())
    thread = threading.Thread(target=lambda: next(slow))
    thread.start()
    assert asked.wait(10)
    assert len(list(generate(engine, prompt(6, seed=2), GREEDY.override(max_tokens=3)))) == 3
    go_on.set()
    thread.join(10)
