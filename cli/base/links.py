"""Links in a terminal's text by OSC 8, which a person can follow and which stay whole where a row is broken."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from gptoss.cli.base.switches import is_on

_VARIABLE = "FORCE_HYPERLINK"  # as other programs have it
_PROGRAMS = ("iTerm.app", "WezTerm", "ghostty", "vscode")
_TERMS = ("xterm-kitty", "xterm-ghostty", "foot", "foot-extra", "alacritty", "contour", "wezterm")
_LEAST_TMUX, _LEAST_VTE, _LEAST_KONSOLE = (3, 4), 5000, 201200
# Schemes that open a page or a letter and run nothing; printable ASCII, so that nothing in it ends the sequence; no
# longer than VTE takes.
_SAFE = re.compile(r"(?:https?://|mailto:)[!-~]{1,2000}")


def takes_links(variables: Mapping[str, str]) -> bool:
    """Return whether the terminal shows a link as one or as its text alone; the console of Linux writes its target."""
    wanted = _wanted(variables)
    return variables.get("TERM") != "linux" if wanted is None else wanted


def shows_links(variables: Mapping[str, str]) -> bool:
    """Return whether the terminal that the environment names is known to have links."""
    wanted = _wanted(variables)
    if wanted is not None:
        return wanted
    if variables.get("TMUX"):
        return variables.get("TERM_PROGRAM") == "tmux" and _version(variables, "TERM_PROGRAM_VERSION") >= _LEAST_TMUX
    return (
        variables.get("TERM_PROGRAM") in _PROGRAMS
        or variables.get("TERM") in _TERMS
        or bool(variables.get("WT_SESSION"))
        or _version(variables, "VTE_VERSION") >= (_LEAST_VTE,)
        or _version(variables, "KONSOLE_VERSION") >= (_LEAST_KONSOLE,)
    )


def linked(text: str, target: str) -> str:
    """Return text, made safe and styled, as a link; as it is where the target is not one that a person should follow.

    Pieces with the same target are one link, wherever they stand.
    """
    if _SAFE.fullmatch(target) is None:
        return text
    return f"\x1b]8;id={zlib.crc32(target.encode()):x};{target}\x1b\\{text}\x1b]8;;\x1b\\"


def _wanted(variables: Mapping[str, str]) -> bool | None:
    if not variables.get(_VARIABLE):
        return None
    try:
        return is_on(variables[_VARIABLE])
    except ValueError:
        return True


def _version(variables: Mapping[str, str], name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", variables.get(name, ""))[:2])
