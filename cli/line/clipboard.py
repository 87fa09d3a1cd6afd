"""Text into the clipboard: by a program of the desktop where there is one, else by asking the terminal."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from collections.abc import Mapping

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.output import Output

# xterm takes no longer sequences, and others took their limit from it.
_LONGEST_SEQUENCE = 74_994
_TIMEOUT_S = 5


def copy(text: str, output: Output, variables: Mapping[str, str]) -> str:
    """Put text into the clipboard; what it was done by, for a message.

    Over SSH the desktop is another machine's, so the terminal is asked: OSC 52 of xterm's "Control Sequences".

    Raises:
        InputError: there is no way, or the text is too long for it.
    """
    for command in _programs(variables):
        try:
            done = subprocess.run(
                command,
                input=text.encode("utf-8", "replace"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return command[0]
    if not output.is_terminal or not output.obeys_sequences:
        raise InputError("no clipboard can be reached from here: /export writes a file")
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    if len(encoded) > _LONGEST_SEQUENCE:
        raise InputError("the text is too long for the terminal's clipboard: /export writes a file")
    output.write(f"\x1b]52;c;{encoded}\x07")
    return "the terminal, if it allows that"


def _programs(variables: Mapping[str, str]) -> list[list[str]]:
    if variables.get("SSH_CONNECTION") or variables.get("SSH_TTY"):
        return []
    commands = []
    if sys.platform == "darwin":
        commands.append(["pbcopy"])
    if variables.get("WAYLAND_DISPLAY"):
        commands.append(["wl-copy"])
    if variables.get("DISPLAY"):
        commands += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
    return [command for command in commands if shutil.which(command[0], path=variables.get("PATH"))]
