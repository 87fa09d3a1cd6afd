"""The loader of models, imported when the first one is wanted."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.base.settings import Folders
from gptoss.cli.startup.background import Background
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.remotes import find_remote
from gptoss.model.checkpoints.catalog import locate

if TYPE_CHECKING:
    from gptoss.cli.startup.loaded import LoadedModel

# In the order of `torch/__init__.py`, which opens the first for all libraries and the second for itself.
_LIBRARIES = (("libtorch_global_deps.so", os.RTLD_NOW | os.RTLD_GLOBAL), ("libtorch_python.so", os.RTLD_NOW))
_LOADER = "gptoss.cli.startup.loading"


def find_model(model: str, folders: Folders) -> object:
    """Return the folder of a model, or the server that its name stands for, without torch.

    Raises:
        ModelNotFoundError: it is not on this machine.
        ModelError, InputError: as `find_remote`.
    """
    return find_remote(model, folders) or locate(model, folders.models, folders.hub_cache, folders.others)


def load_model(request: LoadRequest) -> LoadedModel:
    """As `gptoss.cli.startup.loading.load_model`, which takes longer to import than `gptoss --help` may take in all.

    A model on a server needs no torch.

    Raises:
        KeyboardInterrupt: as `import_torch`.
    """
    remote = find_remote(request.model, request.folders)
    if remote is not None:
        from gptoss.cli.startup.connecting import connect

        return connect(request, remote)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_torch()
        from gptoss.cli.startup.loading import load_model as load

        return load(request)
    finally:
        if was_enabled:
            gc.enable()


def import_torch() -> None:
    """Import torch and what loads models, in a thread of its own.

    Other threads, such as one in which a person types, wait for it 30 ms at most (340 ms without the libraries opened
    beforehand, 165 ms with garbage collected, on two cores of an x86-64 server with other work).

    Raises:
        KeyboardInterrupt: at once. An exception in the midst of an import would be lost, or abort the program with
            words of torch's own; so the import goes on, and `gptoss.cli.startup.background.leave` ends the process.
    """
    if _LOADER not in sys.modules:
        Background(_import).result()


def _import() -> None:
    # Half a second would go into looking for garbage among what is made here once and stays; nor is it looked through
    # later.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        _open_libraries()
        import_module(_LOADER)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


def _open_libraries() -> None:
    """Open torch's shared libraries, which takes 0.3 s; the import finds them open.

    The import holds the interpreter's lock while it opens them; a C function that ctypes calls does not. What goes
    wrong here goes wrong there too, and is told there.
    """
    with suppress(Exception):
        spec = find_spec("torch")
        if spec is None or spec.origin is None:
            return
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
        for name, mode in _LIBRARIES:
            path = Path(spec.origin).parent / "lib" / name
            if not (path.is_file() and dlopen(os.fsencode(path), mode)):
                return
