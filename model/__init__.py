"""The gpt-oss model: checkpoints, the transformer, sampling and generation. Knows token ids, never text.

Names are imported when first used, so that what needs no tensors (errors, the catalogue) does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptoss.model.cache import KVCache as KVCache
    from gptoss.model.checkpoint import Checkpoint as Checkpoint
    from gptoss.model.config import ModelConfig as ModelConfig
    from gptoss.model.constraint import (
        Constraint as Constraint,
    )
    from gptoss.model.constraint import (
        Constraints as Constraints,
    )
    from gptoss.model.constraint import (
        Forced as Forced,
    )
    from gptoss.model.constraint import (
        Hold as Hold,
    )
    from gptoss.model.constraint import (
        Masked as Masked,
    )
    from gptoss.model.engine import Engine as Engine
    from gptoss.model.engine import Generation as Generation
    from gptoss.model.engine import Timing as Timing
    from gptoss.model.errors import (
        CheckpointError as CheckpointError,
    )
    from gptoss.model.errors import (
        ConfigError as ConfigError,
    )
    from gptoss.model.errors import (
        ConstraintError as ConstraintError,
    )
    from gptoss.model.errors import (
        ContextFullError as ContextFullError,
    )
    from gptoss.model.errors import (
        DeviceError as DeviceError,
    )
    from gptoss.model.errors import (
        ModelError as ModelError,
    )
    from gptoss.model.errors import (
        ModelNotFoundError as ModelNotFoundError,
    )
    from gptoss.model.errors import (
        SamplingError as SamplingError,
    )
    from gptoss.model.errors import (
        UnsupportedModelError as UnsupportedModelError,
    )
    from gptoss.model.sampler import Sampler as Sampler
    from gptoss.model.sampler import SamplingParams as SamplingParams
    from gptoss.model.sampler import Token as Token
    from gptoss.model.transformer import Transformer as Transformer
    from gptoss.model.weights import Weights as Weights

_HOME = {
    "KVCache": "cache",
    "Checkpoint": "checkpoint",
    "ModelConfig": "config",
    "Constraint": "constraint",
    "Constraints": "constraint",
    "Forced": "constraint",
    "Hold": "constraint",
    "Masked": "constraint",
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
