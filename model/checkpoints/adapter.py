"""Opens a LoRA adapter as PEFT saves one: a folder with `adapter_config.json` and `adapter_model.safetensors`.

Reads what `peft.LoraConfig` and `peft.tuners.lora` (0.21) write, for the layers of gpt-oss: a linear layer has
`lora_A` (rank, in) and `lora_B` (out, rank); the experts of a layer, as a targeted parameter, `lora_A`
(experts * rank, in), an expert after the other, and `lora_B` (out, rank * experts), the expert changing fastest. The
layer's output gains scaling * B(A(x)).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptoss.model.checkpoints.config_values import boolean, integer, number
from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.checkpoints.safetensors_file import SafetensorsFile
from gptoss.model.config import ModelConfig
from gptoss.model.errors import CheckpointError, ConfigError, UnsupportedModelError, quote
from gptoss.model.tensors.low_rank import LowRank

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 4096

_PICKLES = (".bin", ".pt", ".pth")
_NAME = re.compile(
    r"base_model\.model\."
    r"(?P<module>lm_head|model\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\."
    r"(?P<part>self_attn\.[qkvo]_proj|mlp\.router|mlp\.experts))"
    r"(?P<nested>(?:\.base_layer){0,3})\.lora_(?P<side>[AB])\.weight"
)
# PEFT stores the base model's unembedding too, where it changes that.
_COPY = "base_model.model.lm_head.base_layer.weight"
_CANONICAL = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "mlp.router": "router",
}
_FLOAT = frozenset({"F32", "F16", "BF16"})
# Settings of the training, or of how PEFT finds its modules: the tensors' names say which they are.
_IGNORED = frozenset(
    {
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "target_modules",
        "exclude_modules",
        "target_parameters",
        "layers_to_transform",
        "layers_pattern",
        "lora_dropout",
        "fan_in_fan_out",
        "megatron_config",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "runtime_config",
        "ensure_weight_tying",
        "qalora_group_size",
        "ephemeral_gpu_offload",
        "velora_config",
    }
)
_READ = frozenset({"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias"})
# Initialisations that leave the base model as it is; the others change its weights too.
_PLAIN_STARTS = ("gaussian", "eva")


@dataclass(frozen=True)
class _Pair:
    """The two matrices of one target, by the names in the file."""

    down: str
    up: str
    rank: int
    scaling: float


class Adapter:
    """An opened adapter; make one with `Adapter.open`.

    Attributes:
        folder: its path, links resolved.
        base: the base model's name, as the adapter states it; None: it does not.
        ranks: the ranks that occur, rising.
        targets: canonical names of the matrices that it changes, such as `layers.3.q` or `layers.7.gate_up`.
        nbytes: of its tensors as they are used, in float32.
        fingerprint: differs between adapters.
    """

    def __init__(
        self, folder: Path, base: str | None, file: SafetensorsFile, pairs: Mapping[str, _Pair], config: bytes
    ) -> None:
        self.folder = folder
        self.base = base
        self.ranks = tuple(sorted({pair.rank for pair in pairs.values()}))
        self.targets = tuple(pairs)
        names = {name for pair in pairs.values() for name in (pair.down, pair.up)}
        self.nbytes = sum(4 * math.prod(file.tensors[name].shape) for name in names)
        self.fingerprint = hashlib.sha256(hashlib.sha256(config).digest() + file.identity).hexdigest()
        self.mapping = file.mapping
        self._file = file
        self._pairs = pairs

    @classmethod
    def open(cls, folder: Path | str, config: ModelConfig) -> Adapter:
        """Open the adapter in a folder, for a model of this config. Reads headers only.

        Raises:
            CheckpointError: a file is missing or broken, or a shape does not go with the model.
            ConfigError: its config is broken.
            UnsupportedModelError: it is another kind of adapter, or changes what cannot be changed here.
        """
        files = CheckpointFolder(Path(folder))
        _require_files(files)
        text = files.text(CONFIG)
        settings = files.parse_json(CONFIG, lambda values: values, text)
        named: Any = settings.get("base_model_name_or_path")
        try:
            scale = _Scaling(settings)
        except CheckpointError as error:
            raise type(error)(f"{quote(files.path / CONFIG)}: {error}") from error
        file = SafetensorsFile(files.file(WEIGHTS))
        pairs = _pairs(file, config, scale)
        return cls(files.path, named if isinstance(named, str) and named else None, file, pairs, text)

    def low_rank(self, target: str) -> LowRank | None:
        """Return what the adapter adds to the matrix of this canonical name; None: nothing.

        Of experts with a leading axis; of gate and up with rows as the model has them.
        """
        pair = self._pairs.get(target)
        if pair is None:
            return None
        down, up = self._tensor(pair.down), self._tensor(pair.up) * pair.scaling
        if target.rpartition(".")[2] in ("gate_up", "down"):
            experts = down.shape[0] // pair.rank
            down = down.view(experts, pair.rank, down.shape[1])
            up = up.view(up.shape[0], pair.rank, experts).permute(2, 0, 1)
        return LowRank(down.contiguous(), up.contiguous())

    def __str__(self) -> str:
        ranks = f"rank {self.ranks[0]}" if len(self.ranks) == 1 else f"ranks {self.ranks[0]} to {self.ranks[-1]}"
        made = "" if self.base is None else f", made for {self.base}"
        return f"LoRA of {ranks} on {', '.join(_parts(self.targets))}{made}"

    def _tensor(self, name: str) -> Tensor:
        values = self._file.tensor(name).to(torch.float32, copy=True)
        if not bool(values.isfinite().all()):
            raise CheckpointError(f"{quote(self._file.path)}: {quote(name)} has weights that are infinite or no number")
        return values


class _Scaling:
    """The settings of an adapter that affect its product.

    Raises:
        ConfigError: one is missing or of the wrong type.
        UnsupportedModelError: it is no LoRA adapter, or has a setting that changes more than the product.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        kind = settings.get("peft_type")
        if kind != "LORA":
            raise UnsupportedModelError(f"peft_type is {quote(kind)}: only LORA adapters are applied")
        start = settings.get("init_lora_weights")
        if not (start is None or start is True or start is False or start in _PLAIN_STARTS):
            raise UnsupportedModelError(
                f"init_lora_weights is {quote(start)}, which changes the base model too: convert it (PEFT's "
                "save_pretrained with path_initial_model_for_weight_conversion), or merge it"
            )
        if settings.get("bias", "none") != "none":
            raise UnsupportedModelError(
                f"bias is {quote(settings['bias'])}: adapters that change biases are not applied"
            )
        known = _IGNORED | _READ | {"init_lora_weights"}
        other = next((key for key, value in settings.items() if key not in known and value), None)
        if other is not None:
            raise UnsupportedModelError(
                f"{quote(other)} is set, which is not applied here: merge the adapter into its model (peft's "
                "merge_and_unload), and name that"
            )
        self._rank = integer(settings, "r", 1, MAX_RANK)
        self._alpha = number(settings, "lora_alpha")
        self._is_rank_stabilised = boolean(settings, "use_rslora", False)
        self._ranks = _pattern(settings, "rank_pattern")
        self._alphas = _pattern(settings, "alpha_pattern")
        if not math.isfinite(self._alpha):
            raise ConfigError(f"lora_alpha is {self._alpha}")

    def of(self, module: str, rank: int) -> float:
        """Return the factor of a module's product.

        Raises:
            CheckpointError: the rank is not that of the config.
        """
        expected = _matching(self._ranks, module, self._rank)
        if rank != expected:
            raise CheckpointError(f"{quote(module)} has the rank {rank}, by {CONFIG} it is {expected:g}")
        alpha = _matching(self._alphas, module, self._alpha)
        return alpha / math.sqrt(rank) if self._is_rank_stabilised else alpha / rank


def _pattern(settings: Mapping[str, Any], key: str) -> Mapping[str, float]:
    """Return values by the ends of modules' names. PEFT takes patterns; one that is more than a name is refused."""
    values = settings.get(key) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{key} is {quote(values)}, not an object")
    for name in values:
        if not re.fullmatch(r"\^?[A-Za-z0-9_.]{1,200}", name):
            raise UnsupportedModelError(f"{key} has the pattern {quote(name)}: only names of modules are read")
    return {name: number(values, name, where=key) for name in values}


def _matching(values: Mapping[str, float], module: str, default: float) -> float:
    for name, value in values.items():
        bare = name.removeprefix("^")
        if module == bare or (bare == name and module.endswith(f".{name}")):
            return value
    return default


def _require_files(files: CheckpointFolder) -> None:
    names = files.names()
    if CONFIG not in names:
        raise CheckpointError(f"{quote(files.path)} is no adapter: it has no {CONFIG}")
    if WEIGHTS in names:
        return
    pickle = next((name for name in names if name.startswith("adapter_model") and name.endswith(_PICKLES)), None)
    if pickle is not None:
        raise UnsupportedModelError(
            f"{quote(files.path)} has its weights in a pickle file ({quote(pickle)}), which can run any code and is "
            "never opened: save it again with safe_serialization=True"
        )
    raise CheckpointError(f"{quote(files.path)} has no {WEIGHTS}: download it too")


def _pairs(file: SafetensorsFile, config: ModelConfig, scaling: _Scaling) -> dict[str, _Pair]:
    """Return the pair of each target.

    Raises:
        CheckpointError: half of a pair is missing, or a shape does not go with the model.
        UnsupportedModelError: a tensor of another kind.
    """
    sides: dict[tuple[str, str], dict[str, str]] = {}
    for name, info in file.tensors.items():
        if name == _COPY and info.shape == (config.vocab_size, config.hidden_size):
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            raise UnsupportedModelError(
                f"{quote(file.path)} has {quote(name)}, which is not applied here: merge the adapter into its model "
                "(peft's merge_and_unload), and name that"
            )
        if info.dtype not in _FLOAT or len(info.shape) != 2:
            raise UnsupportedModelError(f"{quote(file.path)}: {quote(name)} is {info.dtype} of the shape {info.shape}")
        if match["layer"] is not None and int(match["layer"]) >= config.num_layers:
            raise CheckpointError(
                f"{quote(file.path)} changes layer {match['layer']}, but the model has {config.num_layers} layers: it "
                "was made for another model"
            )
        sides.setdefault((match["module"], match["nested"]), {})[match["side"]] = name
    pairs: dict[str, _Pair] = {}
    for (module, _nested), names in sorted(sides.items()):
        missing = next((side for side in "AB" if side not in names), None)
        if missing is not None:
            raise CheckpointError(f"{quote(file.path)} has no lora_{missing} of {quote(module)}: download it again")
        down, up = (file.tensors[names[side]].shape for side in "AB")
        target, rank = _target(module, (down[0], down[1]), (up[0], up[1]), config, file.path)
        if target in pairs:
            raise CheckpointError(f"{quote(file.path)} changes {quote(target)} twice")
        try:
            factor = scaling.of(module, rank)
        except CheckpointError as error:
            raise type(error)(f"{quote(file.path)}: {error}") from error
        pairs[target] = _Pair(names["A"], names["B"], rank, factor)
    if not pairs:
        raise CheckpointError(f"{quote(file.path)} changes nothing: it has no tensors")
    return pairs


def _target(
    module: str, down: tuple[int, int], up: tuple[int, int], config: ModelConfig, path: Path
) -> tuple[str, int]:
    """Return the canonical name of the matrix that a pair changes, and the rank; the shapes tell gate_up from down."""
    match = re.fullmatch(r"model\.layers\.([0-9]+)\.(.+)", module)
    layer = -1 if match is None else int(match.group(1))
    part = module if match is None else match.group(2)
    experts = 1 if part != "mlp.experts" else config.layers[layer].num_experts
    for target, (rows, columns) in _shapes(part, layer, config).items():
        if down[1] == columns and up[0] == rows and down[0] == up[1] and down[0] % experts == 0:
            rank = down[0] // experts
            if 1 <= rank <= MAX_RANK:
                return target if layer < 0 else f"layers.{layer}.{target}", rank
    wanted = " or ".join(f"{rows} x {columns}" for rows, columns in _shapes(part, layer, config).values())
    raise CheckpointError(
        f"{quote(path)}: lora_A and lora_B of {quote(module)} are {down[0]} x {down[1]} and {up[0]} x {up[1]}, which "
        f"do not make {wanted}: the adapter was made for another model"
    )


def _shapes(part: str, layer: int, config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return the matrices (rows, columns) that a module of this name has, by canonical name."""
    hidden, width = config.hidden_size, config.intermediate_size
    heads, kv = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    if part == "mlp.experts":
        return {"gate_up": (2 * width, hidden), "down": (hidden, width)}
    rows, columns = {
        "lm_head": (config.vocab_size, hidden),
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.router": (config.layers[layer].num_experts, hidden),
    }[part]
    return {_CANONICAL.get(part, "unembedding"): (rows, columns)}


def _parts(targets: tuple[str, ...]) -> list[str]:
    """Return the parts that are changed, for people: `q and v of 24 layers`."""
    layers: dict[str, list[int]] = {}
    for target in targets:
        if target != "unembedding":
            _layers, number, part = target.split(".")
            layers.setdefault("experts" if part in ("gate_up", "down") else part, []).append(int(number))
    by_layers: dict[tuple[int, ...], list[str]] = {}
    for part in ("q", "k", "v", "o", "router", "experts"):
        if part in layers:
            by_layers.setdefault(tuple(sorted(set(layers[part]))), []).append(part)
    told = []
    for numbers, parts in by_layers.items():
        where = f"layers {', '.join(map(str, numbers))}" if 1 < len(numbers) <= 4 else f"{len(numbers)} layers"
        told.append(f"{', '.join(parts)} of {where if len(numbers) > 1 else f'layer {numbers[0]}'}")
    return told + (["unembedding"] if "unembedding" in targets else [])
