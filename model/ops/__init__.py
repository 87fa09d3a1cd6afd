"""The few operations of the model, and the backends that compute them.

Everything above this package is written once, in terms of :class:`~gptoss.model.ops.interface.Ops`; only this
package knows that there is more than one way to compute.
"""

from gptoss.model.ops.interface import Dense, Drawing, Ops, StepOps
from gptoss.model.ops.select import BACKENDS, select_ops

__all__ = ["BACKENDS", "Dense", "Drawing", "Ops", "StepOps", "select_ops"]
