"""Compiled schemas take bounded memory in a process that stays."""

from __future__ import annotations

from gptoss.cli.constraints.schemas import SchemaCache


def test_the_least_recently_used_go() -> None:
    cache = SchemaCache(most=2)
    first = cache.get({"enum": [1]})
    for number in (2, 1, 3):
        cache.get({"enum": [number]})
    assert cache.get({"enum": [1]}) is first
    assert len(cache._compiled) == 2
