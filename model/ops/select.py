"""The choice of a backend: automatic, or forced by name; always logged."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from gptoss.model.errors import DeviceError
from gptoss.model.ops.interface import Ops
from gptoss.model.ops.reference import ReferenceOps

log = logging.getLogger(__name__)

BACKENDS: dict[str, Callable[[], Ops]] = {"reference": ReferenceOps}
ENVIRONMENT_VARIABLE = "GPTOSS_BACKEND"


def select_ops(backend: str | None = None) -> Ops:
    """The backend named by `backend`, else by the environment variable GPTOSS_BACKEND, else the best there is.

    Raises:
        DeviceError: there is no backend of that name.
    """
    name = backend or os.environ.get(ENVIRONMENT_VARIABLE) or "reference"
    if name not in BACKENDS:
        raise DeviceError(f"no backend {name!r}: this build has {', '.join(sorted(BACKENDS))}")
    log.info("backend: %s", name)
    return BACKENDS[name]()
