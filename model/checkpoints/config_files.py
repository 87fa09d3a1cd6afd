"""Reads the config files of a checkpoint's folder."""

from __future__ import annotations

from pathlib import Path

from gptoss.model.checkpoints.config_dialects import parse_generation_defaults, parse_model_config
from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.config import GenerationDefaults, ModelConfig

CONFIG = "config.json"
_GENERATION_CONFIG = "generation_config.json"


def load_config(folder: Path | str) -> ModelConfig:
    """Read a folder's `config.json`.

    Raises:
        CheckpointError: it is missing, not JSON, or leads out of the folder.
        ConfigError, UnsupportedModelError: as `parse_model_config`.
    """
    return CheckpointFolder(Path(folder)).parse_json(CONFIG, parse_model_config)


def load_generation_defaults(folder: Path | str) -> GenerationDefaults:
    """Read a folder's `generation_config.json`; without the file, nothing is asked for.

    Raises:
        CheckpointError: it is not JSON, or leads out of the folder.
        ConfigError: a value is of the wrong type or out of range.
    """
    checkpoint = CheckpointFolder(Path(folder))
    if not checkpoint.has(_GENERATION_CONFIG):
        return GenerationDefaults()
    return checkpoint.parse_json(_GENERATION_CONFIG, parse_generation_defaults)
