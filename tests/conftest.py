"""Fixtures for every part: small models of random weights, in memory, and as checkpoints of every published layout."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from safetensors.torch import save_file

from gptoss.model.architecture.transformer import Transformer
from gptoss.model.config import LayerConfig, ModelConfig, RopeConfig
from gptoss.model.ops import select
from gptoss.model.tensors.mxfp4 import Mxfp4Tensor, dequantize
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear, Weights

VOCABULARY = 300

# Before anything imports the Triton kernels, which then run on the CPU.
os.environ.setdefault("TRITON_INTERPRET", "1")

hypothesis.settings.register_profile("gptoss", deadline=None, print_blob=True)  # no test depends on time
hypothesis.settings.load_profile("gptoss")

_AUTOMATIC_BACKEND = select.automatic_backend


@pytest.fixture(scope="session", autouse=True)
def reference_backend() -> Iterator[None]:
    """Compute with the exact backend unless a test asks for another, whatever was compiled.

    In this process the automatic choice is replaced; programs that tests start read the environment variable.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "automatic_backend", lambda device: "reference")
        patch.setenv("GPTOSS_BACKEND", "reference")
        yield


@pytest.fixture
def automatic_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo `reference_backend`: the backend is chosen as it is outside the tests."""
    monkeypatch.setattr(select, "automatic_backend", _AUTOMATIC_BACKEND)
    monkeypatch.delenv("GPTOSS_BACKEND")


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a program under test keeps, it keeps away from the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPTOSS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C; the programs under test would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup too


def random_transformer(
    seed: int = 0, packed: bool = True, num_layers: int = 4, window: int = 8, vocabulary: int = VOCABULARY
) -> Transformer:
    """Hidden 64, 4 experts of width 32, windows on even layers, YaRN from 64 to 512 positions."""
    g = torch.Generator().manual_seed(seed)
    hidden, width, experts, heads, kv_heads, head_dim = 64, 32, 4, 4, 2, 16

    def normal(*shape: int, std: float = 0.2) -> torch.Tensor:
        return (torch.randn(*shape, generator=g) * std).to(torch.bfloat16)

    def linear(out: int, inner: int) -> Linear:
        return Linear(normal(out, inner), normal(out))

    def matrix(rows: int, columns: int) -> Mxfp4Tensor | torch.Tensor:
        if not packed:
            return normal(experts, rows, columns)
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), generator=g, dtype=torch.uint8)
        scales = torch.randint(122, 125, (experts, rows, columns // 32), generator=g, dtype=torch.uint8)
        return Mxfp4Tensor(blocks, scales)

    layers = tuple(
        LayerWeights(
            attention_norm=1 + normal(hidden),
            q=linear(heads * head_dim, hidden),
            k=linear(kv_heads * head_dim, hidden),
            v=linear(kv_heads * head_dim, hidden),
            o=linear(hidden, heads * head_dim),
            sinks=normal(heads, std=1.0),
            mlp_norm=1 + normal(hidden),
            router=linear(experts, hidden),
            experts=Experts(
                matrix(2 * width, hidden), normal(experts, 2 * width), matrix(hidden, width), normal(experts, hidden)
            ),
        )
        for _ in range(num_layers)
    )
    config = ModelConfig(
        hidden_size=hidden,
        intermediate_size=width,
        vocab_size=vocabulary,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=1e-5,
        swiglu_limit=7.0,
        swiglu_alpha=1.702,
        rope=RopeConfig(
            theta=10000.0, factor=8.0, initial_context_length=64, beta_fast=32.0, beta_slow=1.0, truncate=False
        ),
        max_context_length=512,
        layers=tuple(
            LayerConfig(num_experts=experts, experts_per_token=2, sliding_window=window if i % 2 == 0 else None)
            for i in range(num_layers)
        ),
        tie_word_embeddings=False,
    )
    weights = Weights(
        normal(vocabulary, hidden, std=1.0), layers, 1 + normal(hidden), Linear(normal(vocabulary, hidden))
    )
    return Transformer(config, weights)


@pytest.fixture(scope="session")
def make_transformer() -> Callable[..., Transformer]:
    """The builder itself, for tests that want other seeds or sizes."""
    return random_transformer


@pytest.fixture(scope="session")
def transformer() -> Transformer:
    """One small random model, shared: it has no state."""
    return random_transformer()


@dataclass(frozen=True)
class Sizes:
    """The sizes of a made model; `windows` and `experts` have one entry a layer."""

    hidden: int = 64
    width: int = 32
    vocabulary: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    experts: tuple[int, ...] = (4, 4)
    experts_per_token: int = 2
    windows: tuple[int | None, ...] = (8, None)
    theta: float = 10000.0
    factor: float = 8.0
    initial_context: int = 64
    seed: int = 0


def made_weights(sizes: Sizes) -> dict[str, torch.Tensor]:
    """Random weights by canonical name: bf16, the experts packed."""
    g = torch.Generator().manual_seed(sizes.seed)

    def normal(*shape: int, std: float = 0.2) -> torch.Tensor:
        return (torch.randn(*shape, generator=g) * std).to(torch.bfloat16)

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, dtype=torch.uint8, generator=g)

    hidden, width, heads = sizes.hidden, sizes.width, sizes.heads * sizes.head_dim
    kv = sizes.kv_heads * sizes.head_dim
    weights = {
        "embedding.weight": normal(sizes.vocabulary, hidden, std=1.0),
        "unembedding.weight": normal(sizes.vocabulary, hidden),
        "norm.weight": 1 + normal(hidden),
    }
    for i, experts in enumerate(sizes.experts):
        p = f"layers.{i}."
        for name, rows, columns in (("q", heads, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, heads)):
            weights |= {f"{p}{name}.weight": normal(rows, columns), f"{p}{name}.bias": normal(rows)}
        weights |= {p + "attention_norm.weight": 1 + normal(hidden), p + "mlp_norm.weight": 1 + normal(hidden)}
        weights |= {p + "sinks": normal(sizes.heads, std=1.0)}
        weights |= {p + "router.weight": normal(experts, hidden), p + "router.bias": normal(experts)}
        for name, rows, columns in (("gate_up", 2 * width, hidden), ("down", hidden, width)):
            weights |= {
                f"{p}{name}.blocks": integers(0, 256, experts, rows, columns // 32, 16),
                f"{p}{name}.scales": integers(122, 125, experts, rows, columns // 32),
                f"{p}{name}.bias": normal(experts, rows),
            }
    return weights


def layout_tensors(layout: str, weights: dict[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
    """Weights by canonical name as a layout names, shapes and types them."""
    if layout == "original":
        return _original_tensors(weights, num_layers)
    return _hub_tensors(weights, num_layers, packed=layout != "hub_bf16")


def _original_tensors(weights: dict[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
    tensors = {
        "embedding.weight": weights["embedding.weight"],
        "unembedding.weight": weights["unembedding.weight"],
        "norm.scale": weights["norm.weight"].float(),
    }
    for i in range(num_layers):
        w = {name.removeprefix(f"layers.{i}."): t for name, t in weights.items() if name.startswith(f"layers.{i}.")}
        tensors |= {
            f"block.{i}.attn.norm.scale": w["attention_norm.weight"].float(),
            f"block.{i}.attn.qkv.weight": torch.cat([w["q.weight"], w["k.weight"], w["v.weight"]]),
            f"block.{i}.attn.qkv.bias": torch.cat([w["q.bias"], w["k.bias"], w["v.bias"]]),
            f"block.{i}.attn.out.weight": w["o.weight"],
            f"block.{i}.attn.out.bias": w["o.bias"],
            f"block.{i}.attn.sinks": w["sinks"],
            f"block.{i}.mlp.norm.scale": w["mlp_norm.weight"].float(),
            f"block.{i}.mlp.gate.weight": w["router.weight"],
            f"block.{i}.mlp.gate.bias": w["router.bias"],
            f"block.{i}.mlp.mlp1_weight.blocks": w["gate_up.blocks"],
            f"block.{i}.mlp.mlp1_weight.scales": w["gate_up.scales"],
            f"block.{i}.mlp.mlp1_bias": w["gate_up.bias"],
            f"block.{i}.mlp.mlp2_weight.blocks": w["down.blocks"],
            f"block.{i}.mlp.mlp2_weight.scales": w["down.scales"],
            f"block.{i}.mlp.mlp2_bias": w["down.bias"],
        }
    return tensors


def _hub_tensors(weights: dict[str, torch.Tensor], num_layers: int, packed: bool) -> dict[str, torch.Tensor]:
    tensors = {
        "model.embed_tokens.weight": weights["embedding.weight"],
        "lm_head.weight": weights["unembedding.weight"],
        "model.norm.weight": weights["norm.weight"],
    }
    for i in range(num_layers):
        w = {name.removeprefix(f"layers.{i}."): t for name, t in weights.items() if name.startswith(f"layers.{i}.")}
        p = f"model.layers.{i}."
        for name in ("q", "k", "v", "o"):
            tensors |= {f"{p}self_attn.{name}_proj.{kind}": w[f"{name}.{kind}"] for kind in ("weight", "bias")}
        tensors |= {
            p + "self_attn.sinks": w["sinks"],
            p + "input_layernorm.weight": w["attention_norm.weight"],
            p + "post_attention_layernorm.weight": w["mlp_norm.weight"],
            p + "mlp.router.weight": w["router.weight"],
            p + "mlp.router.bias": w["router.bias"],
        }
        for name in ("gate_up", "down"):
            e = f"{p}mlp.experts.{name}_proj"
            tensors[f"{e}_bias"] = w[f"{name}.bias"]
            if packed:
                tensors |= {f"{e}_{kind}": w[f"{name}.{kind}"] for kind in ("blocks", "scales")}
            else:
                plain = dequantize(w[f"{name}.blocks"], w[f"{name}.scales"], torch.bfloat16)
                tensors[e] = plain.transpose(1, 2).contiguous()
    return tensors


def made_config(layout: str, sizes: Sizes, dialect: str) -> dict[str, Any]:
    """The `config.json` of a made checkpoint."""
    common: dict[str, Any] = {
        "num_hidden_layers": len(sizes.experts),
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.width,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "swiglu_limit": 7.0,
    }
    if layout == "original":
        return common | {
            "num_experts": sizes.experts[0],
            "experts_per_token": sizes.experts_per_token,
            "sliding_window": sizes.windows[0] or 0,
            "initial_context_length": sizes.initial_context,
            "rope_theta": sizes.theta,
            "rope_scaling_factor": sizes.factor,
            "rope_ntk_alpha": 1,
            "rope_ntk_beta": 32,
        }
    rope: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": sizes.factor,
        "original_max_position_embeddings": sizes.initial_context,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
    }
    config = common | {
        "model_type": "gpt_oss",
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "hidden_act": "silu",
        "num_local_experts": sizes.experts[0],
        "num_experts_per_tok": sizes.experts_per_token,
        "max_position_embeddings": int(sizes.initial_context * sizes.factor),
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "sliding_window": next((window for window in sizes.windows if window), None),
        "layer_types": ["sliding_attention" if window else "full_attention" for window in sizes.windows],
        "eos_token_id": 90,
    }
    if dialect == "transformers5":
        config |= {"rope_parameters": rope | {"rope_theta": sizes.theta}, "dtype": "bfloat16"}
    else:
        config |= {"rope_scaling": rope, "rope_theta": sizes.theta, "torch_dtype": "bfloat16"}
    if layout != "hub_bf16":
        config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    if layout == "puzzle":
        blocks = zip(sizes.experts, sizes.windows, strict=True)
        config |= {
            "model_type": "gpt_oss_puzzle",
            "architectures": ["GptOssPuzzleForCausalLM"],
            "block_configs": [{"num_local_experts": e, "sliding_window": w} for e, w in blocks],
        }
        del config["num_local_experts"], config["layer_types"], config["sliding_window"]
    return config


def write_made_checkpoint(
    folder: Path,
    layout: str = "hub_mxfp4",
    *,
    dialect: str = "transformers4",
    shards: int = 1,
    index: bool = True,
    **dims: Any,
) -> Path:
    """Write a small checkpoint of random weights and return its folder.

    The layouts `original`, `hub_mxfp4`, `hub_bf16` and `puzzle` hold the same weights for the same sizes and seed
    (`hub_bf16` the values of the packed experts). `dims` are the fields of `Sizes`.
    """
    if layout == "puzzle":
        dims = {"experts": (4, 2, 4), "windows": (8, 16, None)} | dims
    sizes = Sizes(**dims)
    weights = made_weights(sizes)
    tensors = layout_tensors(layout, weights, len(sizes.experts))
    if layout == "puzzle":
        # Left over from serving with a quantised cache; the published puzzle model has such too.
        tensors |= {f"model.layers.{i}.self_attn.{n}_scale": torch.ones(1) for i in range(3) for n in "kv"}
    return write_files(folder, made_config(layout, sizes, dialect), tensors, shards, index)


def write_files(
    folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], shards: int, index: bool
) -> Path:
    """Write config, weights and perhaps an index into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        part = names[shard::shards]
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name].contiguous() for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    if shards > 1 and index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def write_byte_tokenizer(folder: Path, specials: list[str] | dict[str, int], first: int = 256) -> Path:
    """See the fixture `make_byte_tokenizer`."""
    if not isinstance(specials, dict):
        specials = {name: first + i for i, name in enumerate(specials)}
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    # Each byte as a letter: the printable ones as themselves, the others from U+0100 on.
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": id_, "content": name, "special": True} | flags for name, id_ in specials.items()],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {letters[byte]: byte for byte in range(256)}, "merges": []},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Path]:
    """`make_checkpoint(folder, layout, dialect=..., shards=..., index=..., **dims) -> folder`."""
    return write_made_checkpoint


@pytest.fixture(scope="session")
def made_tensors() -> Callable[..., dict[str, torch.Tensor]]:
    """`made_tensors(**dims)`: the weights of the made checkpoints of these sizes, by canonical name."""
    return lambda **dims: made_weights(Sizes(**dims))


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., Path]:
    """`write_checkpoint(folder, layout, config, weights)`: weights by canonical name, experts packed, in a layout."""

    def write(folder: Path, layout: str, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> Path:
        return write_files(folder, config, layout_tensors(layout, weights, config["num_hidden_layers"]), 1, False)

    return write


@pytest.fixture(scope="session")
def make_byte_tokenizer() -> Callable[..., Path]:
    """`make_byte_tokenizer(folder, specials, first)`: a `tokenizer.json` of single bytes, and the path of it.

    `specials` are names, with ids from `first` on (by default those after the bytes), or names with their ids.
    """
    return write_byte_tokenizer


@pytest.fixture(scope="session")
def make_config() -> Callable[..., dict[str, Any]]:
    """`make_config(layout, dialect, **dims)`: the `config.json` of the made checkpoints, parsed."""
    return lambda layout="hub_mxfp4", dialect="transformers4", **dims: made_config(layout, Sizes(**dims), dialect)
