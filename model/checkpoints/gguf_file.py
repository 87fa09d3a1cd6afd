"""Reads one GGUF file: its header is validated first, its data mapped and never copied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gptoss.model.checkpoints.gguf_header import GgufError, Value, gguf_errors, parse_header
from gptoss.model.checkpoints.tensor_info import TensorInfo
from gptoss.model.storage.file_identity import file_identity
from gptoss.model.storage.mapping import as_tensor, map_file, release
from gptoss.model.storage.regular_file import open_regular_file
from gptoss.model.tensors.ggml_types import GGML_TYPES

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCKS = {each.name: (each.block_size, each.block_bytes) for each in GGML_TYPES.values()}


class GgufFile:
    """The tensors and metadata of one file; opening it reads the header only.

    Attributes:
        path: the file.
        tensors: the header's entries, by name; shapes with the fastest dimension last.
        metadata: the header's values, by name.
        nbytes: bytes of data of all tensors.
        identity: as `file_identity`.
        mapping: the whole file.

    Raises:
        CheckpointError: the file cannot be read, or is not a valid GGUF file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with gguf_errors(self.path), open_regular_file(self.path) as file:
            size = file.seek(0, 2)
            if not size:
                raise GgufError("is empty")
            self.identity = file_identity(file)
            self.mapping = map_file(file, size, self.path)
            header = parse_header(self.mapping)
        self.tensors: Mapping[str, TensorInfo] = header.tensors
        self.metadata: Mapping[str, Value] = header.metadata
        self.nbytes = sum(info.nbytes for info in self.tensors.values())
        self._begin = header.begin
        self._bytes = as_tensor(self.mapping)

    def tensor(self, name: str) -> Tensor:
        """Return the tensor of this name; the file stays mapped as long as one of its tensors lives.

        Floating-point tensors have their shape and type. Those of other types are uint8, (..., rows, blocks, bytes of a
        block).

        Raises:
            KeyError: there is no such tensor.
        """
        info = self.tensors[name]
        data = self.stored_bytes(name)
        dtype = _DTYPES.get(info.dtype)
        if dtype is not None:
            # The format allows an alignment smaller than a number.
            return (data if data.data_ptr() % dtype.itemsize == 0 else data.clone()).view(dtype).view(info.shape)
        size, nbytes = _BLOCKS[info.dtype]
        return data.view(*info.shape[:-1], info.shape[-1] // size, nbytes)

    def stored_bytes(self, name: str) -> Tensor:
        """Return the stored bytes of the tensor of this name, uint8.

        Raises:
            KeyError: there is no such tensor.
        """
        info = self.tensors[name]
        return self._bytes[self._begin + info.begin : self._begin + info.begin + info.nbytes]

    def release(self, name: str) -> None:
        """Release the memory of this tensor's pages; they are read again when needed.

        Raises:
            KeyError: there is no such tensor.
        """
        info = self.tensors[name]
        release(self.mapping, self._begin + info.begin, info.nbytes)
