"""What shows the pictures that tools have made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from gptoss.cli.base.output import Output
from gptoss.cli.startup.options import Invocation
from gptoss.cli.startup.tools import decoding_mechanism
from gptoss.cli.terminal.decoding import SandboxedDecoder
from gptoss.cli.terminal.pictures import picture, protocol_of


def pictures_of(invocation: Invocation, output: Output) -> Callable[[Path], str | None] | None:
    """Return what gives the sequences for the picture in a file; None where the terminal shows none, or none is wanted.

    Args:
        invocation: the command line.
        output: the terminal.
    """
    protocol = protocol_of(invocation.environment.variables) if invocation.settings.pictures else None
    if protocol is None:
        return None
    decoder = SandboxedDecoder(lambda: decoding_mechanism(invocation.settings))
    return partial(picture, output=output, protocol=protocol, decode=decoder.decode)
