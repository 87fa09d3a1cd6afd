"""Shell completion of arguments: models, conversations, templates, settings.

Folders are those of the environment: a shell does not pass on `--home`. A folder that cannot be read completes to
nothing: there is nobody to report it to.

The scripts of the shells evaluate what they are given. So only harmless names are offered, and of what was said only
letters, digits and the plainest signs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.base.errors import CliError, InputError
from gptoss.cli.base.settings import KEYS, TOOLS, Folders
from gptoss.cli.base.templates import paths_of
from gptoss.cli.base.text import one_line
from gptoss.cli.startup.environment import local_time

if TYPE_CHECKING:
    from gptoss.cli.conversations.log import ConversationLog

_DEEPEST = 2
_HARMLESS = re.compile(r"\w[\w./@+=,-]*")
_TOLD_CHARACTERS = 60


def models(incomplete: str) -> list[str]:
    """Return the catalogue, and the models in the folder of models."""
    return _matching(model_names(_folders().models), incomplete)


def model_names(folder: Path) -> list[str]:
    """Return the models for `-m` on this machine: the catalogue, and model folders as `NAME` or `OWNER/NAME`."""
    from gptoss.model.checkpoints.catalog import CATALOG

    names = [spec.name for spec in CATALOG]
    for depth in range(1, _DEEPEST + 1):
        for config in folder.glob("*/" * depth + "config.json"):
            names.append(str(config.parent.relative_to(folder)))
    return list(dict.fromkeys(name for name in names if one_line(name) == name))


def conversations(incomplete: str) -> list[tuple[str, str]]:
    """Return names, or ids where there is none that a shell takes as it is, with the first question."""
    from gptoss.cli.conversations.store import Store

    logs: list[ConversationLog] = []
    with suppress(InputError):  # a folder that cannot be read has nothing to offer
        logs = list(Store(_folders().conversations, local_time).readable())
    found = [(name if _is_harmless(name := log.saved.name or "") else log.saved.id, log.saved.title) for log in logs]
    return [
        (name, " ".join(re.sub(r"[^\w.,-]", " ", title).split())[:_TOLD_CHARACTERS])
        for name, title in found
        if name.startswith(incomplete) and _is_harmless(name)
    ]


def templates(incomplete: str) -> list[str]:
    """Return names in the folder of templates."""
    found: list[Path] = []
    with suppress(InputError):  # as above
        found = paths_of(_folders().templates)
    return _matching((path.stem for path in found), incomplete)


def tools(incomplete: str) -> list[str]:
    """Return the tools of `--tool`."""
    return _matching(TOOLS, incomplete)


def mcp_servers(incomplete: str) -> list[str]:
    """Return the names of MCP servers in the file of servers."""
    from gptoss.cli.tools.mcp.servers import names_in

    names: list[str] = []
    with suppress(CliError):  # as above
        names = names_in(_folders().mcp_servers)
    return _matching(names, incomplete)


def settings(incomplete: str) -> list[str]:
    """Return the keys of the config file."""
    return _matching(KEYS, incomplete)


def _folders() -> Folders:
    return Folders.locate(os.environ)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete) and _is_harmless(name)]


def _is_harmless(name: str) -> bool:
    return _HARMLESS.fullmatch(name) is not None
