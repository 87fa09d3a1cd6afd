"""Decode hostile picture files in a sandbox; what comes out of it are bare pixels."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.base.hostile_folder import hostile_folder
from gptoss.cli.sandbox.limits import Limits
from gptoss.cli.sandbox.sandbox import Sandbox, SandboxError

if TYPE_CHECKING:
    from PIL.Image import Image

_DECODER = Path(__file__).with_name("picture_decoder.py")
_SECONDS = 20.0
_LIMITS = Limits(memory=1 << 30, disk=64 << 20, file=1 << 20, processes=8)
_MOST_HEADER = 16
_CHUNK = 1 << 16


class SandboxedDecoder:
    """Decodes PNG and JPEG files by Pillow, each in a process of its own, in the sandbox.

    Args:
        mechanism: gives the name of the mechanism, asked for once, with the first picture; None: no picture is decoded.
    """

    def __init__(self, mechanism: Callable[[], str | None]) -> None:
        self._mechanism = mechanism
        self._sandbox: Sandbox | None = None

    def decode(self, data: bytes, width: int, height: int) -> Image | None:
        """Return the picture, made smaller to fit `width` times `height` pixels; None where that fails for any reason.

        Args:
            data: of the file.
            width, height: pixels.
        """
        spec = importlib.util.find_spec("PIL")
        if spec is None or spec.origin is None:
            return None
        if self._sandbox is None:
            name = self._mechanism()
            if name is None:
                return None
            self._sandbox = Sandbox(name, _LIMITS)
        packages = Path(spec.origin).parent.parent
        command = [sys.executable, "-B", str(_DECODER), str(packages), str(width), str(height)]
        with hostile_folder("gptoss-picture-") as folder:
            (folder / "picture").write_bytes(data)
            try:
                confined = self._sandbox.start(command, folder, read=[_DECODER, packages], stderr=subprocess.DEVNULL)
            except (OSError, SandboxError):
                return None
            with contextlib.closing(confined):
                assert confined.process.stdout is not None
                written = _read(confined.process.stdout.fileno(), _MOST_HEADER + 3 * width * height)
        return _image(written, width, height)


def _read(descriptor: int, most: int) -> bytes:
    """Return what comes until the end, or until there is too much of it or it takes too long."""
    data = b""
    end = time.monotonic() + _SECONDS
    while len(data) <= most and (left := end - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            break
        piece = os.read(descriptor, _CHUNK)
        if not piece:
            return data
        data += piece
    return b""


def _image(written: bytes, width: int, height: int) -> Image | None:
    from PIL import Image

    header, _, pixels = written.partition(b"\n")
    size = header.split(b" ")
    if len(size) != 2 or not all(part.isdigit() and len(part) <= 5 for part in size):
        return None
    columns, rows = map(int, size)
    if not (0 < columns <= width and 0 < rows <= height and len(pixels) == 3 * columns * rows):
        return None
    return Image.frombytes("RGB", (columns, rows), pixels)
