"""Which repository of the hub a model's name means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gptoss.model.catalog import find_spec

DEFAULT_REVISION = "main"

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,4}")


@dataclass(frozen=True)
class HubReference:
    """A model on the hub.

    Attributes:
        name: as the user had it.
        repository: `owner/name`.
        revision: a branch, a tag, a commit, or the hub's `refs/pr/N`.
    """

    name: str
    repository: str
    revision: str = DEFAULT_REVISION

    @property
    def size(self) -> str | None:
        """The size of its weights, where the catalogue knows it."""
        spec = find_spec(self.name)
        return None if spec is None else spec.size


def hub_reference(model: str) -> HubReference | None:
    """What `model` is on the hub: a name of the catalogue or `owner/name`, both perhaps with `@revision`; else None."""
    name, at, revision = model.partition("@")
    if at and not _REVISION.fullmatch(revision):
        return None
    spec = find_spec(name)
    repository = name if spec is None else spec.repository
    if repository is None or not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        return None
    return HubReference(model, repository, revision or DEFAULT_REVISION)
