"""`--policy`: a policy to judge content by, put where the safeguard models want it.

The user guide of gpt-oss-safeguard (https://cookbook.openai.com/articles/gpt-oss-safeguard-guide, "Understanding the
Harmony Response Format") has the policy as the system message of a chat and the content to classify as the user's. What
a chat calls system is harmony's developer message: harmony's own system message keeps the effort. How the verdict is
written is for the policy to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.inputs import read_text
from gptoss.cli.base.paths import named_path
from gptoss.cli.base.text import one_line

PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        parser=named_path,
        metavar="FILE",
        help="A policy to judge the prompt by, for the safeguard models; takes the place of -s.",
    ),
]


def policy_as_instructions(path: Path, instructions: str | None) -> str:
    """Return the policy in a file, which stands alone: it also goes before instructions of the config file.

    Raises:
        UsageError: there are instructions on the command line too.
        InputError: the file cannot be read, is not text or is empty.
    """
    if instructions is not None:
        raise UsageError("--policy and --system exclude each other: write the instructions into the policy")
    policy = read_text(path)
    if not policy.strip():
        raise InputError(f"the policy {one_line(str(path))} is empty")
    return policy
