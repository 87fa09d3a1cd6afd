"""The models on this machine: built in, in the models folder, in the hub's cache, and in folders that were used.

Only configs, indexes, headers of weight files and the names and sizes of files are read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from gptoss.cli.base.settings import Folders
from gptoss.cli.hub.destinations import read_record
from gptoss.cli.hub.last_use import last_uses
from gptoss.model.checkpoints.catalog import (
    CATALOG,
    HubReference,
    hub_reference,
    hub_snapshots,
    locate,
)
from gptoss.model.checkpoints.config_dialects import HUB_MODEL_TYPES
from gptoss.model.checkpoints.gguf_config import ARCHITECTURES
from gptoss.model.checkpoints.gguf_header import read_architecture
from gptoss.model.checkpoints.gguf_place import gguf_files, gguf_names
from gptoss.model.checkpoints.other_stores import OtherStores, foreign_models
from gptoss.model.checkpoints.wrong_folder import looks_like_checkpoint
from gptoss.model.errors import CheckpointError, ModelNotFoundError
from gptoss.model.storage.json_file import JsonError, parse_json_object, read_json_object
from gptoss.model.storage.regular_file import open_regular_file

_GGUF = "GGUF"
_MAX_CONFIG_BYTES = 4 << 20
_MAX_HEADERS = 8
_EXPERTS = re.compile(r"^(?!.*bias).*(?:\.experts\.|\.mlp[12]_weight)")
_MAX_ENTRIES = 10_000
_INDEX = "model.safetensors.index.json"


class Place(StrEnum):
    """The kind of place in which a model is stored."""

    BUILT_IN = "built in"
    CACHE = "the hub's cache"
    MODELS = "the models folder"
    FOLDER = "a folder"
    OTHER = "another program"


@dataclass(frozen=True)
class InstalledModel:
    """A model on this machine, complete or not.

    Attributes:
        name: what `-m` takes.
        repository: of the hub, if it is known to come from there.
        place: what kind of place it lies in.
        folder: where; in the hub's cache, the snapshot that would be run.
        nbytes: on the disk, of all its revisions.
        layout: for people; None where neither the config nor the tensors' names say it.
        is_complete: whether no file is missing.
        last_used: seconds since the epoch; None: not by this program.
        owner: the other program that stores it; None: none.
    """

    name: str
    repository: str | None
    place: Place
    folder: Path
    nbytes: int
    layout: str | None
    is_complete: bool
    last_used: float | None
    owner: str | None = None

    @property
    def root(self) -> Path:
        """The folder or file that is the model's as a whole: in the hub's cache, the one above all snapshots."""
        if self.place is not Place.CACHE:
            return self.folder
        return next(path for path in self.folder.parents if path.name == "snapshots").parent


def installed_models(folders: Folders) -> list[InstalledModel]:
    """Return all models of this machine, the built-in one first, the others by name."""
    uses = last_uses(folders.state)
    found = [
        *_in_models_folder(folders.models, uses),
        *_in_cache(folders.hub_cache, uses),
        *_of_other_programs(folders.others, uses),
    ]
    known = {model.folder.resolve() for model in found}
    built_in = _built_in(folders, uses)
    known |= {model.folder.resolve() for model in built_in}
    for folder in uses:
        if folder not in known and (looks_like_checkpoint(folder) or _gguf_parts(folder)):
            found.append(_model(str(folder), _recorded(folder), Place.FOLDER, folder, uses))
    return built_in + sorted(found, key=lambda model: (model.place, model.name))


def _built_in(folders: Folders, uses: dict[Path, float]) -> list[InstalledModel]:
    found = []
    for spec in CATALOG:
        if spec.repository is None:
            try:
                folder = locate(spec.name, folders.models, folders.hub_cache)
            except ModelNotFoundError:
                continue
            found.append(_model(spec.name, None, Place.BUILT_IN, folder, uses))
    return found


def _in_models_folder(models: Path, uses: dict[Path, float]) -> Iterator[InstalledModel]:
    for folder in _folders(models):
        if looks_like_checkpoint(folder) or _gguf_parts(folder):
            yield _model(folder.name, _recorded(folder), Place.MODELS, folder, uses)
        elif looks_like_checkpoint(folder / "original"):
            yield _model(folder.name, _recorded(folder), Place.MODELS, folder / "original", uses)
        else:
            for below in _folders(folder):
                if looks_like_checkpoint(below) or _gguf_parts(below):
                    name = f"{folder.name}/{below.name}"
                    yield _model(name, name, Place.MODELS, below, uses)


def _of_other_programs(stores: OtherStores, uses: dict[Path, float]) -> Iterator[InstalledModel]:
    for model in foreign_models(stores):
        yield InstalledModel(
            name=model.name,
            repository=None,
            place=Place.OTHER,
            folder=model.path,
            nbytes=model.nbytes,
            layout=_GGUF,
            is_complete=model.is_complete,
            last_used=uses.get(model.path.resolve()) or None,
            owner=model.owner.program,
        )


def _in_cache(cache: Path, uses: dict[Path, float]) -> Iterator[InstalledModel]:
    for entry in _folders(cache):
        repository = entry.name.removeprefix("models--").replace("--", "/")
        reference = hub_reference(repository) if entry.name.startswith("models--") else None
        if reference is None:
            continue
        snapshots = list(hub_snapshots(cache, reference))
        whole = next((place for place in _places(snapshots) if _is_gpt_oss(place) and _is_whole(place)), None)
        begun = next((place for place in snapshots if _is_gpt_oss(place)), None)
        folder = whole or begun
        if folder is not None:
            nbytes = _nbytes(entry / "blobs") or _nbytes(folder)
            yield _model(_name_of(reference), repository, Place.CACHE, folder, uses, nbytes)


def _places(snapshots: list[Path]) -> Iterator[Path]:
    for snapshot in snapshots:
        yield snapshot
        yield snapshot / "original"


def _model(
    name: str, repository: str | None, place: Place, folder: Path, uses: dict[Path, float], nbytes: int | None = None
) -> InstalledModel:
    return InstalledModel(
        name=name,
        repository=repository,
        place=place,
        folder=folder,
        nbytes=_nbytes(folder) if nbytes is None else nbytes,
        layout=_layout(folder, _tensor_names(folder)),
        is_complete=_is_whole(folder),
        last_used=uses.get(folder.resolve()) or None,
    )


def _name_of(reference: HubReference) -> str:
    return next((spec.name for spec in CATALOG if spec.repository == reference.repository), reference.repository)


def _recorded(folder: Path) -> str | None:
    repository = read_record(folder).get("repository")
    return repository if isinstance(repository, str) else None


def _config(folder: Path) -> dict[str, Any]:
    try:
        return read_json_object(folder / "config.json", _MAX_CONFIG_BYTES)
    except CheckpointError:
        return {}


def _is_gpt_oss(folder: Path) -> bool:
    return _layout(folder) is not None


def _layout(folder: Path, names: Iterable[str] = ()) -> str | None:
    """Return the layout by its config, and by its tensors' names where they are known.

    None: it is no model of this architecture.
    """
    if _gguf_parts(folder):
        return _GGUF
    config = _config(folder)
    model_type = config.get("model_type")
    experts = [name for name in names if _EXPERTS.search(name)]
    if model_type is None:
        if not {"num_experts", "experts_per_token", "initial_context_length"} <= config.keys():
            return None
        return "original" + (", unpacked" if experts and not any(name.endswith(".blocks") for name in experts) else "")
    if model_type not in HUB_MODEL_TYPES:
        return None
    kind = "puzzle, " if model_type != "gpt_oss" else ""
    # Tools that unpack the experts leave `quantization_config`, and others quantise without one.
    packed = any(name.endswith("_blocks") for name in experts) if experts else "quantization_config" in config
    return kind + ("MXFP4" if packed else "unpacked")


def _tensor_names(folder: Path) -> list[str]:
    """Return the names in the index, else in the headers of the weight files up to the first experts; or none."""
    try:
        if (folder / _INDEX).exists():
            weight_map = read_json_object(folder / _INDEX, _MAX_CONFIG_BYTES).get("weight_map")
            return list(weight_map) if isinstance(weight_map, dict) else []
        names: list[str] = []
        single = folder / "model.safetensors"
        for path in [single] if single.exists() else sorted(folder.glob("*.safetensors"))[:_MAX_HEADERS]:
            with open_regular_file(path) as file:
                length = int.from_bytes(file.read(8), "little")
                names += parse_json_object(file.read(length)) if 0 < length <= _MAX_CONFIG_BYTES else []
            if any(map(_EXPERTS.search, names)):
                break
    except (OSError, CheckpointError, JsonError):
        return []
    return names


def _is_whole(folder: Path) -> bool:
    """Whether all files are there that the index names; what is in them is for `gptoss verify`."""
    if not looks_like_checkpoint(folder):
        return bool(_gguf_parts(folder))
    if (folder / "model.safetensors").exists() or not (folder / _INDEX).exists():
        return True
    try:
        weight_map = read_json_object(folder / _INDEX, _MAX_CONFIG_BYTES).get("weight_map")
    except CheckpointError:
        return False
    names = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else {""}
    return all("/" not in name and (folder / name).is_file() for name in names)


def _nbytes(folder: Path) -> int:
    """Return bytes of the files in a folder, or of a GGUF model's."""
    total = 0
    for path in _gguf_parts(folder) if folder.is_file() else _entries(folder):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _gguf_parts(path: Path) -> tuple[Path, ...]:
    """Return the files of gpt-oss models in GGUF that a path names, or that lie in a folder without other weights."""
    try:
        found = (
            (path,) if path.is_file() else tuple(path / name for name in gguf_names([p.name for p in _entries(path)]))
        )
        if (
            not found
            or looks_like_checkpoint(path)
            or any(read_architecture(each) not in ARCHITECTURES for each in found)
        ):
            return ()
        return tuple(part for each in found for part in gguf_files(each) or ())
    except (CheckpointError, OSError):
        return ()


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(itertools.islice(folder.iterdir(), _MAX_ENTRIES))
    except OSError:
        return []
