"""The plain path on Apple's GPU, held to the CPU's; runs where there is one."""

from pathlib import Path

import pytest
import torch
from generating import generate
from loaded import loaded_transformer

from gptoss.model.checkpoints.catalog import locate
from gptoss.model.inference.engine import LocalEngine
from gptoss.model.interface import SamplingParams

CHECKPOINT = locate("nano", None, Path())
pytestmark = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="this machine has no mps")


@pytest.fixture(scope="module")
def on_mps():
    return loaded_transformer(CHECKPOINT, None, device="mps")


@pytest.fixture(scope="module")
def on_cpu():
    return loaded_transformer(CHECKPOINT)


IDS = list(range(3, 60))


def test_logits_are_those_of_the_cpu(on_mps, on_cpu):
    actual, expected = on_mps(IDS).cpu(), on_cpu(IDS)
    assert (actual - expected).norm() / expected.norm() < 1e-4


def test_pieces_with_a_cache_are_the_whole(on_mps, on_cpu):
    cache = on_mps.new_cache(128, torch.float32)
    pieces = torch.cat([on_mps(IDS[:40], cache), on_mps(IDS[40:41], cache), on_mps(IDS[41:], cache)]).cpu()
    expected = on_cpu(IDS)
    assert (pieces - expected).norm() / expected.norm() < 1e-4


def test_greedy_tokens_are_those_of_the_cpu(on_mps, on_cpu):
    greedy = SamplingParams(temperature=0, max_tokens=24)
    tokens = [[token.id for token in generate(LocalEngine(model), IDS, greedy)] for model in (on_mps, on_cpu)]
    assert tokens[0] == tokens[1]
