"""A model that was loaded for this run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptoss.cli.session.options import SessionModel


@dataclass(frozen=True)
class LoadedModel(SessionModel):
    """A model ready to answer, with its tokenizer, and what loading it has to say.

    Attributes:
        notes: lines for the person.
        folder: where the model lies; None: in no folder.
    """

    notes: tuple[str, ...] = ()
    folder: Path | None = None
