"""Picture files as sequences that a terminal shows: kitty's graphics protocol, iTerm2's inline images, or sixel.

A picture is decoded by Pillow in the sandbox, made small and written anew, so that a terminal never gets the bytes of a
file. Without Pillow (the extra `pictures`) or a sandbox, in an unknown terminal and for anything unusual there is no
sequence, and the caller names the file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gptoss.cli.base.output import Output
from gptoss.model.storage.regular_file import open_regular_file

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_MOST_BYTES = 16 << 20
"""Of a file."""
_MOST_WIDTH, _MOST_HEIGHT = 960, 640
"""Pixels that are shown."""
_CELL = (10, 20)
"""Pixels of a cell, as sixel's VT340 has them; terminals scale the others' pictures to their own cells."""
_CHUNK = 4096
_COLOURS = 255

Decode: TypeAlias = "Callable[[bytes, int, int], Image | None]"
"""Returns the picture in the bytes of a file, made smaller to fit so many pixels in width and height."""


class PictureProtocol(StrEnum):
    """The ways in which terminals show pictures."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"


def protocol_of(variables: Mapping[str, str]) -> PictureProtocol | None:
    """Return the protocol of the terminal that the environment names; None where it shows none, as within tmux."""
    if any(variables.get(name) for name in ("TMUX", "STY", "ZELLIJ")):
        return None
    term, program = variables.get("TERM", ""), variables.get("TERM_PROGRAM", "")
    if term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return PictureProtocol.KITTY
    if program in ("iTerm.app", "WezTerm") or variables.get("LC_TERMINAL") == "iTerm2":
        return PictureProtocol.ITERM2
    if term.split("-")[0] in ("foot", "mlterm", "contour"):
        return PictureProtocol.SIXEL
    return None


def picture(path: Path, output: Output, protocol: PictureProtocol, decode: Decode) -> str | None:
    """Return what shows the picture in a file, at most as wide as the terminal and half as high.

    It is for a cursor at the beginning of a row, and leaves it at the beginning of the row below.

    Args:
        path: of the file, which is hostile.
        output: the terminal.
        protocol: that it knows.
        decode: decodes the bytes of a file.

    Returns:
        The sequences; None for what is no PNG or JPEG file, is too large, or cannot be decoded.
    """
    columns, rows = max(1, output.columns - 1), max(1, output.rows // 2)
    data = _read(path)
    image = data and decode(data, min(_MOST_WIDTH, columns * _CELL[0]), min(_MOST_HEIGHT, rows * _CELL[1]))
    if not image:
        return None
    match protocol:
        case PictureProtocol.KITTY:
            return "".join(_kitty(image)) + "\n"
        case PictureProtocol.ITERM2:
            return _iterm2(image) + "\n"
        case PictureProtocol.SIXEL:
            return _sixel(image) + "\n"


def _read(path: Path) -> bytes | None:
    """Return what is in a regular file; None if it is too large, or a link: a tool has no business with those."""
    if path.is_symlink():
        return None
    try:
        with open_regular_file(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError:
        return None
    return data if len(data) <= _MOST_BYTES else None


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _cells(image: Image) -> tuple[int, int]:
    return max(1, -(-image.width // _CELL[0])), max(1, -(-image.height // _CELL[1]))


def _kitty(image: Image) -> Iterator[str]:
    """Yield kitty's graphics protocol: transmit and display a PNG in chunks, the terminal not answering (q=2)."""
    text = base64.b64encode(_png(image)).decode("ascii")
    columns, rows = _cells(image)
    for begin in range(0, len(text), _CHUNK):
        keys = f"a=T,f=100,q=2,c={columns},r={rows}," if begin == 0 else ""
        more = int(begin + _CHUNK < len(text))
        yield f"\x1b_G{keys}m={more};{text[begin : begin + _CHUNK]}\x1b\\"


def _iterm2(image: Image) -> str:
    """Return OSC 1337 as iTerm2's "Inline Images PictureProtocol" has it."""
    data = _png(image)
    columns, rows = _cells(image)
    size = f"size={len(data)};width={columns};height={rows};preserveAspectRatio=1"
    return f"\x1b]1337;File=inline=1;{size}:{base64.b64encode(data).decode('ascii')}\x07"


def _sixel(image: Image) -> str:
    """Return DEC's sixel graphics: bands of six rows, each colour of a band as one run of its pixels."""
    import numpy as np

    reduced = image.quantize(_COLOURS)
    palette = reduced.getpalette() or []
    pixels = np.asarray(reduced, dtype=np.uint8)
    used = np.unique(pixels)
    parts = [f'\x1bPq"1;1;{image.width};{image.height}']
    for colour in used:
        red, green, blue = (round(part * 100 / 255) for part in palette[3 * colour : 3 * colour + 3])
        parts.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, image.height, 6):
        band = pixels[top : top + 6]
        weights = (1 << np.arange(len(band), dtype=np.uint8))[:, None]
        runs = [
            f"#{colour}{_repeated(((band == colour) * weights).sum(axis=0).astype(np.uint8))}"
            for colour in np.unique(band)
        ]
        parts.append("$".join(runs))
        parts.append("-")
    parts.append("\x1b\\")
    return "".join(parts)


def _repeated(bits: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    """Return sixel characters, with repetitions as counts."""
    import numpy as np

    changes = np.flatnonzero(np.diff(bits)) + 1
    begins = [0, *changes.tolist()]
    ends = [*changes.tolist(), len(bits)]
    text = ""
    for begin, end in zip(begins, ends, strict=True):
        character, count = chr(63 + int(bits[begin])), end - begin
        text += f"!{count}{character}" if count > 3 else character * count
    return text
