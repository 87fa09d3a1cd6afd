"""The exceptions of `gptoss.model`.

    ModelError
    ├── ModelNotFoundError          no such model on this machine
    ├── CheckpointError             a file of the checkpoint is missing, broken or hostile
    │   ├── ConfigError             config.json or generation_config.json cannot be used
    │   └── UnsupportedModelError   sound as far as it was read, but not a model that runs here
    ├── ContextFullError            the tokens do not fit the model's context
    ├── DeviceError                 the device is missing or cannot do what is asked
    ├── EngineBusyError             waiting for the engine could never end
    ├── ConstraintError             the constraints on the sampling leave nothing to say
    └── SamplingError               a sampling parameter is out of range, or the logits are not numbers

Every message is one line: what is wrong, where, and what to do. Names that come from a file may hold anything, so
they enter a message through `quote` only.
"""

from __future__ import annotations

_QUOTE_LIMIT = 160


class ModelError(Exception):
    """Any failure of this package that its user can meet."""


class ModelNotFoundError(ModelError):
    """The model that was asked for is not on this machine."""


class CheckpointError(ModelError):
    """A file of the checkpoint is missing, broken, or not to be trusted."""


class ConfigError(CheckpointError):
    """A config of the checkpoint is broken, or asks for something that cannot be."""


class UnsupportedModelError(CheckpointError):
    """The files are another kind of model, or another format of weights, than this package runs."""


class ContextFullError(ModelError):
    """The tokens do not fit the model's context."""


class DeviceError(ModelError):
    """The device is missing, or cannot do what is asked of it."""


class EngineBusyError(ModelError):
    """The engine cannot go on with a generation before its caller has finished, or closed, another one."""


class ConstraintError(ModelError):
    """The constraints on the sampling leave no token."""


class SamplingError(ModelError):
    """A sampling parameter is out of its range, or the logits are not numbers."""


def quote(text: object) -> str:
    """Quote an untrusted name or value for a message: control characters escaped, the middle shortened."""
    shown = repr(text) if isinstance(text, (str, int, float, bool, type(None))) else repr(str(text))
    if len(shown) > _QUOTE_LIMIT:
        half = (_QUOTE_LIMIT - 3) // 2
        shown = f"{shown[:half]}...{shown[-half:]}"
    return shown
