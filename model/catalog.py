"""The models that have a name here, and where their folders are looked for."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptoss.model.errors import ModelNotFoundError, quote
from gptoss.model.wrong_folder import looks_like_checkpoint

DEFAULT_MODEL = "20b"

_NANO_FOLDER = Path(__file__).parent / "nano" / "checkpoint"
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_REVISIONS = 100


@dataclass(frozen=True)
class ModelSpec:
    """One named model.

    Attributes:
        name: what `-m` takes.
        description: one line.
        repository: its repository on the hub; None: it comes with this package.
        download_bytes: size of its weights, rounded to three digits or fewer. They stay packed in memory, so a machine
            should have this much free beside the context.
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
    ModelSpec("nano", "a very small model that comes with gptoss, for a first look", None, 0, None, None),
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


def find_spec(name: str) -> ModelSpec | None:
    """The model of this name; None: the catalogue has none."""
    return next((spec for spec in CATALOG if spec.name == name), None)


def locate(model: str, models_folder: Path, hub_cache: Path | None = None) -> Path:
    """The folder of a model.

    Args:
        model: a name of the catalogue, a folder, or a hub repository `owner/name`. A name of the catalogue is never
            taken for a folder (write `./20b`); a folder goes before a repository of the same spelling.
        models_folder: where models lie, each in `NAME` or `OWNER/NAME`.
        hub_cache: the hub's own cache, in which models are found too; None: where its environment puts it.

    Raises:
        ModelNotFoundError: it is nowhere; the message says its size, where it was looked for and what to do.
    """
    spec = find_spec(model)
    if spec is None:
        folder = _as_folder(model)
        if folder is not None:
            return folder
        if not _REPOSITORY.fullmatch(model):
            raise _unknown(model)
        repository, size = model, "its size is not known here"
    elif spec.repository is None:
        return _built_in(spec)
    else:
        repository, size = spec.repository, spec.size
    hub = default_hub_cache() if hub_cache is None else hub_cache
    names = tuple(dict.fromkeys((model, repository)))
    for folder in _folders(repository, names, models_folder, hub):
        for place in (folder, folder / "original"):
            if looks_like_checkpoint(place):
                return place
    begun = next((models_folder / name for name in names if (models_folder / name).is_dir()), None)
    if begun is not None:
        return begun  # not a whole checkpoint: opening it says what is missing
    raise ModelNotFoundError(
        f"{model} ({size}) is not on this machine: looked in {quote(models_folder / model)} and in the hub's cache "
        f"{quote(hub)}; put {repository} into the first of these, or name its folder with -m FOLDER"
    )


def default_hub_cache() -> Path:
    """Where the hub's own programs keep what they download (huggingface_hub, "Environment variables")."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def _built_in(spec: ModelSpec) -> Path:
    if not looks_like_checkpoint(_NANO_FOLDER):
        raise ModelNotFoundError(f"{spec.name} should lie in {quote(_NANO_FOLDER)} but does not: install gptoss again")
    return _NANO_FOLDER


def _as_folder(model: str) -> Path | None:
    """The path that `model` is, if it exists; whether a checkpoint is in it, opening it will tell."""
    try:
        path = Path(model).expanduser()
        return path if model and path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _folders(repository: str, names: tuple[str, ...], models_folder: Path, hub_cache: Path) -> Iterator[Path]:
    """Where a model may lie, the likelier place first."""
    for name in names:
        yield models_folder / name
    yield from _snapshots(hub_cache / f"models--{repository.replace('/', '--')}")


def _snapshots(cached: Path) -> Iterator[Path]:
    """The downloaded revisions of a repository in the hub's cache, that of `main` first."""
    try:
        with (cached / "refs" / "main").open("rb") as file:
            revision = file.read(200).decode("ascii", "replace").strip()
        if _REVISION.fullmatch(revision):
            yield cached / "snapshots" / revision
    except OSError:
        pass
    try:
        yield from sorted(itertools.islice((cached / "snapshots").iterdir(), _MAX_REVISIONS))
    except OSError:
        return


def _unknown(model: str) -> ModelNotFoundError:
    names = [spec.name for spec in CATALOG]
    near = difflib.get_close_matches(model, names, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return ModelNotFoundError(
        f"there is no model and no folder {quote(model)}: {guess}name one of {', '.join(names)}, a hub repository "
        "OWNER/NAME, or a folder with a checkpoint"
    )
