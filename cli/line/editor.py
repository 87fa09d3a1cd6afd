"""A text in the person's own editor."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.text import one_line


def edit(text: str, variables: Mapping[str, str]) -> str:
    """Let the person change a text, and give what they saved.

    Args:
        text: what the editor begins with.
        variables: the environment; VISUAL, else EDITOR, else vi is called, through no shell.

    Raises:
        InputError: the editor cannot be called, or failed, or left no text in UTF-8.
    """
    name = variables.get("VISUAL") or variables.get("EDITOR") or "vi"
    # A folder of its own, which no other user can look into: some editors leave copies beside the file.
    with tempfile.TemporaryDirectory(prefix="gptoss-") as folder:
        path = Path(folder, "message.md")
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            done = subprocess.run([*shlex.split(name), str(path)], check=False)
            edited = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot call the editor {one_line(name)}: {error.strerror} (set EDITOR)") from None
        except UnicodeDecodeError:
            raise InputError("what the editor saved is not UTF-8 text") from None
        except ValueError as error:
            raise InputError(f"EDITOR is {one_line(name)}: {error}") from None
    if done.returncode != 0:
        raise InputError(f"the editor {one_line(name)} ended with status {done.returncode}; nothing was taken from it")
    return edited.rstrip("\n")
