"""A GGUF model of one file or several: its tensors, its config, and what there is to say about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gptoss.model.checkpoints.gguf_config import parse_gguf_config
from gptoss.model.checkpoints.gguf_file import GgufFile
from gptoss.model.checkpoints.tensor_info import TensorInfo
from gptoss.model.checkpoints.tensor_names import FLOAT, TensorSource
from gptoss.model.config import ModelConfig
from gptoss.model.errors import CheckpointError, quote
from gptoss.model.tensors.ggml_types import MXFP4, MXFP4_NEIGHBOURS

_TEMPLATE = "tokenizer.chat_template"


class GgufModel:
    """The files of one model.

    Attributes:
        path: the file, or the first part.
        tensors: the file of each stored tensor.
        metadata: of the first part.
        is_whole: whether all parts could be opened.
    """

    def __init__(self, path: Path, tensors: Mapping[str, GgufFile], first: GgufFile, is_whole: bool) -> None:
        self.path = path
        self.tensors = tensors
        self.is_whole = is_whole
        self.metadata = first.metadata

    @classmethod
    def open(cls, parts: Sequence[Path], report: Callable[[CheckpointError], None]) -> GgufModel:
        """Open all files, the first part first.

        Args:
            parts: their paths.
            report: called with each fault of a part but the first; may raise it.

        Raises:
            CheckpointError: the first part cannot be opened.
        """
        first = GgufFile(parts[0])
        files, is_whole = [first], True
        for path in parts[1:]:
            try:
                files.append(GgufFile(path))
            except CheckpointError as fault:
                report(fault)
                is_whole = False
        for number, file in enumerate(files if is_whole else ()):
            _check_part(file, number, len(parts), report)
        tensors: dict[str, GgufFile] = {}
        for file in files:
            for name in file.tensors:
                if name in tensors:
                    report(
                        CheckpointError(
                            f"{quote(name)} is both in {quote(tensors[name].path)} and in {quote(file.path)}: "
                            "they are not parts of one model"
                        )
                    )
                tensors[name] = file
        return cls(parts[0], tensors, first, is_whole)

    def parse_config(self, infos: Mapping[str, TensorInfo]) -> ModelConfig:
        """Return the model's blueprint; `infos` are those of all tensors.

        Raises:
            ConfigError, UnsupportedModelError: as `parse_gguf_config`, with the file's name.
        """
        try:
            return parse_gguf_config(self.metadata, infos)
        except CheckpointError as error:
            raise type(error)(f"{quote(self.path)}: {error}") from error

    def notes(self, sources: Mapping[str, TensorSource], infos: Mapping[str, TensorInfo]) -> tuple[str, ...]:
        """Return lines on how the file is used."""
        notes = []
        as_they_are = FLOAT | {MXFP4, MXFP4_NEIGHBOURS, "Q8_0"}
        converted = {
            canonical: infos[source.name].dtype
            for canonical, source in sources.items()
            if infos[source.name].dtype not in as_they_are and canonical != "embedding.weight"
        }
        if converted:
            nbytes = sum(2 * math.prod(sources[canonical].shape) for canonical in converted)
            notes.append(
                f"layers in {', '.join(sorted(set(converted.values())))} are converted while they are loaded, to "
                f"{max(round(nbytes / 1e6), 1):,} MB of bfloat16"
            )
        if _TEMPLATE in self.metadata:
            notes.append("the chat template in the file is not used: gptoss writes the harmony format itself")
        return tuple(notes)


def _check_part(file: GgufFile, number: int, count: int, report: Callable[[CheckpointError], None]) -> None:
    """Report a part that says itself that it is another one; a file that says nothing is believed by its name."""
    said = file.metadata.get("split.count", count), file.metadata.get("split.no", number)
    # One file that was once split, or is the only part, may say 0 parts.
    if said != (count, number) and not (count == 1 and said[0] in (0, 1)):
        report(
            CheckpointError(
                f"{quote(file.path)} is part {quote(said[1])} (from 0) of {quote(said[0])} by its metadata, but not by "
                "its name: name the first part of a model, and keep all parts beside it"
            )
        )
