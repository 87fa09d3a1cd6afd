"""Which tokenizer a model has. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from gptoss.harmony import Encoding


def load_encoding(folder: Path) -> Encoding:
    """The tokenizer of a checkpoint: its own `tokenizer.json`, else that of the gpt-oss models.

    Raises:
        VocabularyError: it cannot be used.
    """
    path = folder / "tokenizer.json"
    return Encoding.from_tokenizer_json(path) if path.exists() else Encoding.o200k_harmony()
