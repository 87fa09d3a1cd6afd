"""The catalogue of named models, and the search for their folders."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gptoss.model.checkpoints.gguf_place import gguf_in_folder
from gptoss.model.checkpoints.other_stores import (
    NO_STORES,
    OtherStores,
    find_foreign,
    foreign_models,
    owner_of,
    told_foreign,
)
from gptoss.model.checkpoints.wrong_folder import looks_like_checkpoint
from gptoss.model.errors import ModelNotFoundError, quote

DEFAULT_MODEL = "20b"
BUILT_IN_MODEL = "nano"

_NANO_FOLDER = Path(__file__).parents[1] / "nano" / "checkpoint"
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,4}")
_CHOSEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_REVISIONS = 100


@dataclass(frozen=True)
class ModelSpec:
    """One named model.

    Attributes:
        name: value of `-m`.
        description: one line.
        repository: its repository on the hub; None: it comes with this package.
        download_bytes: size of its weights, rounded to three digits or fewer. They stay packed in memory, so a machine
            needs this much free beside the context.
        num_layers: its layers; None: as its config says.
        num_experts: experts of a layer (of the largest, where layers differ); None: as its config says.
    """

    name: str
    description: str
    repository: str | None
    download_bytes: int
    num_layers: int | None
    num_experts: int | None

    @property
    def size(self) -> str:
        """The size for people, such as `13.8 GB`."""
        return f"{self.download_bytes / 1e9:.3g} GB"


CATALOG: tuple[ModelSpec, ...] = (
    ModelSpec(BUILT_IN_MODEL, "a very small model that comes with gptoss, for a first look", None, 0, None, None),
    ModelSpec("20b", "OpenAI's gpt-oss-20b", "openai/gpt-oss-20b", 13_800_000_000, 24, 32),
    ModelSpec("120b", "OpenAI's gpt-oss-120b", "openai/gpt-oss-120b", 65_300_000_000, 36, 128),
    ModelSpec(
        "safeguard-20b",
        "OpenAI's gpt-oss-safeguard-20b: judges content by a policy that you write",
        "openai/gpt-oss-safeguard-20b",
        13_800_000_000,
        24,
        32,
    ),
    ModelSpec(
        "safeguard-120b",
        "OpenAI's gpt-oss-safeguard-120b: judges content by a policy that you write",
        "openai/gpt-oss-safeguard-120b",
        65_300_000_000,
        36,
        128,
    ),
    ModelSpec(
        "puzzle-88b",
        "NVIDIA's gpt-oss-puzzle-88B: gpt-oss-120b with fewer experts in some layers",
        "nvidia/gpt-oss-puzzle-88B",
        50_000_000_000,
        36,
        128,
    ),
)


@dataclass(frozen=True)
class HubReference:
    """A model on the hub.

    Attributes:
        name: as the user wrote it.
        repository: `owner/name`.
        revision: a branch, a tag, a commit, or the hub's `refs/pr/N`; None: the main branch.
        chosen: of a repository with several GGUF models, which; None: not said.
    """

    name: str
    repository: str
    revision: str | None = None
    chosen: str | None = None

    @property
    def size(self) -> str | None:
        """The size of its weights; None: not in the catalogue."""
        spec = find_spec(self.name)
        return None if spec is None else spec.size


def hub_reference(model: str) -> HubReference | None:
    """Parse a name of the catalogue or `owner/name`, each with or without `@revision`; None: it is neither.

    `owner/name:FILE` chooses among the GGUF models of a repository.
    """
    name, at, revision = model.partition("@")
    name, colon, chosen = name.partition(":")
    spec = find_spec(name)
    repository = name if spec is None else spec.repository
    if repository is None or not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        return None
    if colon and (spec is not None or not _CHOSEN.fullmatch(chosen)):
        return None
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        return None
    return HubReference(model, repository, revision or None, chosen or None)


def find_spec(name: str) -> ModelSpec | None:
    """Return the model of this name; None: the catalogue has none."""
    return next((spec for spec in CATALOG if spec.name == name), None)


def nearest_name(model: str) -> str | None:
    """Return the closest name of the catalogue; other programs call 20b gpt-oss-20b or gpt-oss:20b."""
    bare = re.sub(r"^gpt-?oss[-:_]", "", model.lower())
    near = difflib.get_close_matches(bare, [spec.name for spec in CATALOG], n=1)
    return near[0] if near else None


def locate(model: str, models_folder: Path | None, hub_cache: Path, others: OtherStores = NO_STORES) -> Path:
    """Return the folder of a model, or its GGUF file.

    Args:
        model: a name of the catalogue, a folder or file, a hub repository `owner/name`, perhaps with `@revision`, or
            a model of another program, such as `ollama:gpt-oss:20b`. A name of the catalogue is never taken for a
            folder (write `./20b`); a folder goes before a repository or another program's model of the same spelling.
        models_folder: has models in `NAME` or `OWNER/NAME`; None: there is no such folder.
        hub_cache: the hub's own cache, which is searched too.
        others: the folders of other programs.

    Raises:
        ModelNotFoundError: it was not found; the message has its size, the places that were searched, and what to do.
    """
    spec = find_spec(model)
    if spec is not None and spec.repository is None:
        return _built_in(spec)
    folder = _as_folder(model) if spec is None else None
    if folder is not None:
        return folder
    if owner_of(model) is not None:
        return find_foreign(model, others)
    reference = hub_reference(model)
    if reference is None or (reference.revision is not None and spec is None):
        listed = _in_models_folder(model, models_folder)  # a folder's name may have an @ in it
        if listed is not None:
            return listed
    if reference is None:
        raise _unknown(model, others)
    own_name = model.partition(":")[0]
    names = tuple(dict.fromkeys((own_name, reference.repository))) if reference.revision is None else ()
    own = [] if models_folder is None else [models_folder / name for name in names]
    for folder in itertools.chain(own, hub_snapshots(hub_cache, reference)):
        for place in (folder, folder / "original"):
            if looks_like_checkpoint(place) and reference.chosen is None:
                return place
        found = gguf_in_folder(folder, reference.chosen)
        if found is not None:
            return found
    begun = next((folder for folder in own if _as_folder(str(folder)) is not None), None)
    if begun is not None:
        return begun  # not a whole checkpoint: opening it says what is missing
    size = "" if reference.size is None else f" ({reference.size})"
    looked = "" if models_folder is None else f"{quote(models_folder / model)} and in "
    there = told_foreign(others)
    raise ModelNotFoundError(
        f"{model}{size} is not on this machine: `gptoss pull {model}` fetches it, -m FOLDER names a folder that has it "
        f"(looked in {looked}the hub's cache {quote(hub_cache)}){'' if there is None else f'; {there}'}"
    )


def default_hub_cache(variables: Mapping[str, str]) -> Path:
    """Return the folder to which the hub's own programs download (huggingface_hub, "Environment variables").

    Args:
        variables: the environment.
    """
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if variables.get(variable):
            return Path(variables[variable]).expanduser()
    home = variables.get("HF_HOME") or Path(variables.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def is_built_in(folder: Path) -> bool:
    """Whether a model's folder is part of this package."""
    return folder == _NANO_FOLDER


def _built_in(spec: ModelSpec) -> Path:
    if not looks_like_checkpoint(_NANO_FOLDER):
        raise ModelNotFoundError(f"{spec.name} should lie in {quote(_NANO_FOLDER)} but does not: install gptoss again")
    return _NANO_FOLDER


def _in_models_folder(model: str, models_folder: Path | None) -> Path | None:
    """Return the folder of a model that is named as `gptoss list` does: `NAME` or `OWNER/NAME`."""
    parts = model.split("/")
    if models_folder is None or not 1 <= len(parts) <= 2 or any(part in ("", ".", "..") for part in parts):
        return None
    for place in (models_folder / model, models_folder / model / "original"):
        if looks_like_checkpoint(place):
            return place
    return gguf_in_folder(models_folder / model)


def _as_folder(model: str) -> Path | None:
    """Return `model` as a path if it exists, with or without a checkpoint in it."""
    try:
        path = Path(model).expanduser()
        return path if model and path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def hub_snapshots(hub_cache: Path, reference: HubReference) -> Iterator[Path]:
    """Yield the snapshots that the hub's cache may have of a model: the named revision, or `main` and all others."""
    cached = hub_cache / f"models--{reference.repository.replace('/', '--')}"
    if reference.revision is not None and _COMMIT.fullmatch(reference.revision):
        yield cached / "snapshots" / reference.revision
        return
    try:
        with (cached / "refs" / (reference.revision or "main")).open("rb") as file:
            revision = file.read(200).decode("ascii", "replace").strip()
        if _REVISION.fullmatch(revision):
            yield cached / "snapshots" / revision
    except OSError:
        pass
    if reference.revision is not None:
        return
    try:
        yield from sorted(itertools.islice((cached / "snapshots").iterdir(), _MAX_REVISIONS))
    except OSError:
        return


def _unknown(model: str, others: OtherStores) -> ModelNotFoundError:
    names = [spec.name for spec in CATALOG]
    same = (each.name for each in foreign_models(others) if each.name.partition(":")[2] == model)
    near = next(same, None) or nearest_name(model)
    guess = "" if near is None else f"did you mean {near}? "
    return ModelNotFoundError(
        f"there is no model and no folder {quote(model)}: {guess}name one of {', '.join(names)}, a hub repository "
        "OWNER/NAME, a folder with a checkpoint, or a GGUF file"
    )
