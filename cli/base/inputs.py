"""The prompt of `ask`: the arguments, then each file, then standard input."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.text import one_line

if TYPE_CHECKING:
    from gptoss.cli.base.output import Output

_SILENT_S = 1.0  # a pipe that ends sooner needs no word
_STANDARD_INPUT = "standard input"
_ITS_PATHS = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
MAX_BYTES = 64 << 20
"""Largest part of a prompt. No context holds as much; up to this size an error can name the number of tokens."""


def gather_prompt(
    words: Sequence[str],
    files: Sequence[Path],
    stdin: TextIO | None,
    *,
    optional: bool = False,
    waiting: Callable[[str], None] = lambda _name: None,
) -> str:
    """Join all parts of a prompt by blank lines.

    The words are joined by spaces. A file has its name above it and a fence around it, unless it is all there is.
    Standard input is read when it is not a terminal, and stands as it is; among the files, as `-`, it is one of them.

    Args:
        words, files: the arguments.
        stdin: standard input; None when it is closed.
        optional: whether the prompt may be empty.
        waiting: called with what has not ended after a second: standard input, or a file that is a pipe.

    Raises:
        InputError: a part cannot be read, or is not text in UTF-8.
        UsageError: the prompt is empty, and not `optional`; or standard input stands twice.
    """
    if sum(str(path) in _ITS_PATHS for path in files) > 1:
        raise UsageError("-f - stands twice, but standard input can be read only once")
    said = _encodable(" ".join(words)).strip("\n")
    contents = [(_name(path, files), read_named(path, stdin, waiting)[1]) for path in files]
    is_file = any(str(path) == "-" for path in files)
    piped = ""
    if stdin is not None and not is_file and not stdin.isatty():
        with _announced(_STANDARD_INPUT, waiting):
            piped = read_standard_input(stdin)
    if len(contents) == 1 and not said.strip() and not piped.strip():
        parts = [contents[0][1]]
    else:
        parts = [said, *(fenced(name, text) for name, text in contents), piped]
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt and not optional:
        raise UsageError("the prompt is empty: say it as an argument, in a file (-f) or on standard input")
    return prompt


def read_standard_input(stdin: TextIO) -> str:
    """Return the text on standard input, without its byte order mark and final line breaks.

    Raises:
        InputError: it cannot be read, or is not text in UTF-8.
    """
    try:
        return _decode(_bounded(stdin.buffer, "standard input"), "standard input")
    except OSError as error:
        raise InputError(f"cannot read standard input: {error.strerror}") from None


def read_named(
    path: Path, stdin: TextIO | None, waiting: Callable[[str], None] = lambda _name: None
) -> tuple[str, str]:
    """Return a file's name for messages, and the text in it; `-` is standard input.

    Args:
        path: of the file.
        stdin: standard input; None when it is closed.
        waiting: called with the name when the text has not ended after a second.

    Raises:
        InputError: it cannot be read, or is not text in UTF-8.
    """
    name = _STANDARD_INPUT if str(path) == "-" else one_line(str(path))
    with _announced(name, waiting):
        if str(path) != "-":
            return name, read_text(path)
        return name, "" if stdin is None else read_standard_input(stdin)


def says_what_is_waited_for(messages: Output) -> Callable[[str], None]:
    """Return what writes to a terminal that the end of an input is waited for."""

    def waiting(name: str) -> None:
        if messages.is_terminal:
            hint = " (</dev/null if there is none)" if name == _STANDARD_INPUT else ""
            messages.write(f"gptoss: waiting for the end of {name}{hint}\n")

    return waiting


@contextmanager
def _announced(name: str, waiting: Callable[[str], None]) -> Iterator[None]:
    timer = threading.Timer(_SILENT_S, waiting, [name])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_text(path: Path) -> str:
    """Return the text in a file, without its byte order mark and final line breaks.

    Raises:
        InputError: it cannot be read, or is not text in UTF-8.
    """
    return _decode(_read(path), one_line(str(path)))


def _encodable(text: str) -> str:
    """Arguments that are not UTF-8 reach Python as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("the prompt in the arguments is not UTF-8 text") from None
    return text


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file, one_line(str(path)))
    except OSError as error:
        raise InputError(f"cannot read {one_line(str(path))}: {error.strerror}") from None


def _bounded(file: BinaryIO, name: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} is larger than {MAX_BYTES >> 20} MiB, more than any model can read")
    return data


def _decode(data: bytes, name: str) -> str:
    """UTF-8 text without its byte order mark and final line breaks.

    Raises:
        InputError: it is binary, or in another encoding.
    """
    if b"\0" in data:
        raise InputError(f"{name} is binary (a NUL at byte {data.index(0)}); only text in UTF-8 can be asked about")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"0x{data[error.start]:02x} at byte {error.start}"
        raise InputError(f"{name} is not UTF-8 text ({place}); convert it, for example with iconv") from None
    return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").rstrip("\r\n")


def _name(path: Path, files: Sequence[Path]) -> str:
    """Return the name of a file for the prompt; its path if two files have the same name."""
    if str(path) == "-":
        return _STANDARD_INPUT
    return path.name if sum(path.name == other.name for other in files) == 1 else str(path)


def fenced(name: str, text: str) -> str:
    """Return a file with its name above and a fence around that is longer than any inside."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{one_line(name)}:\n{fence}\n{text}\n{fence}"
