"""The gpt-oss model: checkpoints, the transformer, sampling and generation. Knows token ids, never text.

Names are imported when first used, so that what needs no tensors (errors, the catalogue) does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptoss.model.cache import KVCache
    from gptoss.model.checkpoint import Checkpoint
    from gptoss.model.config import ModelConfig
    from gptoss.model.constraint import Constraint, Constraints, Forced, Hold, Masked, StopTokens
    from gptoss.model.engine import Engine, Generation, Timing
    from gptoss.model.errors import (
        CheckpointError,
        ConfigError,
        ConstraintError,
        ContextFullError,
        DeviceError,
        ModelError,
        ModelNotFoundError,
        SamplingError,
        UnsupportedModelError,
    )
    from gptoss.model.sampler import Sampler, SamplingParams, Token
    from gptoss.model.transformer import Transformer
    from gptoss.model.weights import Weights

_HOME = {
    "KVCache": "cache",
    "Checkpoint": "checkpoint",
    "ModelConfig": "config",
    "Constraint": "constraint",
    "Constraints": "constraint",
    "Forced": "constraint",
    "Hold": "constraint",
    "Masked": "constraint",
    "StopTokens": "constraint",
    "Engine": "engine",
    "Generation": "engine",
    "Timing": "engine",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ConstraintError": "errors",
    "ContextFullError": "errors",
    "DeviceError": "errors",
    "ModelError": "errors",
    "ModelNotFoundError": "errors",
    "SamplingError": "errors",
    "UnsupportedModelError": "errors",
    "Sampler": "sampler",
    "SamplingParams": "sampler",
    "Token": "sampler",
    "Transformer": "transformer",
    "Weights": "weights",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
