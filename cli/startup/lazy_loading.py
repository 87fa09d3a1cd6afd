"""The loader of models, imported when the first one is wanted."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.base.interrupts import uninterrupted
from gptoss.cli.base.settings import Folders
from gptoss.cli.startup.environment import LoadRequest
from gptoss.model.checkpoints.catalog import locate

if TYPE_CHECKING:
    from gptoss.cli.startup.loaded import LoadedModel


def find_model(model: str, folders: Folders) -> Path:
    """Return the folder of a model, without torch.

    Raises:
        ModelNotFoundError: it is not on this machine.
    """
    return locate(model, folders.models, folders.hub_cache)


def load_model(request: LoadRequest) -> LoadedModel:
    """As `gptoss.cli.startup.loading.load_model`; torch takes longer to import than `gptoss --help` may take in all."""
    # Half a second would go into looking for garbage among what is made here once and stays; nor is it looked through
    # later.
    is_first = "torch" not in sys.modules
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        # An exception in the midst of it would be lost, or abort the program with words of torch's own.
        with uninterrupted():
            from gptoss.cli.startup.loading import load_model as load
        if is_first:
            gc.freeze()
        return load(request)
    finally:
        if was_enabled:
            gc.enable()
