"""Experts in the blocks of GGUF files, read in place by the CPU's kernels: the results of the same experts apart."""

import os
import threading
from dataclasses import replace

import pytest
import torch
from gguf_files import joined_blocks
from random_parts import bf16, normal, packed, random_experts, relative_error

from gptoss.model.storage import expert_pager
from gptoss.model.storage.expert_pager import ExpertPager
from gptoss.model.tensors.joined_mxfp4 import JoinedMxfp4
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import Experts, Linear

_cpu = pytest.importorskip("gptoss.model.kernels._cpu", reason="built without a compiler", exc_type=ImportError)
cpu_ops = pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)

ALPHA, LIMIT = 1.702, 7.0


@pytest.fixture(params=("avx512", "avx2", "portable"))
def ops(request):
    if request.param not in _cpu.isas():
        pytest.skip(f"this machine does not run {request.param}")
    return cpu_ops.CpuOps(dense="bf16", isa=request.param)


def joined(matrix: Mxfp4Tensor, parts: int = 1, halves: bool = True) -> JoinedMxfp4:
    """The same matrix in GGUF's blocks."""
    if halves:
        whole = joined_blocks(matrix.blocks, matrix.scales).view(*matrix.blocks.shape[:-1], 17)
    else:
        whole = torch.cat((matrix.scales[..., None], matrix.blocks), -1)
    return JoinedMxfp4(tuple(whole[:, part::parts].contiguous() for part in range(parts)), halves)


def joined_experts(experts: Experts, parts: int = 2, halves: bool = True) -> Experts:
    gate_up, down = joined(experts.gate_up, parts, halves), joined(experts.down, 1, halves)
    return replace(experts, gate_up=gate_up, down=down)


@pytest.mark.parametrize("tokens", [1, 2, 17, 64])
# Groups of 32 columns around the steps of each level: 1, 2, 3, 5, 9, 16, 17, 18.
@pytest.mark.parametrize(("hidden", "width"), [(64, 32), (96, 160), (544, 288), (576, 512)])
@pytest.mark.parametrize(("parts", "halves"), [(2, True), (1, True), (1, False)])
def test_results_are_those_of_codes_and_scales_apart(ops, tokens, hidden, width, parts, halves):
    apart, router = random_experts(8, hidden, width), Linear(bf16(8, hidden, seed=5), bf16(8, seed=6))
    x = normal(tokens, hidden, seed=tokens)
    expected = ops.moe(x, *ops.bind_moe(router, apart), 3, ALPHA, LIMIT)
    bound = ops.bind_moe(router, joined_experts(apart, parts, halves))
    assert isinstance(bound[1].gate_up, JoinedMxfp4)  # nothing is copied
    actual = ops.moe(x, *bound, 3, ALPHA, LIMIT)
    # A sum in another order may round a 16-bit activation the other way.
    assert relative_error(actual, expected) < 2e-5


@pytest.mark.parametrize("tokens", [1, 8])
def test_every_code_and_every_scale(ops, tokens):
    scales = torch.arange(240, dtype=torch.uint8)
    codes = torch.arange(16, dtype=torch.uint8)
    blocks = (codes | (codes.flip(0) << 4)).expand(1, 256, 1, 16).contiguous()
    down = Mxfp4Tensor(blocks, torch.cat((scales, scales[:16]))[None, :, None].contiguous())
    apart = Experts(packed(1, 64, 256), torch.zeros(1, 64), down, torch.zeros(1, 256))
    router, x = Linear(torch.zeros(1, 256, dtype=torch.bfloat16)), normal(tokens, 256)
    expected, actual = (
        ops.moe(x, *ops.bind_moe(router, experts), 1, ALPHA, LIMIT).double()
        for experts in (apart, joined_experts(apart))
    )
    assert ((actual - expected).norm(dim=0) / expected.norm(dim=0)).max() < 2e-5


@pytest.mark.parametrize("tokens", [1, 8])
def test_a_scale_that_is_not_a_number_is_not_hidden(ops, tokens):
    router = Linear(bf16(2, 64))
    for name in ("gate_up", "down"):
        experts = joined_experts(random_experts(2, 64, 32))
        getattr(experts, name).parts[0][:, 3, 0, 0] = 255
        out = ops.moe(normal(tokens, 64), *ops.bind_moe(router, experts), 1, ALPHA, LIMIT)
        assert not out.isfinite().all(dim=-1).any()


def test_nothing_beyond_a_matrix_is_read(ops):
    """The last block ends where a page ends behind which nothing may be read."""
    import ctypes
    import mmap

    page = os.sysconf("SC_PAGE_SIZE")
    apart, router, x = random_experts(1, 96, 32), Linear(bf16(1, 96)), normal(1, 96)
    expected = ops.moe(x, *ops.bind_moe(router, apart), 1, ALPHA, LIMIT)
    experts = joined_experts(apart)
    memory = [mmap.mmap(-1, 4 * page) for _ in range(3)]
    placed = []
    for part, area in zip((*experts.gate_up.parts, *experts.down.parts), memory, strict=True):
        data = torch.frombuffer(area, dtype=torch.uint8)
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(data.data_ptr() + 3 * page), page, 0) == 0
        to = data[3 * page - part.numel() : 3 * page].view(part.shape)
        to.copy_(part)
        placed.append(to)
    experts = replace(experts, gate_up=JoinedMxfp4(tuple(placed[:2])), down=JoinedMxfp4((placed[2],)))
    for tokens in (1, 8):
        out = ops.moe(x.expand(tokens, -1), *ops.bind_moe(router, experts), 1, ALPHA, LIMIT)
        assert relative_error(out, expected.expand(tokens, -1)) < 1e-5


def test_the_pager_reads_the_chosen_experts(monkeypatch):
    read, lock = [], threading.Lock()

    def fetch(piece):
        with lock:
            read.append((piece.data_ptr(), piece.numel()))

    monkeypatch.setattr(expert_pager, "fetch", fetch)
    experts = joined_experts(random_experts(4, 96, 64))
    ExpertPager().read(experts, [2, 1, 2])
    arrays = (*experts.gate_up.parts, *experts.down.parts)
    assert sorted(read) == sorted((array[n].data_ptr(), array[n].numel()) for array in arrays for n in (1, 2))


def test_shapes_that_do_not_go_together_are_refused():
    up, down = joined(packed(2, 64, 64), 2), joined(packed(2, 64, 32))
    bias = bf16(2, 64)
    _cpu.joined_experts(list(up.parts), True, bias, list(down.parts), True, bias)
    with pytest.raises(ValueError, match="fit"):
        _cpu.joined_experts(list(up.parts), True, bias, list(up.parts), True, bias)
    with pytest.raises(ValueError, match="differ"):
        _cpu.joined_experts([up.parts[0], up.parts[1][:, 1:].contiguous()], True, bias, list(down.parts), True, bias)
    with pytest.raises(ValueError, match="one or two parts"):
        _cpu.joined_experts([], True, bias, list(down.parts), True, bias)
    with pytest.raises(ValueError, match="17 bytes"):
        _cpu.joined_experts([part[..., 1:].contiguous() for part in up.parts], True, bias, list(down.parts), True, bias)
