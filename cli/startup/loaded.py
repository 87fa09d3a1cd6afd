"""A model that was loaded for this run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss.cli.session.options import SessionModel

if TYPE_CHECKING:
    from gptoss.model.loading.plan import LoadPlan


@dataclass(frozen=True)
class LoadedModel(SessionModel):
    """A model ready to answer, with its tokenizer, and what loading it has to say.

    Attributes:
        notes: lines for the person.
        folder: where the model lies; None: in no folder.
        plan: how it was loaded; None: it was not loaded by a plan.
    """

    notes: tuple[str, ...] = ()
    folder: Path | None = None
    plan: LoadPlan | None = None
