"""MXFP4 against the transformers library, and against the text of the standard."""

import pytest
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from gptoss.model.tensors import mxfp4
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor, dequantize, fake_quantize, quantize

SCALE_CODES = torch.arange(256, dtype=torch.uint8)


def _random_packed(*lead: int, low: int = 100, high: int = 140) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    blocks = torch.randint(0, 256, (*lead, 16), dtype=torch.uint8, generator=generator)
    return blocks, torch.randint(low, high, lead, dtype=torch.uint8, generator=generator)


def _nearest(value: float, scale: float) -> float:
    """Round one value to the format by search, ties to the even code."""
    candidates = sorted(range(8), key=lambda code: (abs(abs(value) / scale - mxfp4.VALUES[code]), code % 2))
    return mxfp4.VALUES[candidates[0]] * scale * (-1 if value < 0 else 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dequantize_equals_the_transformers_library(dtype):
    blocks, scales = _random_packed(3, 5, 7, low=115, high=130)
    # The library transposes to (experts, columns, rows).
    expected = convert_moe_packed_tensors(blocks, scales, dtype=dtype).transpose(1, 2)
    actual = dequantize(blocks, scales, dtype)
    assert actual.dtype == dtype
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_scale_and_every_byte(dtype):
    bytes_ = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(256, 16, 16)
    scales = SCALE_CODES.view(256, 1).expand(256, 16)
    actual = dequantize(bytes_, scales, dtype)
    exact = torch.tensor(mxfp4.VALUES, dtype=torch.float64)
    for code in range(255):
        unscaled = torch.stack([exact[bytes_[0].long() & 15], exact[bytes_[0].long() >> 4]], dim=-1).view(-1)
        expected = (unscaled * 2.0 ** (code - 127)).to(dtype)
        assert torch.equal(actual[code], expected), f"scale {code}"
    assert actual[255].isnan().all()
    # 255 is the one scale on which the library departs from the standard: it takes it for 2^128.
    library = convert_moe_packed_tensors(bytes_[None, :255].contiguous(), scales[None, :255].contiguous(), dtype=dtype)
    assert torch.equal(actual[:255], library[0].T)


def test_the_earlier_value_is_in_the_low_half():
    blocks = torch.zeros(1, 16, dtype=torch.uint8)
    blocks[0, 0] = 0x72  # low half 2: 1.0, high half 7: 6.0
    assert dequantize(blocks, torch.tensor([128], dtype=torch.uint8))[:3].tolist() == [2.0, 12.0, 0.0]


def test_pieces_make_the_same_whole(monkeypatch):
    blocks, scales = _random_packed(11, 3)
    whole = dequantize(blocks, scales)
    packed = quantize(whole)
    monkeypatch.setattr(mxfp4, "_PIECE", 5)
    assert torch.equal(dequantize(blocks, scales), whole)
    assert all(torch.equal(a, b) for a, b in zip(quantize(whole), packed, strict=True))


def test_quantize_rounds_to_the_nearest_and_ties_to_even():
    ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
    steps = [0.0, 0.1, 0.3, 0.7, 0.8, 1.2, 1.3, 1.7, 1.8, 2.4, 2.6, 3.4, 3.6, 4.9, 5.1, 6.0, 6.9, 7.99]
    values = torch.tensor([*ties, *steps, *[-tie for tie in ties]])  # the largest, 7.99, makes the scale 1
    assert values.shape == (32,)
    expected = [_nearest(value, 1.0) for value in values.tolist()]
    assert fake_quantize(values).tolist() == expected
    assert expected[:7] == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    assert expected[24] == 6.0  # saturated


def test_quantize_against_a_search_on_random_values():
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(20, 32, generator=generator) * torch.logspace(-6, 6, 20).unsqueeze(-1)
    _, scales = quantize(values)
    for row, code, actual in zip(values.tolist(), scales[:, 0].tolist(), fake_quantize(values).tolist(), strict=True):
        scale = 2.0 ** (code - 127)
        assert 4 * scale <= max(map(abs, row)) < 8 * scale
        assert actual == [_nearest(value, scale) for value in row]


def test_bfloat16_is_quantized_by_look_up_as_float32_is_by_search():
    """All its finite values, each in blocks with the others of many scales."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    every = bits.view(torch.bfloat16)
    every = every[every.isfinite()]
    generator = torch.Generator().manual_seed(11)
    near = every.sort().values.view(-1, 32)
    mixed = every[torch.randperm(len(every), generator=generator)].view(-1, 32)
    few = every[torch.randint(len(every), (20000, 32), generator=generator)]
    for values in (near, mixed, few * (torch.rand(few.shape, generator=generator) < 0.1)):
        for fast, plain in zip(quantize(values), quantize(values.float()), strict=True):
            assert torch.equal(fast, plain)


def test_values_of_the_format_survive():
    blocks, scales = _random_packed(4, 9, low=1, high=250)
    blocks[..., 0] |= 0x07  # a 6 in each block, so that no smaller scale would do
    values = dequantize(blocks, scales)
    again_blocks, again_scales = quantize(values)
    assert torch.equal(again_blocks, blocks)
    assert torch.equal(again_scales, scales)


def test_extremes_of_float32():
    smallest, largest = torch.full((32,), 2.0**-149), torch.full((32,), torch.finfo(torch.float32).max)
    assert quantize(smallest)[1].tolist() == [0]
    assert fake_quantize(smallest).tolist() == [0.0] * 32
    assert fake_quantize(largest).tolist() == [6 * 2.0**125] * 32
    zeros_blocks, zeros_scales = quantize(torch.zeros(32))
    assert (zeros_blocks.any().item(), zeros_scales.tolist()) == (False, [0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(bad):
    values = torch.ones(2, 64)
    values[1, 40] = bad
    with pytest.raises(ValueError, match="infinite or not a number"):
        quantize(values)


def test_wrong_shapes_and_types_are_refused():
    with pytest.raises(ValueError, match="no blocks of 32"):
        quantize(torch.ones(2, 33))
    with pytest.raises(ValueError, match="no blocks of 32"):
        quantize(torch.ones(2, 32, dtype=torch.int64))
    blocks, scales = _random_packed(2, 3)
    with pytest.raises(ValueError, match="do not go with scales"):
        dequantize(blocks, scales[:, :2])
    with pytest.raises(ValueError, match="uint8"):
        Mxfp4Tensor(blocks, scales.to(torch.int32))
    with pytest.raises(ValueError, match="float32, bfloat16 or float16"):
        dequantize(blocks, scales, torch.float64)


def test_packed_tensor():
    blocks, scales = _random_packed(4, 6, 2)
    packed = Mxfp4Tensor(blocks, scales)
    assert packed.shape == (4, 6, 64)
    assert packed.nbytes == 4 * 6 * 2 * 17
    assert packed[2].blocks.data_ptr() == blocks[2].data_ptr()
    assert torch.equal(packed[2].dequantize(), packed.dequantize()[2])


def test_fake_quantize_keeps_shape_and_type_and_passes_no_gradient():
    values = torch.randn(3, 64, dtype=torch.bfloat16, requires_grad=True)
    result = fake_quantize(values)
    assert (result.shape, result.dtype, result.requires_grad) == (values.shape, values.dtype, False)
