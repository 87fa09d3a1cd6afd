"""Sampling on the device, in Triton's interpreter: the same tokens as the sampler on the CPU from the same seed."""

import itertools

import numpy as np
import pytest
import torch

from gptoss.model import ConstraintError, LogitMask, Sampler, SamplingError, SamplingParams
from gptoss.model.architecture.decode import Drawn
from gptoss.model.ops import Drawing

pytest.importorskip("triton", reason="Triton runs on Linux")
from gptoss.model.kernels.triton.launch import Launcher
from gptoss.model.ops.gpu_sampling import draw

VOCABULARY = 2500
LOGITS = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture(autouse=True)
def quiet_interpreter():
    with np.errstate(all="ignore"):
        yield


def sample(sampler: Sampler, logits: torch.Tensor, mask: LogitMask | None = None):
    """As the decode step does it."""

    def on_device(params: SamplingParams, number: float) -> Drawn:
        drawing = Drawing.on(logits.device, len(logits))
        least = float(np.log(params.min_p)) if params.min_p else -np.inf
        numbers = [number, params.temperature, least, params.top_k or 0, params.top_p]
        drawing.settings.copy_(torch.tensor(numbers, dtype=torch.float64))
        if mask is not None:
            drawing.mask.zero_()
            drawing.mask[: len(mask.bits)] = mask.bits
        launch = Launcher()
        draw(launch, drawing, logits, filtered=params.top_k is not None or params.top_p < 1)
        assert launch.counts() == {"survey": 1, "weigh": 1, "pick": 1}
        token, logprob, wrong = drawing.result.tolist()
        return Drawn(int(token), logprob, int(wrong))

    return sampler.sample_on_device(on_device, mask is not None)


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.7])
@pytest.mark.parametrize(("top_k", "top_p"), [(None, 1.0), (40, 1.0), (5000, 0.9), (None, 0.01), (7, 0.6)])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 1.0])
def test_the_same_tokens_as_on_the_cpu(temperature, top_k, top_p, min_p):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=5)
    here, there = Sampler(params), Sampler(params)
    mask = LogitMask.forbidding(range(0, VOCABULARY - 40, 3), VOCABULARY - 40)
    for turn in range(4):
        logits = LOGITS.roll(turn * 100)
        for held in (None, mask):
            expected = here.sample(logits.clone(), held)
            actual = sample(there, logits, held)
            assert actual.id == expected.id
            assert actual.logprob == pytest.approx(expected.logprob, abs=1e-4)


def test_the_draws_follow_the_distribution():
    """Each token comes for as large a part of all numbers as it is likely."""
    logits = torch.full((1500,), -torch.inf)
    logits[[3, 1023, 1024, 1400]] = torch.tensor([2.0, 0.0, 1.0, 1.5])
    params = SamplingParams(temperature=0.8)
    expected = Sampler(params).probabilities(logits)
    edges = torch.cat((torch.zeros(1), expected[[3, 1023, 1024, 1400]].double().cumsum(0))).tolist()
    for token, (low, high) in zip((3, 1023, 1024, 1400), itertools.pairwise(edges), strict=True):
        for number in (low + 1e-6, (low + high) / 2, high - 1e-6):
            sampler = Sampler(params)
            sampler._random = Fixed(number)
            assert sample(sampler, logits).id == token


class Fixed:
    """A generator of one number."""

    def __init__(self, number):
        self.random = lambda: number


@pytest.mark.parametrize("number", [0.0, 0.9999999999999999])
def test_the_ends_of_the_distribution_are_tokens_that_may_come(number):
    logits = LOGITS.clone()
    mask = LogitMask.allowing([700, 701, 1999], VOCABULARY)
    for params in (SamplingParams(), SamplingParams(min_p=0.9), SamplingParams(top_p=0.5), SamplingParams(top_k=1)):
        sampler = Sampler(params)
        sampler._random = Fixed(number)
        assert sample(sampler, logits, mask).id in (700, 701, 1999)


def test_ties_of_the_likeliest_go_to_the_lowest_id():
    logits = torch.zeros(VOCABULARY)
    assert sample(Sampler(SamplingParams(temperature=0)), logits).id == 0
    assert sample(Sampler(SamplingParams(temperature=0)), logits, LogitMask.allowing([9, 1100], VOCABULARY)).id == 9


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_cannot_be_sampled_is_said(temperature):
    params = SamplingParams(temperature=temperature)
    with pytest.raises(ConstraintError, match="no token"):
        sample(Sampler(params), LOGITS, LogitMask.allowing([], VOCABULARY))
    for poison in (torch.nan, torch.inf):
        logits = LOGITS.clone()
        logits[2000] = poison
        for mask in (None, LogitMask.allowing([9, 1100], VOCABULARY)):  # which forbids the poisoned one
            with pytest.raises(SamplingError, match="not finite"):
                sample(Sampler(params), logits, mask)
    with pytest.raises(SamplingError, match="not finite"):
        sample(Sampler(params), torch.full((VOCABULARY,), -torch.inf))
