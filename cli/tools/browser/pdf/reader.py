"""Read PDF files by pypdfium2, each in a process of its own in the sandbox."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from gptoss.cli.sandbox.limits import Limits
from gptoss.cli.sandbox.sandbox import Sandbox, SandboxError
from gptoss.cli.tools.browser.browsing import BrowsingError
from gptoss.cli.tools.browser.neutral import neutral, neutral_line
from gptoss.cli.tools.browser.page import Page

_EXTRACTOR = Path(__file__).with_name("extractor.py")
_SECONDS = 30.0
_LIMITS = Limits(memory=1 << 30, disk=64 << 20, file=1 << 20, processes=8)
_MOST_BYTES = 64 << 20
_CHUNK = 1 << 16


def is_pdf(data: bytes) -> bool:
    """Return whether bytes are a PDF file."""
    return data.startswith(b"%PDF-")


class PdfReader:
    """Reads the text of PDF files.

    Args:
        mechanism: gives the name of the sandbox's mechanism, asked for once, with the first file; None: there is none.
    """

    def __init__(self, mechanism: Callable[[], str | None]) -> None:
        self._mechanism = mechanism
        self._sandbox: Sandbox | None = None

    @property
    def is_installed(self) -> bool:
        """Whether the library is there."""
        return importlib.util.find_spec("pypdfium2") is not None

    def page(self, url: str, title: str, data: bytes) -> Page:
        """Return a PDF file as a page; the own numbers of its lines are those of the file's pages.

        Args:
            url: its address.
            title: where it has none of its own.
            data: the content.

        Raises:
            BrowsingError: it cannot be read here.
        """
        own_title, pages = self._read(data)
        lines = ["", f"URL: {url}"]
        numbers: list[int | None] = [None, None]
        for number, text in enumerate(pages, 1):
            part = [f"# Page {number}", "", *_lines(text), ""]
            lines += part
            numbers += [number] * len(part)
        if not any(text.strip() for text in pages):
            lines.append("[There is no text in this file: its pages are pictures.]")
            numbers.append(None)
        return Page(url, neutral_line(own_title) or title, "\n".join(lines), own_lines=numbers)

    def _read(self, data: bytes) -> tuple[str, Sequence[str]]:
        spec = importlib.util.find_spec("pypdfium2")
        if spec is None or spec.origin is None:
            raise BrowsingError("it is a PDF, which cannot be read here: pip install gptoss[pdf]")
        if self._sandbox is None:
            name = self._mechanism()
            if name is None:
                raise BrowsingError(
                    "it is a PDF, which is read in a sandbox alone, and none works here: gptoss sandbox"
                )
            self._sandbox = Sandbox(name, _LIMITS)
        packages = Path(spec.origin).parent.parent
        command = [sys.executable, "-B", str(_EXTRACTOR), str(packages)]
        with tempfile.TemporaryDirectory(prefix="gptoss-pdf-") as folder:
            (Path(folder) / "document").write_bytes(data)
            try:
                confined = self._sandbox.start(
                    command, Path(folder), read=[_EXTRACTOR, packages], stderr=subprocess.DEVNULL
                )
            except (OSError, SandboxError) as error:
                raise BrowsingError(f"the PDF could not be read: {error}") from None
            with closing(confined):
                assert confined.process.stdout is not None
                written = _output(confined.process.stdout.fileno())
        try:
            found = json.loads(written)
            return str(found["title"]), [str(text) for text in found["pages"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise BrowsingError("the PDF could not be read: it is damaged, encrypted or too large") from None


def _lines(text: str) -> list[str]:
    lines = neutral(text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
    return [line.rstrip() for line in lines]


def _output(descriptor: int) -> bytes:
    """Return what comes until the end; nothing if there is too much of it or it takes too long."""
    parts: list[bytes] = []
    size = 0
    end = time.monotonic() + _SECONDS
    while size <= _MOST_BYTES and (left := end - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            break
        piece = os.read(descriptor, _CHUNK)
        if not piece:
            return b"".join(parts)
        parts.append(piece)
        size += len(piece)
    return b""
