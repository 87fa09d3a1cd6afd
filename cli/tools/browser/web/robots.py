"""Whether a site's robots.txt lets an address be fetched (RFC 9309)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

MOST_BYTES = 500 << 10
"""Of the file, as the RFC has it at least."""


@dataclass
class _Group:
    agents: list[str] = field(default_factory=list)
    rules: list[tuple[bool, str]] = field(default_factory=list)


class Robots:
    """The rules of one site for one program.

    Args:
        text: of robots.txt.
        agent: the program's name, in lower case.
    """

    def __init__(self, text: str, agent: str) -> None:
        groups = _groups(text)
        own = [group for group in groups if agent in group.agents]
        chosen = own or [group for group in groups if "*" in group.agents]
        self._rules = [rule for group in chosen for rule in group.rules]

    def allows(self, path: str) -> bool:
        """Return whether a path, with its query, may be fetched.

        The longest rule that matches decides; of two of one length that which allows.
        """
        best: tuple[int, bool] | None = None
        for is_allowed, pattern in self._rules:
            if _matches(pattern, path) and (best is None or (len(pattern), is_allowed) > best):
                best = (len(pattern), is_allowed)
        return best is None or best[1]


def everything(is_allowed: bool) -> Callable[[str], bool]:
    """Return the rules of a site without a file, or whose file cannot be had."""
    return lambda _path: is_allowed


def _groups(text: str) -> list[_Group]:
    groups: list[_Group] = []
    names_agents = False
    for line in text.splitlines()[:20_000]:
        name, colon, value = line.partition("#")[0].partition(":")
        if not colon:
            continue
        name, value = name.strip().lower(), value.strip()
        if name == "user-agent":
            if not names_agents:
                groups.append(_Group())
            groups[-1].agents.append(value.lower().partition("/")[0])
            names_agents = True
        elif name in ("allow", "disallow"):
            names_agents = False
            if groups and value:
                groups[-1].rules.append((name == "allow", value[:2000]))
    return groups


def _matches(pattern: str, path: str) -> bool:
    """Return whether a path begins as a pattern says: `*` is any text, `$` the end."""
    is_whole = pattern.endswith("$")
    parts = pattern.removesuffix("$").split("*")
    if not path.startswith(parts[0]):
        return False
    place = len(parts[0])
    for number, part in enumerate(parts[1:], 2):
        if is_whole and number == len(parts):
            return path.endswith(part) and len(path) - len(part) >= place
        found = path.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return not is_whole or place == len(path)
