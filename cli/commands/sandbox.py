"""`gptoss sandbox`: what confines tools on this machine, found by trying."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.text import one_line
from gptoss.cli.startup.environment import Environment


def sandbox(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each mechanism.")] = False,
) -> ExitStatus:
    """Try the mechanisms that confine tools, and print what works here; status 1 if none does.

    Each one that works is used in the order shown.
    """
    from gptoss.cli.sandbox.limits import Limits
    from gptoss.cli.sandbox.sandbox import candidates, trial

    environment: Environment = context.obj
    output = environment.output()
    trials = [trial(name) for name in (*candidates(), "container")]
    for each in trials:
        if as_json:
            found = {"mechanism": each.name, "works": each.problem is None, "problem": each.problem}
            output.write(json.dumps({**found, "missing": list(each.missing)}) + "\n")
            continue
        says = "works" if each.problem is None else f"does not work here: {one_line(each.problem)}"
        output.write(f"{each.name:<11} {says}\n")
        for missing in each.missing:
            output.write(f"{'':<11}   but {missing}\n")
    if not as_json:
        limits = Limits()
        output.write(
            f"limits      {limits.memory >> 20:,} MiB of memory, {limits.disk >> 20:,} MiB of files, "
            f"{limits.file >> 20:,} MiB a file, {limits.processes} processes and threads\n"
        )
    usable = any(each.problem is None for each in trials if each.name != "container")
    return ExitStatus.ANSWERED if usable else ExitStatus.FAILED
