"""The tokenizer of a checkpoint. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from gptoss.harmony import Encoding
from gptoss.harmony.encoding import TOKENIZER_FILE
from gptoss.model.checkpoints.folder import CheckpointFolder


def load_encoding(path: Path, vocab_size: int | None = None) -> Encoding:
    """Return the tokenizer of a checkpoint, none of whose files may lie outside its folder.

    Args:
        path: the checkpoint's folder.
        vocab_size: the model's number of token ids, if known.

    Raises:
        VocabularyError: as `Encoding.for_checkpoint`.
        CheckpointError: there is no such folder, or its tokenizer lies elsewhere or is not a regular file.
    """
    folder = CheckpointFolder(path)
    if folder.has(TOKENIZER_FILE):
        folder.file(TOKENIZER_FILE)
    return Encoding.for_checkpoint(folder.path, vocab_size)
