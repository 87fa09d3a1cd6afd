"""The contract of engines, held by the local one."""

import pytest
import torch
from engine_contract import EngineContract, Subject

from gptoss.model import GenerationDefaults, LocalEngine, ModelError, Request


class TestLocalEngine(EngineContract):
    @pytest.fixture
    def subject(self, transformer) -> Subject:
        prompt = tuple(torch.randint(0, 300, (20,), generator=torch.Generator().manual_seed(1)).tolist())
        greedy = list(prompt)
        for _ in range(8):
            greedy.append(int(transformer(greedy, logits="last").argmax()))

        def make(stop_tokens=(), **options) -> LocalEngine:
            defaults = GenerationDefaults(stop_token_ids=tuple(stop_tokens))
            return LocalEngine(transformer, defaults=defaults, cache_dtype=torch.float32, **options)

        return Subject(make(), prompt, tuple(greedy[20:]), 300, make, during_prefill=(*range(100), *prompt * 15))


def test_a_closed_engine_says_so(transformer) -> None:
    engine = LocalEngine(transformer)
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        engine.generate(Request((1, 2)))
