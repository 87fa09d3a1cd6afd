"""Which tokenizer a model has. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from gptoss.cli.base.text import one_line
from gptoss.harmony import Encoding, EncodingError, VocabularyError, o200k
from gptoss.model.checkpoints.folder import CheckpointFolder

_FILE = "tokenizer.json"


def load_encoding(path: Path, vocab_size: int | None = None) -> Encoding:
    """The tokenizer of a checkpoint: its own `tokenizer.json`, else that of the gpt-oss models.

    Args:
        path: the checkpoint's folder.
        vocab_size: the number of ids that the model has, where it is known.

    Raises:
        VocabularyError: the tokenizer cannot be used, has ids that the model does not have, or looks like
            o200k_harmony but differs from it.
        CheckpointError: there is no such folder, or its tokenizer lies elsewhere.
    """
    folder = CheckpointFolder(path)
    where = one_line(str(folder.path / _FILE))
    if folder.has(_FILE):
        encoding = Encoding.from_tokenizer_json(folder.file(_FILE))
        difference = _difference_from_o200k(encoding)
        if difference is not None:
            raise VocabularyError(
                f"{where}: looks like o200k_harmony, the tokenizer of gpt-oss, but {difference}: download it again"
            )
    else:
        encoding = Encoding.o200k_harmony()
        if vocab_size is not None and vocab_size < encoding.vocab_size:
            raise VocabularyError(
                f"{where} is missing, and the model's {vocab_size} tokens are not gpt-oss's {encoding.vocab_size}: "
                "download this file too"
            )
    if vocab_size is not None and encoding.vocab_size > vocab_size:
        raise VocabularyError(
            f"{where} has ids up to {encoding.vocab_size - 1}, but the model has {vocab_size} tokens: "
            "model and tokenizer are not of one checkpoint"
        )
    return encoding


def _difference_from_o200k(encoding: Encoding) -> str | None:
    """Where an encoding first differs from o200k_harmony; None: nowhere, or it does not claim to be it.

    One that gives any special token of the harmony format the id of o200k_harmony, claims to be it.
    """
    shipped = Encoding.o200k_harmony()
    if encoding is shipped or not o200k.NAMED_TOKENS.items() & encoding.specials.items():
        return None
    for name, token in o200k.NAMED_TOKENS.items():
        found = encoding.specials.get(name)
        if found != token:
            return f"the special token {name} {'is missing' if found is None else f'has the id {found}, not {token}'}"
    for token in range(o200k.ORDINARY_SIZE):
        expected, actual = shipped.token_bytes(token), _token_bytes(encoding, token)
        if actual != expected:
            return f"the token {token} is {'missing' if actual is None else ascii(actual)}, not {expected!a}"
    return "splits or merges text in another way"


def _token_bytes(encoding: Encoding, token: int) -> bytes | None:
    try:
        return encoding.token_bytes(token)
    except EncodingError:
        return None
