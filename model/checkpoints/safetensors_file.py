"""Reads one .safetensors file: its header is validated first, its data mapped and never copied.

The format (https://github.com/huggingface/safetensors, "Format"): eight bytes with the length of the header, the
header (a JSON object of names with dtype, shape and data_offsets), then the data, which the tensors fill without holes
or overlaps to the last byte.

The file is mapped read-only, so all processes that read it share its pages, and a page that is not touched takes no
memory. Writing to a tensor would crash the process.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gptoss.model.checkpoints.tensor_info import TensorInfo
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.storage.file_identity import file_identity
from gptoss.model.storage.json_file import JsonError, parse_json_object
from gptoss.model.storage.mapping import as_tensor, map_file, release
from gptoss.model.storage.regular_file import open_regular_file
from gptoss.model.storage.stand_ins import BEGINNING_BYTES, is_text, stand_in

MAX_HEADER_BYTES = 4 << 20
"""The largest published header of a gpt-oss file has less than 100 kB."""
MAX_DIMENSIONS = 16

_LENGTH_BYTES = 8
_BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
_TORCH_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


class SafetensorsFile:
    """The tensors of one file; opening it reads the header only.

    Attributes:
        path: the file.
        tensors: the header's entries, by name.
        nbytes: bytes of data of all tensors.
        identity: as `file_identity`.
        mapping: the whole file.

    Raises:
        CheckpointError: the file cannot be read, or is not a valid safetensors file.
        OSError: there is no memory left to map it (ENOMEM).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            with open_regular_file(self.path) as file:
                self._begin, self.nbytes, header = _read_header(file)
                self.tensors: Mapping[str, TensorInfo] = MappingProxyType(_parse_header(header, self.nbytes))
                self.identity = file_identity(file)
                self.mapping = map_file(file, self._begin + self.nbytes, self.path)
                self._bytes = as_tensor(self.mapping)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise  # no fault of the file
            raise CheckpointError(f"{quote(self.path)} cannot be read: {error.strerror}") from error
        except _HeaderError as error:
            raise CheckpointError(f"{quote(self.path)} {error}: download it again") from error

    def tensor(self, name: str) -> Tensor:
        """Return the tensor of this name; the file stays mapped as long as one of its tensors lives.

        A tensor that is not aligned to its type's size (no common program writes such) is copied.

        Raises:
            KeyError: there is no such tensor.
            CheckpointError: torch has no such type.
        """
        info = self.tensors[name]
        dtype = _TORCH_DTYPES.get(info.dtype)
        if dtype is None:
            raise CheckpointError(f"{quote(self.path)}: {quote(name)} has the type {info.dtype}, not read here")
        begin = self._begin + info.begin
        data = self._bytes[begin : begin + info.nbytes]
        if begin % dtype.itemsize:
            data = data.clone()
        return data.view(dtype).view(info.shape)

    def stored_bytes(self, name: str) -> Tensor:
        """Return the stored bytes of the tensor of this name, uint8.

        Raises:
            KeyError: there is no such tensor.
        """
        info = self.tensors[name]
        return self._bytes[self._begin + info.begin : self._begin + info.begin + info.nbytes]

    def release(self, name: str) -> None:
        """Release the memory of this tensor's pages; they are read again when needed.

        For reading files from end to end that may be larger than memory.

        Raises:
            KeyError: there is no such tensor.
        """
        info = self.tensors[name]
        release(self.mapping, self._begin + info.begin, info.nbytes)


class _HeaderError(ValueError):
    """The fault of a file, worded to follow its name."""


def _read_header(file: BinaryIO) -> tuple[int, int, bytes]:
    """Return where the data begin, their size in bytes, and the header."""
    size = file.seek(0, 2)
    file.seek(0)
    beginning = file.read(BEGINNING_BYTES)
    found = stand_in(beginning)
    if found is None and is_text(beginning[:_LENGTH_BYTES]):
        found = f"a text, such as the message of a server ({quote(beginning.decode('ascii', 'replace'))})"
    if found is not None:
        raise _HeaderError(f"is {found}, not the file itself")
    if size < _LENGTH_BYTES:
        raise _HeaderError(f"has {size} bytes, too few for a safetensors file")
    file.seek(_LENGTH_BYTES)
    length = int.from_bytes(beginning[:_LENGTH_BYTES], "little")
    if length > size - _LENGTH_BYTES:
        raise _HeaderError(f"has a header of {length} bytes by its own account, but ends after {size} bytes in all")
    if length > MAX_HEADER_BYTES:
        raise _HeaderError(f"has a header of {length} bytes by its own account; {MAX_HEADER_BYTES} are the most")
    return _LENGTH_BYTES + length, size - _LENGTH_BYTES - length, file.read(length)


def _parse_header(text: bytes, data_bytes: int) -> dict[str, TensorInfo]:
    if not text.startswith(b"{"):
        raise _HeaderError("is no safetensors file: its header is not a JSON object")
    try:
        header = parse_json_object(text)
    except JsonError as error:
        raise _HeaderError(f"has a header that {error}") from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _HeaderError("has a header whose __metadata__ is no table of texts")
    tensors = {name: _parse_entry(name, entry) for name, entry in header.items()}
    end, last = 0, ""
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].nbytes)):
        if info.begin + info.nbytes > data_bytes:
            raise _HeaderError(
                f"is cut short, or its header lies: {quote(name)} ends at byte {info.begin + info.nbytes} of its "
                f"data, which have {data_bytes}"
            )
        if info.begin < end:
            raise _HeaderError(f"has a header in which {quote(last)} and {quote(name)} overlap")
        if info.begin > end:
            raise _HeaderError(f"has a header with a hole of {info.begin - end} bytes before {quote(name)}")
        end, last = info.begin + info.nbytes, name
    if end != data_bytes:
        raise _HeaderError(f"has {data_bytes - end} bytes after the last tensor of its header")
    return tensors


def _parse_entry(name: str, entry: Any) -> TensorInfo:
    where = f"has a header in which {quote(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _HeaderError(f"{where} does not have just dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _HeaderError(f"{where} has the unknown type {quote(dtype)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_is_size(n) for n in shape):
        raise _HeaderError(f"{where} has the shape {quote(str(shape))}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
        raise _HeaderError(f"{where} has the data_offsets {quote(str(offsets))}")
    bits = _BITS[dtype] * math.prod(shape)
    begin, end = offsets
    # Torch multiplies the sizes in 64 bits, even if one of them is zero.
    if math.prod(size or 1 for size in shape) >= 1 << 63:
        raise _HeaderError(f"{where} has the shape {quote(str(shape))}")
    if bits % 8 or end - begin != bits // 8:
        raise _HeaderError(
            f"{where} has {end - begin} bytes, which are not those of {dtype} of the shape {quote(str(shape))}"
        )
    return TensorInfo(dtype, tuple(shape), begin, end - begin)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
