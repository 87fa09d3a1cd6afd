"""Write the built-in model, or any small checkpoint in the hub's layout, as GGUF with llama.cpp's own library."""

import enum
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

from gptoss.model.nano import __file__ as _nano

NANO = Path(_nano).parent / "checkpoint"
Kind = gguf.GGMLQuantizationType
_PLAIN = (Kind.F32, Kind.F16, Kind.BF16)


def write_gguf(
    out: Path,
    folder: Path = NANO,
    *,
    dense: Kind = Kind.BF16,
    experts: Kind = Kind.MXFP4,
    arch: str = "gpt-oss",
    vocabulary: bool = True,
    change: Any = None,
    split_tensors: int = 0,
    tied: bool = False,
    fused: bool = False,
    without: str = "",
    dequantize: Path | None = None,
) -> Path:
    """Write a checkpoint as GGUF.

    Args:
        out: the file; with `split_tensors`, the library makes the names of the parts of its stem.
        folder: a checkpoint in the hub's layout with MXFP4 experts.
        dense: type of the attention's matrices, the embedding and the unembedding.
        experts: type of the experts' matrices.
        arch: `gpt-oss`, or `gptoss` with the names that Ollama first gave.
        vocabulary: write the tokens too.
        change: called with the writer, to add metadata.
        split_tensors: tensors in each file; 0: one file.
        tied: leave the unembedding out.
        fused: query, key and value in one tensor, gate and up in one whose rows alternate, the codes of packed experts
            in the order of the hub's files: Ollama's first converter.
        without: name of a tensor to leave out.
        dequantize: a file whose matrices are taken, with the values of their blocks, in place of the checkpoint's.

    Returns:
        The file, or the first of them.
    """
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(out, arch, split_max_tensors=split_tensors)
    _write_config(writer, config, arch)
    if vocabulary:
        write_vocabulary(writer, folder, config["vocab_size"])
    if change is not None:
        change(writer)
    given = {} if dequantize is None else {each.name: each for each in gguf.GGUFReader(dequantize).tensors}
    out.parent.mkdir(exist_ok=True)
    _Tensors(writer, tensors, dense, experts, arch, fused, without, given).write(config["num_hidden_layers"], tied)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not split_tensors:
        return out
    return next(out.parent.glob(f"{out.stem}-00001-of-*.gguf"))


def _write_config(writer: gguf.GGUFWriter, config: dict[str, Any], arch: str) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_freq_base(config.get("rope_theta") or rope["rope_theta"])
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if arch == "gpt-oss":
        writer.add_expert_feed_forward_length(config["intermediate_size"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)


def write_vocabulary(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    """Write the tokens and merges of a `tokenizer.json`; ids without a token get a name as llama.cpp gives one."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {each["content"]: each["id"] for each in tokenizer["added_tokens"]}
    vocab = tokenizer["model"]["vocab"] | special
    names = {token: word for word, token in vocab.items()}
    words = [names.get(token, f"[PAD{token}]") for token in range(vocab_size)]
    kinds = [3 if word in special else 1 if token in names else 5 for token, word in enumerate(words)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_chat_template("{{ messages }}")


class _Four(enum.IntEnum):
    NEIGHBOURS = 4


class _Tensors:
    """Writes the tensors in llama.cpp's names, or in those of Ollama."""

    def __init__(
        self,
        writer: gguf.GGUFWriter,
        tensors: dict[str, torch.Tensor],
        dense: Kind,
        experts: Kind,
        arch: str,
        fused: bool,
        without: str,
        given: dict[str, Any],
    ) -> None:
        self._writer, self._tensors, self._dense, self._experts = writer, tensors, dense, experts
        self._is_ollama, self._fused, self._without, self._given = arch == "gptoss", fused, without, given

    def write(self, num_layers: int, tied: bool) -> None:
        take = self._tensors
        self._matrix("token_embd.weight", take["model.embed_tokens.weight"])
        self._vector("output_norm.weight", take["model.norm.weight"])
        if not tied:
            self._matrix("output.weight", take.get("lm_head.weight", take["model.embed_tokens.weight"]))
        for index in range(num_layers):
            self._layer(f"model.layers.{index}.", f"blk.{index}.")

    def _layer(self, stored: str, name: str) -> None:
        take, ollama = self._tensors, self._is_ollama
        self._vector(name + "attn_norm.weight", take[stored + "input_layernorm.weight"])
        norm = "ffn_norm" if ollama else "post_attention_norm"
        self._vector(f"{name}{norm}.weight", take[stored + "post_attention_layernorm.weight"])
        self._vector(name + ("attn_sinks" if ollama else "attn_sinks.weight"), take[stored + "self_attn.sinks"])
        if self._fused:
            parts = [take[f"{stored}self_attn.{part}_proj.weight"] for part in "qkv"]
            self._matrix(f"{name}attn_qkv.weight", torch.cat(parts))
            biases = [take[f"{stored}self_attn.{part}_proj.bias"] for part in "qkv"]
            self._vector(f"{name}attn_qkv.bias", torch.cat(biases))
        for part, other in (("q", "attn_q"), ("k", "attn_k"), ("v", "attn_v"), ("o", "attn_output")):
            if self._fused and part != "o":
                continue
            other = "attn_out" if ollama and part == "o" else other
            self._matrix(f"{name}{other}.weight", take[f"{stored}self_attn.{part}_proj.weight"])
            self._vector(f"{name}{other}.bias", take[f"{stored}self_attn.{part}_proj.bias"])
        self._vector(name + "ffn_gate_inp.weight", take[stored + "mlp.router.weight"])
        self._vector(name + "ffn_gate_inp.bias", take[stored + "mlp.router.bias"])
        experts = stored + "mlp.experts."
        blocks, scales = take[experts + "gate_up_proj_blocks"], take[experts + "gate_up_proj_scales"]
        bias = take[experts + "gate_up_proj_bias"]
        if self._fused:
            self._expert_matrix(f"{name}ffn_gate_up_exps.weight", blocks, scales)
            self._vector(f"{name}ffn_gate_up_exps.bias", bias)
        for first, other in () if self._fused else ((0, "ffn_gate_exps"), (1, "ffn_up_exps")):
            self._expert_matrix(f"{name}{other}.weight", blocks[:, first::2], scales[:, first::2])
            self._vector(f"{name}{other}.bias", bias[:, first::2])
        self._expert_matrix(
            name + "ffn_down_exps.weight", take[experts + "down_proj_blocks"], take[experts + "down_proj_scales"]
        )
        self._vector(name + "ffn_down_exps.bias", take[experts + "down_proj_bias"])

    def _vector(self, name: str, tensor: torch.Tensor) -> None:
        if name != self._without:
            self._writer.add_tensor(name, tensor.float().contiguous().numpy())

    def _matrix(self, name: str, tensor: torch.Tensor) -> None:
        given = self._given.get(name)
        if given is not None:
            self._add(name, gguf.quants.dequantize(given.data, given.tensor_type), self._dense)
        else:
            self._add(name, tensor.float().contiguous().numpy(), self._dense)

    def _expert_matrix(self, name: str, blocks: torch.Tensor, scales: torch.Tensor) -> None:
        if name == self._without:
            return
        if self._experts is Kind.MXFP4 and self._fused:
            joined = torch.cat((scales[..., None], blocks), -1).flatten(-2).contiguous().numpy()
            # 4 is the number that Ollama gave MXFP4; the library knows 4 as no type at all.
            self._writer.add_tensor_info(name, joined.shape, joined.dtype, joined.nbytes, raw_dtype=Kind.MXFP4)
            self._writer.tensors[-1][name].tensor = joined
            self._writer.tensors[-1][name].dtype = _Four.NEIGHBOURS  # type: ignore[assignment]
        elif self._experts is Kind.MXFP4:
            self._writer.add_tensor(name, joined_blocks(blocks, scales).numpy(), raw_dtype=Kind.MXFP4)
        else:
            self._add(name, _dequantized(blocks, scales), self._experts)

    def _add(self, name: str, values: np.ndarray, kind: Kind) -> None:
        if name == self._without:
            return
        if kind is Kind.F32:
            self._writer.add_tensor(name, values)
        elif kind is Kind.F16:
            self._writer.add_tensor(name, values.astype(np.float16))
        else:
            self._writer.add_tensor(name, quantized(values, kind), raw_dtype=kind)


def quantized(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Return rows of values in a type, as bytes; random blocks of small scales where the library cannot quantise."""
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        return random_blocks(values.shape, kind)


def random_blocks(shape: tuple[int, ...], kind: Kind, seed: int = 0) -> np.ndarray:
    """Return random bytes of a K-quant or IQ4_NL whose scales are small and finite: (..., bytes of a row)."""
    size, nbytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (*shape[:-1], shape[-1] // size, nbytes), dtype=np.uint8)
    for at in _SCALES[kind]:
        blocks[..., at] &= 0x7F
        blocks[..., at + 1] = 0x08 + (blocks[..., at + 1] & 0x81)  # about 2^-13
    return blocks.reshape(*shape[:-1], -1)


# The places of the float16 scales in a block.
_SCALES = {
    Kind.IQ4_NL: (0,),
    Kind.Q2_K: (80, 82),
    Kind.Q3_K: (108,),
    Kind.Q4_K: (0, 2),
    Kind.Q5_K: (0, 2),
    Kind.Q6_K: (208,),
}


def joined_blocks(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return packed MXFP4 in ggml's blocks of 17 bytes: (..., rows, bytes of a row)."""
    codes = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2)
    joined = torch.cat((scales[..., None], codes[..., :16] | codes[..., 16:] << 4), -1)
    return joined.flatten(-2).contiguous()


def _dequantized(blocks: torch.Tensor, scales: torch.Tensor) -> np.ndarray:
    from gptoss.model.tensors.mxfp4 import dequantize

    return dequantize(blocks, scales).numpy()
