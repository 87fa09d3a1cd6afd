"""The loader of models, imported when the first one is wanted."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from gptoss.cli.base.interrupts import uninterrupted
from gptoss.cli.base.settings import Folders
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.remotes import find_remote
from gptoss.model.checkpoints.catalog import locate

if TYPE_CHECKING:
    from gptoss.cli.startup.loaded import LoadedModel


def find_model(model: str, folders: Folders) -> object:
    """Return the folder of a model, or the server that its name stands for, without torch.

    Raises:
        ModelNotFoundError: it is not on this machine.
        ModelError, InputError: as `find_remote`.
    """
    return find_remote(model, folders) or locate(model, folders.models, folders.hub_cache, folders.others)


def load_model(request: LoadRequest) -> LoadedModel:
    """As `gptoss.cli.startup.loading.load_model`; torch takes longer to import than `gptoss --help` may take in all.

    A model on a server needs no torch.
    """
    remote = find_remote(request.model, request.folders)
    if remote is not None:
        from gptoss.cli.startup.connecting import connect

        return connect(request, remote)
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
