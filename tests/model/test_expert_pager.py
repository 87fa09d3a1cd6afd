"""Experts that are read when they are chosen: those, all of them, and nothing else changes."""

import threading

import pytest
import torch
from random_parts import bf16, normal, random_experts

from gptoss.model.storage import expert_pager
from gptoss.model.storage.expert_pager import ExpertPager
from gptoss.model.tensors.weights import Linear

cpu_ops = pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)


@pytest.mark.parametrize("tokens", [1, 3])
def test_what_is_chosen_is_read_before_it_is_computed(monkeypatch, tokens):
    monkeypatch.setattr(expert_pager, "_PIECE_BYTES", 1000)
    read, lock = [], threading.Lock()

    def fetch(piece):
        with lock:
            read.append((piece.data_ptr(), piece.numel()))

    monkeypatch.setattr(expert_pager, "fetch", fetch)
    layer, router, x = random_experts(8, 96, 64), Linear(bf16(8, 96)), normal(tokens, 96)
    results = []
    for pager in (None, ExpertPager()):
        ops = cpu_ops.CpuOps(dense="bf16", pager=pager)
        bound = ops.bind_moe(router, layer)
        results.append(ops.moe(x, *bound, 2, 1.702, 7.0))
    assert torch.equal(*results)
    chosen = ops.linear(x, bound[0]).topk(2).indices.unique().tolist()
    expected = set()
    for expert in chosen:
        for matrix in (layer.gate_up, layer.down):
            for array in (matrix.blocks[expert], matrix.scales[expert]):
                expected |= set(range(array.data_ptr(), array.data_ptr() + array.numel()))
    assert {place for begin, size in read for place in range(begin, begin + size)} == expected
    assert sum(size for _, size in read) == len(expected)


def test_prompts_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(ExpertPager, "read", lambda *_: pytest.fail("read"))
    ops = cpu_ops.CpuOps(dense="bf16", pager=ExpertPager())
    ops.moe(normal(40, 96), *ops.bind_moe(Linear(bf16(8, 96)), random_experts(8, 96, 64)), 2, 1.702, 7.0)


def test_plain_experts_are_left_to_whoever_computes_them():
    layer = random_experts(4, 64, 32)
    plain = type(layer)(layer.gate_up.dequantize(), layer.gate_up_bias, layer.down.dequantize(), layer.down_bias)
    ExpertPager().read(plain, [0, 1])
