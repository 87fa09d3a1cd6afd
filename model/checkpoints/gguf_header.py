"""Parses the header of a GGUF file: metadata, and the place of each tensor. No size is believed before it is checked.

The format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): `GGUF`, version, numbers of tensors and of
metadata entries; the entries, each a name, a type and a value; the tensors, each a name, dimensions with the fastest
first, a type and an offset; then the data, aligned. All numbers are little-endian.

Long arrays, such as a vocabulary of 200,000 words, are only measured; they are read when asked for.
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gptoss.model.checkpoints.tensor_info import TensorInfo
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.regular_file import open_regular_file
from gptoss.model.storage.stand_ins import BEGINNING_BYTES, stand_in
from gptoss.model.tensors.ggml_types import GGML_TYPES

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 64 << 20
"""The header of a published gpt-oss file has 13 MB, most of it the vocabulary and its merges."""
MAX_ENTRIES = 4096
MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 256
MAX_TEXT_BYTES = 1 << 20
MAX_ALIGNMENT = 1 << 20

_VERSIONS = (2, 3)
_ARCHITECTURE = "general.architecture"
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_BEGINNING = struct.Struct("<4sIQQ")
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_ARRAY = struct.Struct("<IQ")
_TEXT_TYPE, _ARRAY_TYPE, _BOOL_TYPE = 8, 9, 7
_LETTERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_NUMBERS = {number: struct.Struct("<" + letter) for number, letter in _LETTERS.items()}

Scalar = int | float | bool | str


class GgufError(ValueError):
    """The fault of a file, worded to follow its name."""


@dataclass(frozen=True)
class GgufArray:
    """An array of the metadata, not yet read.

    Attributes:
        kind: the format's number of the type of its elements.
        count: number of elements.
    """

    kind: int
    count: int
    _data: mmap.mmap
    _begin: int
    _end: int

    @property
    def is_text(self) -> bool:
        """Whether its elements are texts."""
        return self.kind == _TEXT_TYPE

    def texts(self) -> Iterator[str]:
        """Yield the texts, with a surrogate for each byte that is not UTF-8.

        Raises:
            GgufError: it is an array of numbers.
        """
        if not self.is_text:
            raise GgufError("has numbers where a list of texts belongs")
        content, at = self._data[self._begin : self._end], 0
        unpack = _U64.unpack_from
        for _ in range(self.count):
            (length,) = unpack(content, at)
            yield content[at + 8 : at + 8 + length].decode("utf-8", "surrogateescape")
            at += 8 + length

    def numbers(self) -> list[int | float | bool]:
        """Return the numbers.

        Raises:
            GgufError: it is an array of texts.
        """
        if self.is_text:
            raise GgufError("has texts where a list of numbers belongs")
        content = self._data[self._begin : self._end]
        return [value for (value,) in _NUMBERS[self.kind].iter_unpack(content)]


Value = Scalar | GgufArray


@dataclass(frozen=True)
class GgufHeader:
    """A parsed header.

    Attributes:
        metadata: values by name.
        tensors: the tensors in the file, shapes with the fastest dimension last.
        begin: offset of the first byte of data.
    """

    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]
    begin: int


def read_header(path: Path) -> GgufHeader:
    """Read the header of a file. Needs no torch.

    Raises:
        CheckpointError: the file cannot be read, or is not a valid GGUF file.
    """
    with gguf_errors(path), open_regular_file(path) as file:
        size = file.seek(0, 2)
        if not size:
            raise GgufError("is empty")
        return parse_header(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))


def read_architecture(path: Path) -> str | None:
    """Return the architecture that a file states, most often first; None: it is no GGUF file, or states none."""
    try:
        with open_regular_file(path) as file:
            beginning = file.read(_BEGINNING.size)
            if len(beginning) < _BEGINNING.size or not beginning.startswith(MAGIC):
                return None
            _magic, version, _tensors, num_entries = _BEGINNING.unpack(beginning)
            if version not in _VERSIONS:
                return None
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                reader = _Reader(data, _BEGINNING.size)
                for _ in range(min(num_entries, MAX_ENTRIES)):
                    name = reader.name("metadata entry")
                    value = reader.value(name)
                    if name == _ARCHITECTURE:
                        return value if isinstance(value, str) else None
    except (OSError, ValueError):
        pass
    return None


@contextlib.contextmanager
def gguf_errors(path: Path) -> Iterator[None]:
    """Raise what reading a file raises as a CheckpointError that names it; but no memory left is an OSError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise  # no fault of the file
        raise CheckpointError(f"{quote(path)} cannot be read: {error.strerror}") from error
    except GgufError as error:
        raise CheckpointError(f"{quote(path)} {error}: download it again") from error


def parse_header(data: mmap.mmap) -> GgufHeader:
    """Parse the header of a mapped file.

    Raises:
        GgufError: it is not a GGUF file, or is one that cannot be right.
    """
    beginning = data[: _BEGINNING.size]
    if not beginning.startswith(MAGIC):
        found = stand_in(data[:BEGINNING_BYTES])
        if found is not None:
            raise GgufError(f"is {found}, not the file itself")
        raise GgufError("is no GGUF file: it does not begin with 'GGUF'")
    if len(beginning) < _BEGINNING.size:
        raise GgufError(f"has {len(data)} bytes, too few for a GGUF file")
    _magic, version, num_tensors, num_entries = _BEGINNING.unpack(beginning)
    if version not in _VERSIONS:
        if int.from_bytes(beginning[4:8], "big") in _VERSIONS:
            raise GgufError("is a GGUF file for big-endian machines, which are not supported")
        raise GgufError(f"is a GGUF file of version {version}, not 2 or 3")
    for what, number, most in (("metadata entries", num_entries, MAX_ENTRIES), ("tensors", num_tensors, MAX_TENSORS)):
        if number > most:
            raise GgufError(f"has {number} {what} by its own account; {most} are the most")
    reader = _Reader(data, _BEGINNING.size)
    metadata: dict[str, Value] = {}
    for _ in range(num_entries):
        name = reader.name("metadata entry")
        if name in metadata:
            raise GgufError(f"names {quote(name)} twice in its metadata")
        metadata[name] = reader.value(name)
    tensors: dict[str, TensorInfo] = {}
    for _ in range(num_tensors):
        name = reader.name("tensor")
        if name in tensors:
            raise GgufError(f"names the tensor {quote(name)} twice")
        tensors[name] = reader.tensor(name)
    alignment = _alignment(metadata)
    begin = -(-reader.at // alignment) * alignment
    _check_places(tensors, alignment, len(data) - begin)
    return GgufHeader(MappingProxyType(metadata), MappingProxyType(tensors), begin)


class _Reader:
    """Reads from a place in the header on; what would lie beyond the end of the file or the header is refused."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.at = at
        self._data = data
        self._size = len(data)
        self._end = min(self._size, MAX_HEADER_BYTES)

    def name(self, what: str) -> str:
        """Read the name of a metadata entry or tensor."""
        length = self._number(_U64)
        if length > MAX_NAME_BYTES:
            raise GgufError(f"has a {what} with a name of {length} bytes; {MAX_NAME_BYTES} are the most")
        text = self._take(length)
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise GgufError(f"has a {what} whose name is not UTF-8") from error

    def value(self, name: str) -> Value:
        """Read the type and value of a metadata entry."""
        kind = self._number(_U32)
        if kind == _TEXT_TYPE:
            length = self._number(_U64)
            if length > MAX_TEXT_BYTES:
                raise GgufError(f"has a text of {length} bytes as {quote(name)}; {MAX_TEXT_BYTES} are the most")
            return self._take(length).decode("utf-8", "surrogateescape")
        if kind == _ARRAY_TYPE:
            return self._array(name)
        return self._scalar(kind, name)

    def tensor(self, name: str) -> TensorInfo:
        """Read dimensions, type and offset of a tensor."""
        where = f"has a header in which {quote(name)}"
        num_dimensions = self._number(_U32)
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise GgufError(f"{where} has {num_dimensions} dimensions, not 1 to {_MAX_DIMENSIONS}")
        sizes = [self._number(_U64) for _ in range(num_dimensions)]
        kind, offset = self._number(_U32), self._number(_U64)
        shape = tuple(reversed(sizes))
        if min(sizes) < 1 or math.prod(sizes) >= 1 << 60:
            raise GgufError(f"{where} has the shape {quote(str(shape))}")
        found = GGML_TYPES.get(kind)
        if found is None:
            raise GgufError(f"{where} has the unknown type {kind}")
        if shape[-1] % found.block_size:
            raise GgufError(f"{where} has rows of {shape[-1]} numbers, which are no blocks of {found.block_size}")
        return TensorInfo(found.name, shape, offset, math.prod(sizes) // found.block_size * found.block_bytes)

    def _scalar(self, kind: int, name: str) -> Scalar:
        form = _NUMBERS.get(kind)
        if form is None:
            raise GgufError(f"has the unknown type {kind} for {quote(name)}")
        if kind == _BOOL_TYPE:
            byte = self._take(1)
            if byte not in (b"\0", b"\1"):
                raise GgufError(f"has a truth value that is neither 0 nor 1 as {quote(name)}")
            return byte == b"\1"
        (value,) = form.unpack(self._take(form.size))
        return value  # type: ignore[no-any-return]

    def _array(self, name: str) -> GgufArray:
        kind, count = _ARRAY.unpack(self._take(_ARRAY.size))
        begin = self.at
        if kind == _TEXT_TYPE:
            self._skip_texts(name, count)
        elif kind in _NUMBERS:
            self._skip(name, count * _NUMBERS[kind].size)
        else:
            raise GgufError(f"has a list of the type {kind} as {quote(name)}, which is not read here")
        return GgufArray(kind, count, self._data, begin, self.at)

    def _skip_texts(self, name: str, count: int) -> None:
        if count * _U64.size > self._end - self.at:
            raise self._beyond(f"a list of {count} texts as {quote(name)}")
        # A loop of its own, as there are 650,000 texts in a file of gpt-oss.
        data, at, end, unpack = self._data, self.at, self._end, _U64.unpack_from
        last = end - _U64.size
        for _ in range(count):
            if at > last:
                break
            at += _U64.size + unpack(data, at)[0]
        else:
            if at <= end:
                self.at = at
                return
        raise self._beyond(f"a list of {count} texts as {quote(name)}")

    def _skip(self, name: str, length: int) -> None:
        if length > self._end - self.at:
            raise self._beyond(f"a list of {length} bytes as {quote(name)}")
        self.at += length

    def _number(self, form: struct.Struct) -> int:
        (value,) = form.unpack(self._take(form.size))
        return int(value)

    def _take(self, length: int) -> bytes:
        if length > self._end - self.at:
            raise self._beyond(f"{length} bytes more")
        self.at += length
        return self._data[self.at - length : self.at]

    def _beyond(self, what: str) -> GgufError:
        if self._end < self._size:
            return GgufError(f"has a header of more than {MAX_HEADER_BYTES} bytes: {what} at byte {self.at}")
        return GgufError(f"is cut short, or its header lies: it ends before {what} at byte {self.at}")


def _alignment(metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    is_number = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not is_number or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):  # type: ignore[operator]
        raise GgufError(f"has the alignment {quote(alignment)}, which is no power of two up to {MAX_ALIGNMENT}")
    return alignment  # type: ignore[return-value]


def _check_places(tensors: Mapping[str, TensorInfo], alignment: int, data_bytes: int) -> None:
    """Require that the tensors lie in the data, aligned, behind one another and without holes."""
    end, last = 0, ""
    for name, info in sorted(tensors.items(), key=lambda item: item[1].begin):
        if info.begin % alignment:
            raise GgufError(f"has a header in which {quote(name)} is not aligned to {alignment} bytes")
        if info.begin + info.nbytes > data_bytes:
            raise GgufError(
                f"is cut short, or its header lies: {quote(name)} ends at byte {info.begin + info.nbytes} of its "
                f"data, which have {max(data_bytes, 0)}"
            )
        if info.begin < end:
            raise GgufError(f"has a header in which {quote(last)} and {quote(name)} overlap")
        if info.begin - end >= alignment:
            raise GgufError(f"has a header with a hole of {info.begin - end} bytes before {quote(name)}")
        end, last = info.begin + info.nbytes, name
