"""Random tensors and experts by seed, and how far two results lie apart: for the tests of kernels."""

import numpy as np
import torch

from gptoss.model.tensors.mxfp4 import Mxfp4Tensor
from gptoss.model.tensors.weights import Experts


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, std: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed)) * std


def outliers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Activations as a trained model has them: a few of a hundred times the others' size."""
    x = normal(*shape, seed=seed)
    x[..., ::97] *= 100
    return x


def bf16(*shape: int, std: float = 0.2, seed: int = 0) -> torch.Tensor:
    return normal(*shape, std=std, seed=seed).to(torch.bfloat16)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype == torch.float32
    return float((actual - expected).norm() / expected.norm())


def packed(experts: int, rows: int, columns: int, seed: int = 0) -> Mxfp4Tensor:
    g = generator(seed)
    blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), generator=g, dtype=torch.uint8)
    scales = torch.randint(118, 126, (experts, rows, columns // 32), generator=g, dtype=torch.uint8)
    return Mxfp4Tensor(blocks, scales)


def random_experts(count: int, hidden: int, width: int) -> Experts:
    return Experts(
        packed(count, 2 * width, hidden, seed=1),
        bf16(count, 2 * width, seed=2),
        packed(count, hidden, width, seed=3),
        bf16(count, hidden, seed=4),
    )


def sum_of_words(data: torch.Tensor) -> int:
    """What `Ops.read_once` is to return, computed by NumPy: the sum of 64-bit words, the last one padded with zeros."""
    content = data.flatten().view(torch.uint8).numpy().tobytes()
    words = np.frombuffer(content.ljust(-(-len(content) // 8) * 8, b"\0"), dtype=np.uint64)
    return int(words.sum(dtype=np.uint64))
