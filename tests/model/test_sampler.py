"""Sampling: the distribution against the transformers library's own processors, and the draw against statistics."""

import math

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gptoss.model import ConstraintError, LogitMask, Sampler, SamplingError, SamplingParams

LOGITS = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3


def oracle(params, logits):
    steps = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k is not None:
        steps.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(TopPLogitsWarper(params.top_p))
    if params.min_p > 0:
        steps.append(MinPLogitsWarper(params.min_p))
    return torch.softmax(steps(torch.zeros(1, 1, dtype=torch.long), logits[None].clone())[0], -1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [None, 1, 40, 5000])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.01])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 1.0])
def test_the_distribution_is_that_of_transformers(temperature, top_k, top_p, min_p):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    torch.testing.assert_close(Sampler(params).probabilities(LOGITS), oracle(params, LOGITS), atol=1e-6, rtol=1e-4)


def test_the_draws_follow_the_distribution():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5])
    sampler = Sampler(SamplingParams(seed=3))
    draws = 20000
    counts = torch.bincount(torch.tensor([sampler.sample(logits).id for _ in range(draws)]), minlength=5)
    expected = torch.softmax(logits, -1) * draws
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 18.5, "4 degrees of freedom: exceeded once in a thousand seeds, and the seed is fixed"


def test_temperature_zero_is_the_argmax_and_ties_go_to_the_lowest_id():
    assert Sampler(SamplingParams(temperature=0)).sample(LOGITS).id == int(LOGITS.argmax())
    assert Sampler(SamplingParams(temperature=0)).sample(torch.zeros(50)).id == 0


def test_a_tiny_temperature_does_not_overflow():
    assert Sampler(SamplingParams(temperature=1e-6, seed=0)).sample(LOGITS).id == int(LOGITS.argmax())


def test_cut_tokens_never_come():
    sampler = Sampler(SamplingParams(top_k=3, temperature=5.0, seed=1))
    best = set(torch.topk(LOGITS, 3).indices.tolist())
    assert {sampler.sample(LOGITS).id for _ in range(500)} == best


def test_a_mask_holds_and_leaves_the_logprob_alone():
    mask = LogitMask.allowing([31, 32, 999], 1000)
    sampler = Sampler(SamplingParams(seed=2))
    tokens = [sampler.sample(LOGITS.clone(), mask) for _ in range(200)]
    assert {t.id for t in tokens} <= {31, 32, 999}
    expected = torch.log_softmax(LOGITS, -1)
    assert all(t.logprob == pytest.approx(float(expected[t.id]), abs=1e-4) for t in tokens)


def test_a_mask_that_allows_nothing_is_an_error():
    with pytest.raises(ConstraintError):
        Sampler(SamplingParams()).sample(LOGITS.clone(), LogitMask.allowing([], 1000))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(bad):
    logits = LOGITS.clone()
    logits[5] = bad
    with pytest.raises(SamplingError, match="not finite"):
        Sampler(SamplingParams()).sample(logits)


def test_one_random_number_a_token_whatever_holds():
    """A token that a mask decided uses up its number too: the tokens after it do not move."""
    free, held = Sampler(SamplingParams(seed=9)), Sampler(SamplingParams(seed=9))
    free.sample(LOGITS)
    held.sample(LOGITS.clone(), LogitMask.allowing([4], 1000))
    assert [free.sample(LOGITS).id for _ in range(20)] == [held.sample(LOGITS).id for _ in range(20)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("max_tokens", 0),
        ("top_logprobs", -1),
    ],
)
def test_parameters_out_of_range_are_named(field, value):
    with pytest.raises(SamplingError, match=field):
        SamplingParams(**{field: value})


def test_mask_bits_are_lowest_first_in_words_of_32():
    mask = LogitMask.allowing([0, 31, 33], 40)
    assert mask.bits.dtype == torch.int32
    assert [w & 0xFFFFFFFF for w in mask.bits.tolist()] == [0x80000001, 0x2]


@pytest.mark.parametrize("entries", [1, 8, 31, 32, 33, 40, 1000])
def test_a_mask_is_applied_in_place(entries):
    generator = torch.Generator().manual_seed(entries)
    allowed = torch.rand(entries, generator=generator) < 0.5
    mask = LogitMask.allowing(allowed.nonzero().flatten().tolist(), entries)
    before = torch.randn(entries, generator=generator)
    logits = before.clone()
    mask.apply_(logits)
    assert torch.equal(logits, before.masked_fill(~allowed, -math.inf))
    assert [mask.allows(token) for token in range(entries)] == allowed.tolist()
    assert torch.equal(
        LogitMask.forbidding((~allowed).nonzero().flatten().tolist(), entries).bits & mask.bits, mask.bits
    )


def test_tokens_beyond_the_mask_may_not_come():
    mask = LogitMask.allowing(range(32), 32)
    logits = torch.zeros(100)
    mask.apply_(logits)
    assert torch.isinf(logits).tolist() == [False] * 32 + [True] * 68
    assert not mask.allows(40)


def test_a_mask_does_not_change_what_is_told_of_the_likeliest():
    sampler = Sampler(SamplingParams(seed=2, top_logprobs=3))
    token = sampler.sample(LOGITS.clone(), LogitMask.allowing([4], 1000))
    assert token.top == Sampler(SamplingParams(seed=2, top_logprobs=3)).sample(LOGITS).top


def test_masks_hold_logits_of_inference_mode():
    with torch.inference_mode():
        logits = torch.zeros(64)
    assert Sampler(SamplingParams(seed=1)).sample(logits, LogitMask.allowing([5], 64)).id == 5
