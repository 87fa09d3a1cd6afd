"""Mutated adapters: each ends in a typed error of one line, or opens."""

import json
import random
import struct
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save_file

from gptoss.model.checkpoints.adapter import Adapter
from gptoss.model.checkpoints.config_files import load_config
from gptoss.model.errors import ModelError
from gptoss.model.nano import __file__ as _nano

MUTANTS = 600
PREFIX = "base_model.model.model.layers"
TENSORS = {
    f"{PREFIX}.1.self_attn.q_proj.lora_A.weight": torch.zeros(4, 128),
    f"{PREFIX}.1.self_attn.q_proj.lora_B.weight": torch.zeros(128, 4),
    f"{PREFIX}.2.mlp.experts.lora_A.weight": torch.zeros(32, 128),
    f"{PREFIX}.2.mlp.experts.lora_B.weight": torch.zeros(128, 32),
}
CONFIG = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {"q_proj": 4},
    "base_model_name_or_path": "x",
    "init_lora_weights": True,
    "bias": "none",
}
VALUES = [None, True, -1, 0, 1e300, "x\n\x1b", [], {}, [1], {"a": 1}, 1 << 70, {"q_proj": "x"}, {"q_proj": None}]


def changed_bytes(data: bytes, end: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(end)] = rng.randrange(256)
    return bytes(changed)


def test_every_mutant_ends_in_a_line(tmp_path):
    model = load_config(Path(_nano).parent / "checkpoint")
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    save_file(TENSORS, weights)
    sound, text, rng = weights.read_bytes(), json.dumps(CONFIG).encode(), random.Random(1)
    header = 8 + struct.unpack("<Q", sound[:8])[0]
    ends: Counter[str] = Counter()
    lines: list[str] = []
    for number in range(MUTANTS):
        settings, data = text, sound
        if number % 3 == 0:
            settings = changed_bytes(text, len(text), rng)
        elif number % 3 == 1:
            key = rng.choice([*CONFIG, "new", "use_dora", "modules_to_save"])
            settings = json.dumps(CONFIG | {key: rng.choice(VALUES)}).encode()
        else:
            data = changed_bytes(sound, header, rng)[: rng.choice([len(sound), rng.randrange(len(sound))])]
        config.write_bytes(settings)
        weights.write_bytes(data)
        try:
            adapter = Adapter.open(tmp_path, model)
            for target in adapter.targets:
                assert adapter.low_rank(target) is not None
            ends[str(adapter)[:4]] += 1
        except ModelError as error:
            ends[type(error).__name__] += 1
            lines.append(str(error))
    print(f"\n{MUTANTS} mutants of an adapter: {dict(ends)}")
    assert all(line.isprintable() for line in lines)
    assert ends["LoRA"] > 20
    assert {"CheckpointError", "ConfigError", "UnsupportedModelError"} <= ends.keys()
