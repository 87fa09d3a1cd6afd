"""The operations of the model, and the backends that compute them.

Everything above this package is written once, in terms of :class:`~gptoss.model.ops.interface.Ops`; only this package
knows that there are several backends. Names are imported when first used, so that `options` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptoss.model.ops.interface import Drawing as Drawing, Ops as Ops, StepOps as StepOps
    from gptoss.model.ops.options import ComputeOptions as ComputeOptions, Dense as Dense
    from gptoss.model.ops.select import select_ops as select_ops

_HOME = {
    "ComputeOptions": "options",
    "Dense": "options",
    "Drawing": "interface",
    "Ops": "interface",
    "StepOps": "interface",
    "select_ops": "select",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
