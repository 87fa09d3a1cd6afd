"""The engine of the tests keeps the contract of engines, so that what is tested with it holds with others."""

import pytest
from engine_contract import EngineContract, Subject

PROMPT, GREEDY = tuple(range(20)), tuple(range(30, 45))


class TestScriptedEngine(EngineContract):
    @pytest.fixture
    def subject(self, scripted) -> Subject:
        def make(**options):
            return scripted.ScriptedEngine([GREEDY] * 5, obeys=True, vocabulary=300, **options)

        return Subject(make(prefill_delay_s=0.1), PROMPT, GREEDY, 300, make, during_prefill=tuple(range(100)))
