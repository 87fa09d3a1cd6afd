"""Sizes, speeds and times for people."""

from __future__ import annotations


def show_bytes(nbytes: float) -> str:
    """Return a size such as `13.8 GB`, in units of 1000."""
    units = iter(("bytes", "kB", "MB", "GB"))
    unit = next(units)
    while nbytes >= 999.5 and unit != "GB":
        nbytes, unit = nbytes / 1000, next(units)
    return f"{nbytes:.0f} bytes" if unit == "bytes" else f"{nbytes:.3g} {unit}" if nbytes < 1000 else f"{nbytes:.0f} GB"


def show_seconds(seconds: float) -> str:
    """Return a time such as `2:20`, or `1:02:20`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
