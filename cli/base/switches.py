"""Variables of the environment that turn something on or off."""

from __future__ import annotations

ACCESSIBLE_VARIABLE = "GPTOSS_ACCESSIBLE"
"""The variable that asks for an output that screen readers can follow."""


def is_on(value: str) -> bool:
    """Return whether the value of a variable turns something on.

    Raises:
        ValueError: it is no word for on or off.
    """
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    word = value.strip().lower()
    if word not in words:
        raise ValueError(f"{value!r} is neither on nor off")
    return words[word]
