"""The tokenizer of a checkpoint. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from gptoss.harmony import Encoding
from gptoss.harmony.encoding import TOKENIZER_FILE
from gptoss.model.checkpoints.folder import CheckpointFolder
from gptoss.model.checkpoints.gguf_place import gguf_files
from gptoss.model.checkpoints.gguf_vocabulary import read_vocabulary


def load_encoding(path: Path, vocab_size: int | None = None) -> Encoding:
    """Return the tokenizer of a checkpoint, none of whose files may lie outside its folder.

    Args:
        path: the checkpoint's folder, or a GGUF file.
        vocab_size: the model's number of token ids, if known.

    Raises:
        VocabularyError: as `Encoding.for_checkpoint` or `Encoding.for_gguf`.
        CheckpointError: there is no such folder, or its tokenizer lies elsewhere or is not a regular file; or the GGUF
            file is broken.
    """
    parts = gguf_files(path)
    if parts is not None:
        vocabulary = asdict(read_vocabulary(parts[0]))
        return Encoding.for_gguf(parts[0], **vocabulary, vocab_size=vocab_size)
    folder = CheckpointFolder(path)
    if folder.has(TOKENIZER_FILE):
        folder.file(TOKENIZER_FILE)
    return Encoding.for_checkpoint(folder.path, vocab_size)
