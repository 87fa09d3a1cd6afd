"""Pull a model, with its progress; and the offer to pull one that is asked for but not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import one_line
from gptoss.cli.line.confirm import confirm
from gptoss.cli.startup.environment import Environment
from gptoss.model.checkpoints.catalog import BUILT_IN_MODEL, HubReference, default_hub_cache, hub_reference
from gptoss.model.checkpoints.other_stores import OtherStores, told_foreign
from gptoss.model.errors import ModelNotFoundError

if TYPE_CHECKING:
    from gptoss.cli.hub.pull import Pulled


def offer_pull(environment: Environment, model: str, others: OtherStores) -> bool:
    """Ask whether to pull a model that is not there, and do it; False where there is no person to ask.

    Names first what other programs have in `others`.

    Raises:
        ModelNotFoundError: the answer was no.
        PullError: as `gptoss.cli.hub.pull.pull`.
    """
    reference, messages = hub_reference(model), environment.messages()
    if reference is None or not messages.is_terminal or environment.stdin is None or not environment.stdin.isatty():
        return False
    there = told_foreign(others)
    if there is not None:
        messages.write(f"{one_line(there)} (-m NAME)\n")
    size = "" if reference.size is None else f" ({reference.size})"
    question = f"{model}{size} is not on this machine. Pull {reference.repository} now? [y/N] "
    if not confirm(environment.stdin, messages, question):
        raise ModelNotFoundError(
            f"{model}{size} is not on this machine: `gptoss pull {model}` fetches it, "
            f"`gptoss chat -m {BUILT_IN_MODEL}` talks to the small built-in model"
        )
    pull_model(environment, reference, None)
    return True


def pull_model(environment: Environment, reference: HubReference, to: Path | None) -> Pulled:
    """Pull, and show how it goes.

    Raises: as `gptoss.cli.hub.pull.pull`.
    """
    from gptoss.cli.hub.progress import BarWatch, PlainWatch
    from gptoss.cli.hub.pull import pull as pull_from_hub

    messages, hub_cache = environment.messages(), default_hub_cache(environment.variables)
    bars = messages.is_terminal and not messages.is_dumb
    watch = BarWatch(messages, reference.name) if bars else PlainWatch(messages)
    folder = None if to is None else to.expanduser().absolute()
    try:
        with watch:
            pulled = pull_from_hub(reference, folder, hub_cache, watch)
    except KeyboardInterrupt:
        messages.write(f"stopped; what was fetched is kept, and gptoss pull {reference.name} goes on from there\n")
        raise
    done = "is complete" if pulled.fetched else "was complete already"
    freed = f"; {show_bytes(pulled.freed)} of left-overs removed" if pulled.freed else ""
    messages.write(f"{reference.name} {done}: {show_bytes(pulled.nbytes)} in {one_line(str(pulled.folder))}{freed}\n")
    return pulled
