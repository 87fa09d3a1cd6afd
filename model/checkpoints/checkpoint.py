"""A checkpoint, a folder or a GGUF file, as a table of canonical tensors, whatever layout it was published in.

Opening reads the config and the headers, each file once, and checks every tensor's presence, shape and type against
the config before any weight is touched. Tensors are views of the mapped files: nothing is copied.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor

from gptoss.model.checkpoints.config_dialects import parse_model_config
from gptoss.model.checkpoints.config_files import CONFIG
from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.checkpoints.gguf_file import GgufFile
from gptoss.model.checkpoints.gguf_header import Value
from gptoss.model.checkpoints.gguf_model import GgufModel
from gptoss.model.checkpoints.gguf_names import gguf_layout, gguf_tensors
from gptoss.model.checkpoints.gguf_place import gguf_files
from gptoss.model.checkpoints.safetensors_file import SafetensorsFile
from gptoss.model.checkpoints.stored_names import USE_PUBLISHED, other_format, published_names
from gptoss.model.checkpoints.tensor_info import TensorInfo
from gptoss.model.checkpoints.tensor_names import (
    HEADS,
    IGNORED,
    LAYER,
    Layout,
    TensorSource,
    canonical_tensors,
    detect_layout,
    is_dense,
)
from gptoss.model.checkpoints.wrong_folder import explain_folder
from gptoss.model.config import ModelConfig
from gptoss.model.errors import CheckpointError, ConfigError, UnsupportedModelError, quote
from gptoss.model.tensors.blocks import READABLE, Blocks
from gptoss.model.tensors.ggml_types import MXFP4, MXFP4_NEIGHBOURS
from gptoss.model.tensors.joined_mxfp4 import JoinedMxfp4
from gptoss.model.tensors.mxfp4 import BLOCK_SIZE

MAX_INDEX_BYTES = 4 << 20
"""The largest published index has less than 100 kB."""
MAX_FILES = 1000

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_model.safetensors"
_SHARD = re.compile(r"(.*-)([0-9]{5})(-of-([0-9]{5})\.safetensors)")

# Called with each fault of a file or tensor: raises it, or records it so that the others are checked too.
_Report = Callable[[CheckpointError], None]


class Checkpoint:
    """An opened checkpoint; make one with `Checkpoint.open`.

    Attributes:
        folder: its path, links resolved; of a GGUF file, the file (of a split one, the first part).
        config: the model's blueprint.
        layout: the naming and packing of its tensors.
        files: its weight files.
        mappings: of the weight files.
        nbytes: bytes of all tensors that the model uses, as stored; the most memory that a mapped model takes.
        fingerprint: differs between checkpoints; hash of the config and of `SafetensorsFile.identity` of each file.
        sources: the stored tensor of each canonical name.
        ignored: names of stored tensors that the model does not use.
        notes: lines for people on how the tensors are used.
        metadata: of a GGUF file, its metadata; else empty.
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        layout: Layout,
        sources: Mapping[str, TensorSource],
        stored: Mapping[str, _Stored],
        config_text: bytes | None,
        notes: tuple[str, ...] = (),
        metadata: Mapping[str, Value] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.config = config
        self.layout = layout
        self.metadata = metadata
        self.sources = MappingProxyType(dict(sources))
        self.files = tuple(sorted({each.file.path for each in stored.values()}))
        self.mappings = tuple({each.file.path: each.file.mapping for each in stored.values()}.values())
        self._stored = stored
        used = {name for source in self.sources.values() for name in source.names}
        self.ignored = tuple(sorted(set(stored) - used))
        self.notes = (*notes, *_notes_on_unused(self.ignored))
        self.nbytes = sum(stored[name].info.nbytes for name in used)
        self.fingerprint = _fingerprint(config_text, (each.file for each in stored.values()))

    @classmethod
    def open(cls, folder: Path | str) -> Checkpoint:
        """Open the checkpoint in `folder`.

        Raises:
            CheckpointError: a file is missing, broken, or leads out of the folder; a tensor is missing, or its shape
                or type does not match the config.
            ConfigError: the config is broken, or does not match the weights.
            UnsupportedModelError: it is a kind of model or file that does not run here; the message says which.
        """
        return cls._open(Path(folder), _give_up)

    @classmethod
    def inspect(cls, folder: Path | str) -> tuple[Checkpoint | None, tuple[CheckpointError, ...]]:
        """Collect all faults that `open` would raise, not only the first.

        Returns:
            The checkpoint with its sound tensors, and the faults. None instead of the checkpoint if a fault leaves
            nothing to check.
        """
        faults: list[CheckpointError] = []
        try:
            return cls._open(Path(folder), faults.append), tuple(faults)
        except CheckpointError as fault:
            # Later faults of an unreadable checkpoint follow from the earlier ones.
            return None, tuple(faults) or (fault,)

    @classmethod
    def _open(cls, folder: Path, report: _Report) -> Checkpoint:
        parts = gguf_files(folder)
        if parts is not None:
            return cls._open_gguf(GgufModel.open(parts, report), report)
        files = CheckpointFolder(folder)
        if not files.has(CONFIG):
            raise explain_folder(files.path, files.names())
        config_text = files.text(CONFIG)
        config = files.parse_json(CONFIG, parse_model_config, config_text)
        found, whole = _find_tensors(files, report)
        stored = {name: _Stored(found[own], own) for name, own in published_names(found).items()}
        other = other_format(found, files.path)
        if other is not None:
            raise other
        layout = detect_layout(stored)
        if layout is None:
            raise UnsupportedModelError(
                f"{quote(files.path)} has none of the expert tensors of gpt-oss, such as "
                f"'model.layers.0.mlp.experts.gate_up_proj_blocks': it is another kind of model, or not all of one"
            )
        _require_whole_blocks(config, layout, files)
        notes: tuple[str, ...] = ()
        if config.tie_word_embeddings and any(name in stored for name in HEADS):
            # As transformers 5 does; a head that equals the embedding makes no difference.
            config = replace(config, tie_word_embeddings=False)
            notes = (
                "config.json ties the unembedding to the embedding, but the weights have one of its own: it is used",
            )
        sources = dict(canonical_tensors(config, layout))
        unknown = _foreign_tensors(sources, stored)
        if whole:
            _report_missing(sources, stored, unknown, files, report)
        wrong = {
            name: _fault_of(name, source, stored)
            for source in sources.values()
            for name in source.names
            if name in stored
        }
        for fault in filter(None, wrong.values()):
            report(fault)
        _refuse_foreign(config, unknown, stored, report)
        sound = {
            canonical: source
            for canonical, source in sources.items()
            if all(name in stored and wrong[name] is None for name in source.names)
        }
        return cls(files.path, config, layout, sound, stored, config_text, notes)

    @classmethod
    def _open_gguf(cls, model: GgufModel, report: _Report) -> Checkpoint:
        stored = {name: _Stored(file, name) for name, file in model.tensors.items()}
        infos = {name: each.info for name, each in stored.items()}
        config = model.parse_config(infos)
        layout = gguf_layout(infos)
        if layout is None:
            raise CheckpointError(
                f"{quote(model.path)} has no expert tensors, such as 'blk.0.ffn_down_exps.weight': download it again"
            )
        sources = dict(gguf_tensors(config, layout, infos))
        missing = [name for source in sources.values() for name in source.names if name not in stored]
        if model.is_whole:
            for name in dict.fromkeys(missing):
                report(CheckpointError(f"{quote(model.path)} has no tensor {quote(name)}: download it again"))
        wrong = {
            name: _fault_of_gguf(name, source, stored)
            for source in sources.values()
            for name in source.names
            if name in stored
        }
        for fault in filter(None, wrong.values()):
            report(fault)
        _refuse_foreign(config, _foreign_tensors(sources, stored), stored, report, "its metadata speaks")
        sound = {
            canonical: source
            for canonical, source in sources.items()
            if all(name in stored and wrong[name] is None for name in source.names)
        }
        return cls(model.path, config, layout, sound, stored, None, model.notes(sound, infos), model.metadata)

    @property
    def has_packed_experts(self) -> bool:
        """Whether the experts are in MXFP4."""
        return self.layout.is_packed

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this canonical name."""
        return name in self.sources

    def tensor(self, name: str) -> Tensor:
        """Return the tensor of this canonical name, mapped from its file: never write to it.

        One of parts is a copy; so is one in a quantised type of GGUF, in bfloat16.

        Raises:
            KeyError: the model has no such tensor.
        """
        source = self.sources[name]
        packed = self.packed_experts(name)
        if packed is not None:
            return packed.dequantize(torch.bfloat16)
        blocks = self.blocks(name)
        if blocks is not None:
            return blocks.dequantize(torch.bfloat16)
        return source.view(*(self._stored[name].tensor() for name in source.names))

    def blocks(self, name: str) -> Blocks | None:
        """Return a matrix in a quantised type of GGUF as it is mapped; None: the tensor is of another type.

        Raises:
            KeyError: the model has no such tensor.
        """
        source, kind = self.sources[name], self.dtype(name)
        if kind not in READABLE or not self.layout.is_gguf:
            return None
        data = self._stored[source.name].tensor()
        return Blocks(kind, data if source.rows is None else data[source.rows])

    def packed_experts(self, name: str) -> JoinedMxfp4 | None:
        """Return packed experts in GGUF's blocks as they are mapped; None: the tensor is another one.

        Raises:
            KeyError: the model has no such tensor.
        """
        source, kind = self.sources[name], self.dtype(name)
        if kind not in (MXFP4, MXFP4_NEIGHBOURS):
            return None
        return JoinedMxfp4(tuple(self._stored[each].tensor() for each in source.names), kind == MXFP4)

    def stored_nbytes(self, name: str) -> int:
        """Return the bytes of the tensor of this canonical name, as stored.

        Raises:
            KeyError: the model has no such tensor.
        """
        source = self.sources[name]
        nbytes = sum(self._stored[each].info.nbytes for each in source.names)
        if source.rows is None:
            return nbytes
        return nbytes * source.shape[0] // self._stored[source.name].info.shape[0]

    def stored_bytes(self, *, without_dense: bool = False) -> list[Tensor]:
        """Return the bytes of all tensors that computing reads, uint8, in file order.

        The embedding is left out, as a prompt reads a few rows of it.

        Args:
            without_dense: leave out the dense matrices too, which repacked weights replace.
        """
        names = {
            name
            for canonical, source in self.sources.items()
            if canonical != "embedding.weight" and not (without_dense and is_dense(canonical))
            for name in source.names
        }
        places = [(self._stored[name].file.path, self._stored[name].info.begin, name) for name in names]
        return [self._stored[name].stored_bytes() for _path, _begin, name in sorted(places)]

    def dtype(self, name: str) -> str:
        """Return the stored type of the tensor of this canonical name, such as `BF16`.

        Raises:
            KeyError: the model has no such tensor.
        """
        return self._stored[self.sources[name].name].info.dtype

    def release(self, name: str) -> None:
        """Release the memory of the pages that reading this tensor has mapped.

        Raises:
            KeyError: the model has no such tensor.
        """
        for each in self.sources[name].names:
            self._stored[each].release()


@dataclass(frozen=True)
class _Stored:
    """A stored tensor: its file and its name there."""

    file: SafetensorsFile | GgufFile
    name: str

    @property
    def info(self) -> TensorInfo:
        return self.file.tensors[self.name]

    def tensor(self) -> Tensor:
        return self.file.tensor(self.name)

    def stored_bytes(self) -> Tensor:
        return self.file.stored_bytes(self.name)

    def release(self) -> None:
        self.file.release(self.name)


def _notes_on_unused(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on tensors that the model does not use, but for those known to have no effect."""
    unused = [name for name in names if not IGNORED.search(name)]
    if not unused:
        return ()
    more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
    return (f"not used: {', '.join(quote(name) for name in unused[:3])}{more}",)


def _give_up(fault: CheckpointError) -> NoReturn:
    raise fault


def _fingerprint(config_text: bytes | None, files: Iterable[SafetensorsFile | GgufFile]) -> str:
    parts = {} if config_text is None else {CONFIG: hashlib.sha256(config_text).digest()}
    parts |= {file.path.name: file.identity for file in files}
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(repr(name).encode("utf-8", "surrogateescape"))
        digest.update(parts[name])
    return digest.hexdigest()


def _find_tensors(folder: CheckpointFolder, report: _Report) -> tuple[dict[str, SafetensorsFile], bool]:
    """Map each stored tensor to its file, and return whether all files were found.

    The files are the single file, else those of the index, else all weight files of the folder.
    """
    if folder.has(_SINGLE):
        names = [_SINGLE]
    elif folder.has(_INDEX):
        return _find_indexed_tensors(folder, report)
    else:
        visible = [name for name in folder.names() if name.endswith(".safetensors") and not name.startswith(".")]
        names = [name for name in visible if name != _ADAPTER]
    if not names:
        raise explain_folder(folder.path, folder.names())
    files = _open_files(folder, names, report)
    stored: dict[str, SafetensorsFile] = {}
    for file in files.values():
        for tensor in file.tensors:
            if tensor in stored:
                report(
                    CheckpointError(
                        f"{quote(tensor)} is both in {quote(stored[tensor].path)} and in {quote(file.path)}: "
                        "remove the file that does not belong there"
                    )
                )
            stored[tensor] = file
    return stored, len(files) == len(names)


def _find_indexed_tensors(folder: CheckpointFolder, report: _Report) -> tuple[dict[str, SafetensorsFile], bool]:
    where = quote(folder.path / _INDEX)
    weight_map = folder.json(_INDEX, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{where} has no weight_map: download this file again")
    if not all(isinstance(name, str) and name.endswith(".safetensors") for name in weight_map.values()):
        raise CheckpointError(f"{where} names a file that is no .safetensors file; other kinds are never opened")
    files = _open_files(folder, sorted(set(weight_map.values())), report)
    stored: dict[str, SafetensorsFile] = {}
    for tensor, name in weight_map.items():
        if name not in files:
            continue  # has been reported
        if tensor in files[name].tensors:
            stored[tensor] = files[name]
            continue
        report(
            CheckpointError(
                f"{where} says that {quote(tensor)} is in {quote(name)}, but it is not: "
                "index and weights are not of one checkpoint; download both again"
            )
        )
    is_whole = len(stored) == len(weight_map)
    for file in files.values():
        for tensor in file.tensors:
            stored.setdefault(tensor, file)  # as transformers does: a head that the index leaves out is used
    return stored, is_whole


def _open_files(folder: CheckpointFolder, names: list[str], report: _Report) -> dict[str, SafetensorsFile]:
    """Open the files; those that cannot be opened are reported and left out."""
    if len(names) > MAX_FILES:
        raise CheckpointError(f"{quote(folder.path)} has {len(names)} weight files, more than {MAX_FILES}")
    files: dict[str, SafetensorsFile] = {}
    for name in names:
        try:
            files[name] = SafetensorsFile(folder.file(name))
        except CheckpointError as fault:
            report(fault)
    return files


def _require_whole_blocks(config: ModelConfig, layout: Layout, folder: CheckpointFolder) -> None:
    if not layout.is_packed:
        return
    for key, size in (("hidden_size", config.hidden_size), ("intermediate_size", config.intermediate_size)):
        if size % BLOCK_SIZE:
            raise ConfigError(
                f"{quote(folder.path / 'config.json')}: {key} is {size}, but the MXFP4 experts of this checkpoint "
                f"come in blocks of {BLOCK_SIZE}"
            )


def _report_missing(
    sources: Mapping[str, TensorSource],
    stored: Mapping[str, _Stored],
    foreign: Sequence[str],
    folder: CheckpointFolder,
    report: _Report,
) -> None:
    """Report the tensors that no file has; if a file of a numbered series is missing, report only that file."""
    names = [name for source in sources.values() for name in source.names if name not in stored]
    shard = _missing_shard(folder) if names else None
    if shard is not None:
        names = names[:1]
    for name in dict.fromkeys(names):
        lack = f"{quote(folder.path)} has no tensor {quote(name)}"
        if shard is not None:
            report(CheckpointError(f"{lack}: {quote(shard)} is missing: download it"))
        elif foreign:
            what = f"but {quote(foreign[0])}: its weights are in a format that is not read here: {USE_PUBLISHED}"
            report(UnsupportedModelError(f"{lack}, {what}"))
        else:
            report(CheckpointError(f"{lack}: download the checkpoint again"))


def _fault_of(name: str, source: TensorSource, stored: Mapping[str, _Stored]) -> CheckpointError | None:
    """Return the fault of a stored tensor according to its header; None: it has none."""
    file, info = stored[name].file, stored[name].info
    # First: packed weights have another shape too.
    if info.dtype not in source.dtypes:
        return CheckpointError(
            f"{quote(file.path)}: {quote(name)} has the type {info.dtype}, not "
            f"{' or '.join(sorted(source.dtypes))}: use an MXFP4 or bf16 checkpoint"
        )
    if info.shape not in source.stored_shapes:
        return CheckpointError(
            f"{quote(file.path)}: {quote(name)} has the shape {_shape(info.shape)}, but by config.json it is "
            f"{_shape(source.stored_shapes[0])}: config and weights are not of one checkpoint"
        )
    return None


def _fault_of_gguf(name: str, source: TensorSource, stored: Mapping[str, _Stored]) -> CheckpointError | None:
    """Return the fault of a tensor of a GGUF file according to its header; None: it has none."""
    file, info = stored[name].file, stored[name].info
    if info.shape not in source.stored_shapes:
        return CheckpointError(
            f"{quote(file.path)}: {quote(name)} has the shape {_shape(info.shape)}, but by the file's metadata it is "
            f"{_shape(source.stored_shapes[0])}: download it again"
        )
    if info.dtype in source.dtypes:
        return None
    if "_exps.weight" in name:
        return UnsupportedModelError(
            f"{quote(file.path)}: the experts {quote(name)} are in {info.dtype}: use a file whose experts are in "
            "MXFP4, such as ggml-org/gpt-oss-20b-GGUF"
        )
    return UnsupportedModelError(
        f"{quote(file.path)}: {quote(name)} is in {info.dtype}, which is not read here: use a file in "
        f"{'MXFP4 and Q8_0' if len(source.dtypes) > 3 else 'F32'}, such as ggml-org/gpt-oss-20b-GGUF"
    )


def _foreign_tensors(sources: Mapping[str, TensorSource], stored: Mapping[str, _Stored]) -> list[str]:
    """Return the tensors inside layers that the model does not use: without them it would answer nonsense."""
    used = {name for source in sources.values() for name in source.names}
    return [name for name in stored if LAYER.match(name) and name not in used and not IGNORED.search(name)]


def _refuse_foreign(
    config: ModelConfig,
    foreign: Sequence[str],
    stored: Mapping[str, _Stored],
    report: _Report,
    says: str = "config.json speaks",
) -> None:
    for name in foreign:
        file, match = stored[name].file, LAYER.match(name)
        if match is not None and int(match[1]) >= config.num_layers:
            report(
                ConfigError(
                    f"{quote(file.path)} holds {quote(name)}, but {says} of {config.num_layers} layers: "
                    "config and weights are not of one checkpoint"
                )
            )
        else:
            report(UnsupportedModelError(f"{quote(file.path)} holds {quote(name)}, which no gpt-oss model has"))


def _missing_shard(folder: CheckpointFolder) -> str | None:
    """Return the first missing file of a numbered series, counted from 0 or 1 as the series is."""
    names = set(folder.names())
    for name in sorted(names):
        match = _SHARD.fullmatch(name)
        if match is None:
            continue
        head, _number, tail, count = match.groups()
        start = 0 if f"{head}00000{tail}" in names else 1
        last = int(count) + (1 if start else 0)
        wanted = (f"{head}{index:05d}{tail}" for index in range(start, min(last, start + MAX_FILES)))
        return next((shard for shard in wanted if shard not in names), None)
    return None


def _shape(shape: tuple[Any, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
