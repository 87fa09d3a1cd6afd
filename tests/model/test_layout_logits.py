"""Each published layout, loaded as it lies there, gives the logits of the transformers library, or of plain maths."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loaded import loaded_transformer
from transformers import GptOssForCausalLM

from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.tensors.mxfp4 import VALUES

# Longer than every window, and than the initial context of the rope.
TOKENS = torch.randint(0, 96, (90,), generator=torch.Generator().manual_seed(7))
# Windows before and after each other, heads and experts that no other number equals.
SIZES = {
    "hidden": 96,
    "width": 64,
    "heads": 6,
    "kv_heads": 3,
    "head_dim": 12,
    "experts": (5, 5, 5),
    "experts_per_token": 3,
    "windows": (8, None, 8),
}


def library_logits(folder: Path) -> torch.Tensor:
    """The logits of TOKENS, (tokens, vocabulary), by the transformers library in float32."""
    model = GptOssForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        return model(TOKENS[None]).logits[0]


def our_logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return loaded_transformer(folder)(TOKENS)


def require_same(ours: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.std() > 0.5, "the logits must differ, or any would do"
    torch.testing.assert_close(ours.double(), expected.double(), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("files", [(1, False), (3, True), (3, False)], ids=["single", "indexed", "shards"])
@pytest.mark.parametrize("dialect", ["transformers4", "transformers5"])
@pytest.mark.parametrize("layout", ["hub_mxfp4", "hub_bf16"])
def test_hub_layouts(tmp_path, make_checkpoint, layout, dialect, files):
    shards, index = files
    folder = make_checkpoint(tmp_path / "ours", layout, dialect=dialect, shards=shards, index=index, **SIZES)
    # The library cannot do without the index; the weights are the same.
    theirs = make_checkpoint(tmp_path / "theirs", layout, dialect=dialect, shards=shards, **SIZES)
    require_same(our_logits(folder), library_logits(theirs))


@pytest.mark.parametrize("shards", [1, 3])
def test_original_layout(tmp_path, make_checkpoint, shards):
    """The library does not know it: it loads the same weights in the hub's layout."""
    folder = make_checkpoint(tmp_path / "original", "original", shards=shards, **SIZES)
    require_same(our_logits(folder), library_logits(make_checkpoint(tmp_path / "hub", "hub_mxfp4", **SIZES)))


@pytest.mark.parametrize("dialect", ["transformers4", "transformers5"])
@pytest.mark.parametrize("shards", [1, 3])
def test_puzzle_layout(tmp_path, make_checkpoint, made_tensors, dialect, shards):
    """The library does not know it either: the expected logits are computed below, in the plainest way."""
    sizes = SIZES | {"experts": (6, 3, 5, 4), "windows": (8, 20, None, 8), "factor": 24.0}
    folder = make_checkpoint(tmp_path, "puzzle", dialect=dialect, shards=shards, **sizes)
    expected = plain_logits(made_tensors(**sizes), **sizes)
    require_same(our_logits(folder), expected)
    # The windows and the factor matter at this length.
    for other in ({"windows": (8, 8, None, 8)}, {"factor": 8.0}):
        assert (plain_logits(made_tensors(**sizes), **(sizes | other)) - expected).abs().max() > 0.01


def test_the_plain_reference_agrees_with_the_library(tmp_path, make_checkpoint, made_tensors):
    folder = make_checkpoint(tmp_path, **SIZES)
    require_same(plain_logits(made_tensors(**SIZES), **SIZES), library_logits(folder))


@pytest.mark.parametrize("layout", ["original", "hub_mxfp4", "hub_bf16", "puzzle"])
@pytest.mark.parametrize("shards", [1, 3])
def test_weights_are_the_mapped_files(tmp_path, make_checkpoint, layout, shards):
    """What a loaded model holds is the files, byte for byte: nothing was copied, nothing unpacked."""
    folder = make_checkpoint(tmp_path, layout, shards=shards)
    checkpoint = Checkpoint.open(folder)
    tensors = list(tensors_of(loaded_transformer(folder).weights))
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    assert sorted(storages.values()) == sorted(file.stat().st_size for file in checkpoint.files)
    assert sum(tensor.nbytes for tensor in tensors) == checkpoint.nbytes
    packed = [tensor for tensor in tensors if tensor.dtype == torch.uint8]
    assert len(packed) == (0 if layout == "hub_bf16" else 4 * len(checkpoint.config.layers))


def tensors_of(part: object) -> Iterator[torch.Tensor]:
    """All tensors of a model's weights."""
    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from tensors_of(each)
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from tensors_of(getattr(part, field.name))


def plain_logits(
    weights: dict[str, torch.Tensor],
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    experts: tuple[int, ...],
    experts_per_token: int,
    windows: tuple[int | None, ...],
    theta: float = 10000.0,
    factor: float = 8.0,
    initial_context: int = 64,
    **_: object,
) -> torch.Tensor:
    """The logits of TOKENS in float64: one token, one head, one expert after the other, no step shared with gptoss."""
    w = {name: tensor.double() for name, tensor in weights.items() if tensor.dtype != torch.uint8}
    for name, blocks in weights.items():
        if name.endswith(".blocks"):
            matrix = name.removesuffix(".blocks")
            w[f"{matrix}.weight"] = _unpack(blocks, weights[f"{matrix}.scales"])
    x = w["embedding.weight"][TOKENS]
    for i, (count, window) in enumerate(zip(experts, windows, strict=True)):
        p = {name.removeprefix(f"layers.{i}."): t for name, t in w.items() if name.startswith(f"layers.{i}.")}
        h = _norm(x, p["attention_norm.weight"])
        q, k, v = (h @ p[f"{n}.weight"].T + p[f"{n}.bias"] for n in "qkv")
        mixed = torch.zeros(len(TOKENS), heads * head_dim, dtype=torch.float64)
        for head in range(heads):
            own = slice(head * head_dim, (head + 1) * head_dim)
            shared = head // (heads // kv_heads)
            theirs = slice(shared * head_dim, (shared + 1) * head_dim)
            queries, keys = (_turn(a, theta, factor, initial_context) for a in (q[:, own], k[:, theirs]))
            for t in range(len(TOKENS)):
                seen = slice(0 if window is None else max(0, t - window + 1), t + 1)
                scores = torch.cat([keys[seen] @ queries[t] / math.sqrt(head_dim), p["sinks"][head : head + 1]])
                mixed[t, own] = torch.softmax(scores, 0)[:-1] @ v[seen, theirs]
        x = x + mixed @ p["o.weight"].T + p["o.bias"]
        h = _norm(x, p["mlp_norm.weight"])
        router = h @ p["router.weight"].T + p["router.bias"]
        assert router.shape[1] == count
        for t in range(len(TOKENS)):
            chosen = sorted(range(count), key=lambda e: -router[t, e])[:experts_per_token]
            shares = torch.softmax(router[t, chosen], 0)
            for expert, share in zip(chosen, shares, strict=True):
                both = p["gate_up.weight"][expert] @ h[t] + p["gate_up.bias"][expert]
                gate, up = both[0::2].clamp(max=7.0), both[1::2].clamp(-7.0, 7.0)
                inner = (up + 1) * gate / (1 + torch.exp(-1.702 * gate))
                x[t] += share * (p["down.weight"][expert] @ inner + p["down.bias"][expert])
    return _norm(x, w["norm.weight"]) @ w["unembedding.weight"].T


def _unpack(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    table = torch.tensor(VALUES, dtype=torch.float64)
    low, high = table[(blocks % 16).long()], table[(blocks // 16).long()]
    values = torch.stack([low, high], -1).flatten(-2) * 2.0 ** (scales.double() - 127)[..., None]
    return values.flatten(-2)


def _norm(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * scale


def _turn(vectors: torch.Tensor, theta: float, factor: float, initial: int) -> torch.Tensor:
    """Rope with YaRN, as its paper puts it: by the number of rotations that a pair makes in the initial context."""
    positions = torch.arange(len(vectors), dtype=torch.float64)
    half = vectors.shape[1] // 2
    turned = torch.empty_like(vectors)
    # Where in the pairs' numbers the rotations are 32 and 1: between, the speed passes from whole to divided.
    first, last = (half * math.log(initial / (rotations * 2 * math.pi)) / math.log(theta) for rotations in (32, 1))
    first, last = max(first, 0.0), min(last, 2 * half - 1)
    for pair in range(half):
        speed = theta ** (-pair / half)
        part = min(max((pair - first) / (last - first), 0.0), 1.0)
        angles = positions * speed * (1 - part + part / factor)
        scale = 1 + 0.1 * math.log(factor)
        cos, sin = angles.cos() * scale, angles.sin() * scale
        turned[:, pair] = vectors[:, pair] * cos - vectors[:, pair + half] * sin
        turned[:, pair + half] = vectors[:, pair + half] * cos + vectors[:, pair] * sin
    return turned
