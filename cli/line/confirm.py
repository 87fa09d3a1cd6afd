"""A yes-or-no question at the terminal."""

from __future__ import annotations

from typing import TextIO

from gptoss.cli.base.output import Output


def confirm(stdin: TextIO | None, messages: Output, question: str) -> bool:
    """Return the answer of the person at the terminal; no for anything but a yes."""
    if stdin is None:
        return False
    messages.write(question)
    answer = stdin.readline()
    if not answer.endswith("\n"):
        messages.write("\n")
    return answer.strip().lower() in ("y", "yes")
