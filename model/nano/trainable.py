"""nano's architecture and its weights while they are learnt: float32 in training, MXFP4 and bfloat16 as it sees them.

The later part of the training runs on the weights as the checkpoint will hold them (rounded, with a
straight-through gradient: Bengio et al. 2013), so that the shipped model is the model that was trained.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from gptoss.model.config import ModelConfig
from gptoss.model.nano.tokenizer import Tokenizer
from gptoss.model.tensors.mxfp4 import fake_quantize, quantize
from gptoss.model.tensors.weights import Experts, LayerWeights, Linear, Weights

NUM_LAYERS = 4
HIDDEN = 128
EXPERT_WIDTH = 128
NUM_EXPERTS = 8
EXPERTS_PER_TOKEN = 2
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 32

Parameters = dict[str, Tensor]


def config_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return nano's `config.json`, in the dialect of gpt-oss's own."""
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": tokenizer.special["<|return|>"],
        "experts_per_token": EXPERTS_PER_TOKEN,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initial_context_length": 1024,
        "initializer_range": 0.02,
        "intermediate_size": EXPERT_WIDTH,
        "layer_types": [("sliding_attention", "full_attention")[i % 2] for i in range(NUM_LAYERS)],
        "max_position_embeddings": 4096,
        "model_type": "gpt_oss",
        "num_attention_heads": HEADS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "num_hidden_layers": NUM_LAYERS,
        "num_key_value_heads": KV_HEADS,
        "num_local_experts": NUM_EXPERTS,
        "output_router_logits": False,
        "pad_token_id": tokenizer.special["<|endoftext|>"],
        "quantization_config": {
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
            "quant_method": "mxfp4",
        },
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 4.0,
            "original_max_position_embeddings": 1024,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 10000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": tokenizer.size,
    }


def generation_config_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return nano's `generation_config.json`: greedy, ended by the tokens that end a generation in harmony."""
    special = tokenizer.special
    return {
        "bos_token_id": special["<|startoftext|>"],
        "do_sample": False,
        "eos_token_id": [special["<|return|>"], special["<|endoftext|>"], special["<|call|>"]],
        "pad_token_id": special["<|endoftext|>"],
    }


def initial_parameters(config: ModelConfig, seed: int) -> Parameters:
    """Return float32 parameters by their names in the hub layout, the experts' matrices unpacked (experts, out, in)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    hidden, width, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    # What adds to the residual stream starts small in proportion to how often it does so (GPT-2).
    residual = 1 / math.sqrt(2 * len(config.layers))
    parameters = {
        "model.embed_tokens.weight": normal(config.vocab_size, hidden, scale=0.5),
        "model.norm.weight": torch.ones(hidden),
        "lm_head.weight": normal(config.vocab_size, hidden, scale=0.1 * hidden**-0.5),
    }
    for index, layer in enumerate(config.layers):
        prefix = f"model.layers.{index}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        parameters[f"{prefix}.input_layernorm.weight"] = torch.ones(hidden)
        parameters[f"{prefix}.post_attention_layernorm.weight"] = torch.ones(hidden)
        parameters[f"{attention}.sinks"] = torch.zeros(config.num_attention_heads)
        for name, heads in (
            ("q", config.num_attention_heads),
            ("k", config.num_key_value_heads),
            ("v", config.num_key_value_heads),
        ):
            parameters[f"{attention}.{name}_proj.weight"] = normal(heads * head_dim, hidden, scale=hidden**-0.5)
            parameters[f"{attention}.{name}_proj.bias"] = torch.zeros(heads * head_dim)
        joined = config.num_attention_heads * head_dim
        parameters[f"{attention}.o_proj.weight"] = normal(hidden, joined, scale=residual * joined**-0.5)
        parameters[f"{attention}.o_proj.bias"] = torch.zeros(hidden)
        parameters[f"{mlp}.router.weight"] = normal(layer.num_experts, hidden, scale=hidden**-0.5)
        parameters[f"{mlp}.router.bias"] = torch.zeros(layer.num_experts)
        experts = layer.num_experts
        parameters[f"{mlp}.experts.gate_up_proj"] = normal(experts, 2 * width, hidden, scale=hidden**-0.5)
        parameters[f"{mlp}.experts.gate_up_proj_bias"] = torch.zeros(experts, 2 * width)
        parameters[f"{mlp}.experts.down_proj"] = normal(experts, hidden, width, scale=residual * width**-0.5)
        parameters[f"{mlp}.experts.down_proj_bias"] = torch.zeros(experts, hidden)
    return {name: value.requires_grad_() for name, value in parameters.items()}


def as_weights(parameters: Parameters, *, rounded: bool = True) -> Weights:
    """Return the model's weights in float32, each `rounded` as the checkpoint will hold it.

    Gradients pass through the rounding to `parameters` unchanged.
    """
    tensors: Parameters = parameters
    if rounded:
        tensors = {
            name: _Rounded.apply(value, _is_packed(name))  # type: ignore[no-untyped-call]
            for name, value in parameters.items()
        }

    def linear(name: str) -> Linear:
        return Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def layer(prefix: str) -> LayerWeights:
        experts = f"{prefix}.mlp.experts"
        return LayerWeights(
            attention_norm=tensors[f"{prefix}.input_layernorm.weight"],
            q=linear(f"{prefix}.self_attn.q_proj"),
            k=linear(f"{prefix}.self_attn.k_proj"),
            v=linear(f"{prefix}.self_attn.v_proj"),
            o=linear(f"{prefix}.self_attn.o_proj"),
            sinks=tensors[f"{prefix}.self_attn.sinks"],
            mlp_norm=tensors[f"{prefix}.post_attention_layernorm.weight"],
            router=linear(f"{prefix}.mlp.router"),
            experts=Experts(
                gate_up=tensors[f"{experts}.gate_up_proj"],
                gate_up_bias=tensors[f"{experts}.gate_up_proj_bias"],
                down=tensors[f"{experts}.down_proj"],
                down_bias=tensors[f"{experts}.down_proj_bias"],
            ),
        )

    layers = sum(name.endswith(".sinks") for name in parameters)
    return Weights(
        embedding=tensors["model.embed_tokens.weight"],
        layers=tuple(layer(f"model.layers.{i}") for i in range(layers)),
        norm=tensors["model.norm.weight"],
        unembedding=Linear(tensors["lm_head.weight"]),
    )


class _Rounded(torch.autograd.Function):
    """Rounding whose gradient is that of the identity."""

    @staticmethod
    def forward(_context: Any, value: Tensor, packed: bool) -> Tensor:
        return fake_quantize(value) if packed else value.bfloat16().float()

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _is_packed(name: str) -> bool:
    return name.endswith(("gate_up_proj", "down_proj"))


def write_checkpoint(folder: Path, parameters: Parameters, tokenizer: Tokenizer) -> None:
    """Write a complete checkpoint in the hub layout: configs, weights and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, value in sorted(parameters.items()):
        if _is_packed(name):
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = quantize(value.detach().cpu())
        else:
            tensors[name] = value.detach().cpu().bfloat16().contiguous()
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    for name, content in (
        ("config.json", config_json(tokenizer)),
        ("generation_config.json", generation_config_json(tokenizer)),
        (
            "tokenizer_config.json",
            {
                "bos_token": "<|startoftext|>",
                "clean_up_tokenization_spaces": False,
                "eos_token": "<|return|>",
                "model_max_length": 4096,
                "pad_token": "<|endoftext|>",
                "tokenizer_class": "PreTrainedTokenizerFast",
            },
        ),
        ("tokenizer.json", tokenizer.to_json()),
    ):
        text = json.dumps(content, indent=1 if name == "tokenizer.json" else 2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
