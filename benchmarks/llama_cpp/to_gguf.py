"""Write a gpt-oss checkpoint in the hub layout as a GGUF file for llama.cpp; no vocabulary, for measurements only.

    python to_gguf.py CHECKPOINT OUT.gguf [q8_0|bf16]

Experts stay in MXFP4; the rest becomes Q8_0, as in the published GGUF files, or BF16. Needs gguf, torch, safetensors.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open

TYPES = gguf.GGMLQuantizationType


def main() -> None:
    source, target = Path(sys.argv[1]), sys.argv[2]
    dense = {"q8_0": TYPES.Q8_0, "bf16": TYPES.BF16}[sys.argv[3] if len(sys.argv) > 3 else "q8_0"]
    config = json.loads((source / "config.json").read_text())
    files = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    opened = {name: safe_open(source / name, "pt") for name in set(files.values())}
    writer = gguf.GGUFWriter(target, "gpt-oss")

    def get(name: str) -> torch.Tensor:
        return opened[files[name]].get_tensor(name)

    def plain(name: str, tensor: torch.Tensor) -> None:
        writer.add_tensor(name, tensor.float().contiguous().numpy())

    def matrix(name: str, tensor: torch.Tensor) -> None:
        writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), dense), raw_dtype=dense)

    def experts(name: str, blocks: torch.Tensor, scales: torch.Tensor) -> None:
        # A ggml block: the scale, then 16 bytes that hold values i and i + 16.
        codes = np.stack([blocks.numpy() & 15, blocks.numpy() >> 4], -1).reshape(*blocks.shape[:-1], 32)
        bytes_ = codes[..., :16] | (codes[..., 16:] << 4)
        whole = np.concatenate([scales.numpy()[..., None], bytes_], -1)
        writer.add_tensor(name, whole.reshape(*whole.shape[:-2], -1), raw_dtype=TYPES.MXFP4)

    write_config(writer, config)
    matrix("token_embd.weight", get("model.embed_tokens.weight"))
    matrix("output.weight", get("lm_head.weight"))
    plain("output_norm.weight", get("model.norm.weight"))
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"model.layers.{layer}.", f"blk.{layer}."
        plain(theirs + "attn_norm.weight", get(ours + "input_layernorm.weight"))
        plain(theirs + "post_attention_norm.weight", get(ours + "post_attention_layernorm.weight"))
        for one, other in (("q", "attn_q"), ("k", "attn_k"), ("v", "attn_v"), ("o", "attn_output")):
            matrix(f"{theirs}{other}.weight", get(f"{ours}self_attn.{one}_proj.weight"))
            plain(f"{theirs}{other}.bias", get(f"{ours}self_attn.{one}_proj.bias"))
        plain(theirs + "attn_sinks.weight", get(ours + "self_attn.sinks"))
        plain(theirs + "ffn_gate_inp.weight", get(ours + "mlp.router.weight"))
        plain(theirs + "ffn_gate_inp.bias", get(ours + "mlp.router.bias"))
        up = [get(f"{ours}mlp.experts.gate_up_proj_{part}") for part in ("blocks", "scales", "bias")]
        for offset, name in enumerate(("gate", "up")):
            experts(f"{theirs}ffn_{name}_exps.weight", up[0][:, offset::2], up[1][:, offset::2])
            plain(f"{theirs}ffn_{name}_exps.bias", up[2][:, offset::2])
        down = [get(f"{ours}mlp.experts.down_proj_{part}") for part in ("blocks", "scales", "bias")]
        experts(theirs + "ffn_down_exps.weight", down[0], down[1])
        plain(theirs + "ffn_down_exps.bias", down[2])
        print("layer", layer, flush=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()


def write_config(writer: gguf.GGUFWriter, config: dict) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(config["rope_scaling"]["factor"])
    writer.add_rope_scaling_orig_ctx_len(config["rope_scaling"]["original_max_position_embeddings"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(38)  # mostly MXFP4


if __name__ == "__main__":
    main()
