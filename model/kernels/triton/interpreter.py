"""Whether Triton runs kernels in its interpreter. Imports neither triton nor torch."""

import os


def in_interpreter() -> bool:
    """Whether kernels run on the CPU, in Triton's interpreter.

    TRITON_INTERPRET is Triton's own variable. Triton reads it when a kernel is defined, that is, when the modules
    beside this one are imported; a change has no effect on kernels that are imported already. Nothing else in this
    package reads the variable.
    """
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
