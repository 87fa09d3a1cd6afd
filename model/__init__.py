"""The gpt-oss model: checkpoints, the transformer, sampling and generation. Knows token ids, never text.

Names are imported when first used, so that what needs no tensors (errors, the catalogue) does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptoss.model.architecture.transformer import Transformer as Transformer
    from gptoss.model.checkpoints.checkpoint import Checkpoint as Checkpoint
    from gptoss.model.config import GenerationDefaults as GenerationDefaults, ModelConfig as ModelConfig
    from gptoss.model.constraint import (
        Constraint as Constraint,
        Constraints as Constraints,
        Forced as Forced,
        Hold as Hold,
        LogitMask as LogitMask,
        StepwiseConstraint as StepwiseConstraint,
        StopTokens as StopTokens,
    )
    from gptoss.model.constraint_description import (
        Choices as Choices,
        ContentGrammar as ContentGrammar,
        Description as Description,
        JsonSchema as JsonSchema,
        MessageForm as MessageForm,
        Regex as Regex,
        TokenBudget as TokenBudget,
    )
    from gptoss.model.errors import (
        CheckpointError as CheckpointError,
        ConfigError as ConfigError,
        ConstraintError as ConstraintError,
        ContextFullError as ContextFullError,
        DeviceError as DeviceError,
        EngineBusyError as EngineBusyError,
        ModelError as ModelError,
        ModelNotFoundError as ModelNotFoundError,
        SamplingError as SamplingError,
        UnsupportedModelError as UnsupportedModelError,
    )
    from gptoss.model.inference.engine import LocalEngine as LocalEngine
    from gptoss.model.inference.sampler import Sampler as Sampler
    from gptoss.model.interface import (
        Capabilities as Capabilities,
        ContextUsage as ContextUsage,
        Engine as Engine,
        EngineInfo as EngineInfo,
        FinishReason as FinishReason,
        Generation as Generation,
        Progress as Progress,
        Request as Request,
        SamplingParams as SamplingParams,
        Timing as Timing,
        Token as Token,
    )
    from gptoss.model.loading.load import find_model as find_model, load_model as load_model
    from gptoss.model.loading.options import LoadOptions as LoadOptions
    from gptoss.model.loading.plan import LoadPlan as LoadPlan, plan_load as plan_load
    from gptoss.model.ops.options import ComputeOptions as ComputeOptions
    from gptoss.model.tensors.cache import KVCache as KVCache
    from gptoss.model.tensors.weights import Weights as Weights

    __version__: str

_HOME = {
    "KVCache": "tensors.cache",
    "Checkpoint": "checkpoints.checkpoint",
    "GenerationDefaults": "config",
    "ModelConfig": "config",
    "ComputeOptions": "ops.options",
    "Constraint": "constraint",
    "Constraints": "constraint",
    "Forced": "constraint",
    "Hold": "constraint",
    "LogitMask": "constraint",
    "StepwiseConstraint": "constraint",
    "StopTokens": "constraint",
    "Choices": "constraint_description",
    "ContentGrammar": "constraint_description",
    "Description": "constraint_description",
    "JsonSchema": "constraint_description",
    "MessageForm": "constraint_description",
    "Regex": "constraint_description",
    "TokenBudget": "constraint_description",
    "ContextUsage": "interface",
    "LocalEngine": "inference.engine",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ConstraintError": "errors",
    "ContextFullError": "errors",
    "DeviceError": "errors",
    "EngineBusyError": "errors",
    "ModelError": "errors",
    "ModelNotFoundError": "errors",
    "SamplingError": "errors",
    "UnsupportedModelError": "errors",
    "LoadOptions": "loading.options",
    "LoadPlan": "loading.plan",
    "find_model": "loading.load",
    "load_model": "loading.load",
    "plan_load": "loading.plan",
    "Sampler": "inference.sampler",
    "Capabilities": "interface",
    "Engine": "interface",
    "EngineInfo": "interface",
    "FinishReason": "interface",
    "Generation": "interface",
    "Progress": "interface",
    "Request": "interface",
    "SamplingParams": "interface",
    "Timing": "interface",
    "Token": "interface",
    "Transformer": "architecture.transformer",
    "Weights": "tensors.weights",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("gptoss")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
