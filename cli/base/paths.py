"""Parse options and arguments that are paths."""

from __future__ import annotations

from pathlib import Path


def named_path(text: str) -> Path:
    """Return the path that was given; whoever opens it says what is wrong with it.

    Raises:
        ValueError: it is empty, as a shell's variable that is not set: of that `Path` makes the working directory.
    """
    if not text:
        raise ValueError("it is empty where a path belongs")
    return Path(text)
