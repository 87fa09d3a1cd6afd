"""Models that other programs have stored on this machine: Ollama, LM Studio and llama.cpp. Only reads. Needs no torch.

The layouts are those that the programs document or write:

- Ollama: `manifests/HOST/OWNER/MODEL/TAG`, each a JSON file that names the model's layer by its sha256, and
  `blobs/sha256-HEX` (https://github.com/ollama/ollama, `types/model/name.go` and `server/layer.go`).
- LM Studio: `models/PUBLISHER/MODEL/FILE.gguf` (https://lmstudio.ai/docs, "Import models").
- llama.cpp: `OWNER_REPOSITORY_FILE.gguf` in one folder (`common/download.cpp`); newer versions use the hub's cache.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gptoss.model.checkpoints.gguf_config import ARCHITECTURES
from gptoss.model.checkpoints.gguf_header import read_architecture
from gptoss.model.checkpoints.gguf_place import SUFFIX, gguf_files, gguf_names
from gptoss.model.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError, quote
from gptoss.model.storage.json_file import read_json_object

MAX_MANIFEST_BYTES = 1 << 20
_MAX_ENTRIES = 2000
_MAX_POINTER_BYTES = 4096

_REGISTRY, _LIBRARY, _LATEST = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MODEL_LAYER = "application/vnd.ollama.image.model"
_ADAPTER_LAYER = "application/vnd.ollama.image.adapter"


class Owner(StrEnum):
    """A program that stores models; its value begins their names."""

    OLLAMA = "ollama"
    LM_STUDIO = "lmstudio"
    LLAMA_CPP = "llama.cpp"

    @property
    def program(self) -> str:
        """The program's name for people."""
        return {"ollama": "Ollama", "lmstudio": "LM Studio"}.get(self.value, self.value)


@dataclass(frozen=True)
class OtherStores:
    """The folders in which the programs store models; a folder need not exist."""

    ollama: tuple[Path, ...] = ()
    lm_studio: tuple[Path, ...] = ()
    llama_cpp: tuple[Path, ...] = ()

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> OtherStores:
        """Return the folders that the programs use with these environment variables."""
        home = _home()
        if home is None:
            return cls()
        system = () if sys.platform != "linux" else (Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama"))
        named = variables.get("OLLAMA_MODELS")
        own = Path(named).expanduser() if named else home / ".ollama" / "models"
        return cls((own, *system), _lm_studio_folders(home), (_llama_cpp_folder(variables, home),))

    def folders(self, owner: Owner) -> tuple[Path, ...]:
        """Return the folders of one program."""
        by_owner = {Owner.OLLAMA: self.ollama, Owner.LM_STUDIO: self.lm_studio, Owner.LLAMA_CPP: self.llama_cpp}
        return by_owner[owner]


NO_STORES = OtherStores()


@dataclass(frozen=True)
class ForeignModel:
    """A gpt-oss model of another program.

    Attributes:
        name: what `-m` takes, such as `ollama:gpt-oss:20b`.
        owner: the program.
        path: the file, or the first part.
        store: the program's folder.
        nbytes: of all parts.
        is_complete: whether all of it is there.
    """

    name: str
    owner: Owner
    path: Path
    store: Path
    nbytes: int
    is_complete: bool


def owner_of(model: str) -> Owner | None:
    """Return the program that a model's name begins with; None: it is a name of another kind."""
    prefix, colon, name = model.partition(":")
    return next((owner for owner in Owner if colon and name and prefix == owner.value), None)


def find_foreign(model: str, stores: OtherStores) -> Path:
    """Return the file of another program's model, whatever is in it.

    Raises:
        ModelNotFoundError: there is no such model; the message names those that are there.
        UnsupportedModelError: the program does not store it as one GGUF model.
    """
    owner = owner_of(model)
    if owner is None:
        raise ValueError(model)
    name = model.partition(":")[2]
    for store in stores.folders(owner):
        path = _FINDERS[owner](store, name)
        if path is not None:
            return path
    looked = " and ".join(quote(store) for store in stores.folders(owner)) or "no folder"
    there = [each.name for each in foreign_models(stores) if each.owner is owner][:5]
    listed = f": there {'is' if len(there) == 1 else 'are'} {', '.join(there)}" if there else ""
    raise ModelNotFoundError(f"{owner.program} has no model {quote(name)} here (looked in {looked}){listed}")


def foreign_models(stores: OtherStores) -> list[ForeignModel]:
    """Return the gpt-oss models of the other programs, by name; what cannot be read is left out."""
    found: dict[str, ForeignModel] = {}
    for owner, listed in _LISTERS.items():
        for store in stores.folders(owner):
            for name, path, nbytes in listed(store):
                model = _foreign(name, owner, path, store, nbytes)
                if model is not None:
                    found.setdefault(model.name, model)
    return sorted(found.values(), key=lambda model: (model.owner, model.name))


def told_foreign(stores: OtherStores) -> str | None:
    """Return a line on the whole models of other programs, to run in place of one that is missing; None: none."""
    names = [model.name for model in foreign_models(stores) if model.is_complete]
    if not names:
        return None
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"of other programs {'is' if len(names) == 1 else 'are'} here: {listed}"


def _foreign(name: str, owner: Owner, path: Path, store: Path, nbytes: int | None) -> ForeignModel | None:
    """Return a model if its file is one of gpt-oss; `nbytes` are those that it should have, if that is known."""
    if read_architecture(path) not in ARCHITECTURES:
        return None
    try:
        parts = gguf_files(path) or ()
        size = sum(part.stat().st_size for part in parts)
    except (CheckpointError, OSError):
        parts, size = (), _size(path)
    is_complete = bool(parts) and nbytes in (None, size)
    return ForeignModel(f"{owner.value}:{name}", owner, path, store, size, is_complete)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# --- Ollama


def _ollama_file(store: Path, name: str) -> Path | None:
    *parts, last = name.split("/")
    last, _colon, tag = last.partition(":")
    parts = [*parts, last, tag or _LATEST]
    if not all(_PART.fullmatch(part) for part in parts) or not 2 <= len(parts) <= 4:
        return None
    whole = [_REGISTRY, _LIBRARY, *parts] if len(parts) == 2 else [_REGISTRY, *parts] if len(parts) == 3 else parts
    manifest = store.joinpath("manifests", *whole)
    if not _is_file(manifest):
        return None
    blob, _size = _blob_of(store, manifest)
    if not _is_file(blob):
        raise ModelNotFoundError(
            f"Ollama's {quote(name)} is not whole: {quote(blob)} is missing (`ollama pull {name}`)"
        )
    return blob


def _ollama_models(store: Path) -> Iterator[tuple[str, Path, int | None]]:
    for manifest in _below(store / "manifests", "*/*/*/*"):
        host, owner, model, tag = manifest.relative_to(store / "manifests").parts
        if not all(_PART.fullmatch(part) for part in (host, owner, model, tag)):
            continue
        shown = [owner, model] if host == _REGISTRY else [host, owner, model]
        if shown[0] == _LIBRARY:
            del shown[0]
        try:
            blob, nbytes = _blob_of(store, manifest)
        except CheckpointError:
            continue
        yield f"{'/'.join(shown)}:{tag}", blob, nbytes


def _blob_of(store: Path, manifest: Path) -> tuple[Path, int | None]:
    """Return the file of a manifest's model, which need not exist, and its size as the manifest says.

    Raises:
        CheckpointError: the manifest cannot be read.
        UnsupportedModelError: it names no model in GGUF, or an adapter beside it.
    """
    layers = read_json_object(manifest, MAX_MANIFEST_BYTES).get("layers")
    layers = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    kinds = {layer.get("mediaType"): layer for layer in reversed(layers) if isinstance(layer.get("mediaType"), str)}
    if _ADAPTER_LAYER in kinds:
        raise UnsupportedModelError(f"{quote(manifest)} has an adapter beside the model, which is not read from there")
    layer = kinds.get(_MODEL_LAYER, {})
    digest = _DIGEST.fullmatch(str(layer.get("digest")))
    if digest is None:
        raise UnsupportedModelError(f"{quote(manifest)} names no model in one GGUF file")
    nbytes = layer.get("size")
    return store / "blobs" / f"sha256-{digest.group(1)}", nbytes if isinstance(nbytes, int) else None


# --- LM Studio


def _lm_studio_folders(home: Path) -> tuple[Path, ...]:
    own = _text(home / ".lmstudio-home-pointer")
    root = Path(own) if own and Path(own).is_absolute() else home / ".lmstudio"
    try:
        chosen = read_json_object(root / "settings.json", MAX_MANIFEST_BYTES).get("downloadsFolder")
    except CheckpointError:
        chosen = None
    folders = [root / "models", home / ".cache" / "lm-studio" / "models"]
    if isinstance(chosen, str) and "\0" not in chosen and Path(chosen).is_absolute():
        folders.insert(0, Path(chosen))
    return tuple(dict.fromkeys(folders))


def _lm_studio_file(store: Path, name: str) -> Path | None:
    parts = name.split("/")
    if not 2 <= len(parts) <= 3 or not all(_is_plain(part) for part in parts):
        return None
    folder = store.joinpath(*parts[:2])
    names = _gguf_names(folder)
    if len(parts) == 3:
        return folder / parts[2] if _is_file(folder / parts[2]) else None
    if len(names) > 1:
        listed = ", ".join(f"lmstudio:{name}/{each}" for each in names[:4]) + (", ..." if len(names) > 4 else "")
        raise UnsupportedModelError(f"LM Studio has {len(names)} files of {quote(name)}: name one of {listed}")
    return folder / names[0] if names else None


def _lm_studio_models(store: Path) -> Iterator[tuple[str, Path, int | None]]:
    for folder in _below(store, "*/*"):
        names = _gguf_names(folder)
        own = f"{folder.parent.name}/{folder.name}"
        for name in names:
            yield own if len(names) == 1 else f"{own}/{name}", folder / name, None


# --- llama.cpp


def _llama_cpp_folder(variables: Mapping[str, str], home: Path) -> Path:
    if variables.get("LLAMA_CACHE"):
        return Path(variables["LLAMA_CACHE"]).expanduser()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "llama.cpp"
    if sys.platform == "win32":
        return Path(variables.get("LOCALAPPDATA") or home / "AppData" / "Local") / "llama.cpp"
    return Path(variables.get("XDG_CACHE_HOME") or home / ".cache") / "llama.cpp"


def _llama_cpp_file(store: Path, name: str) -> Path | None:
    if not _is_plain(name):
        return None
    path = store / (name if name.lower().endswith(SUFFIX) else name + SUFFIX)
    return path if _is_file(path) else None


def _llama_cpp_models(store: Path) -> Iterator[tuple[str, Path, int | None]]:
    for name in _gguf_names(store):
        yield name, store / name, None


_FINDERS = {Owner.OLLAMA: _ollama_file, Owner.LM_STUDIO: _lm_studio_file, Owner.LLAMA_CPP: _llama_cpp_file}
_LISTERS = {Owner.OLLAMA: _ollama_models, Owner.LM_STUDIO: _lm_studio_models, Owner.LLAMA_CPP: _llama_cpp_models}


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no home at all
        return None


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not any(mark in name for mark in "/\\\0")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _gguf_names(folder: Path) -> list[str]:
    return gguf_names([path.name for path in _below(folder, "*")])


def _below(folder: Path, pattern: str) -> list[Path]:
    """Return what matches, sorted; empty if the folder cannot be read."""
    found: Iterable[Path]
    try:
        found = list(itertools.islice(folder.glob(pattern), _MAX_ENTRIES))
    except (OSError, ValueError):
        return []
    return sorted(found)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_POINTER_BYTES).decode("utf-8", "replace").strip().replace("\0", "")
    except OSError:
        return ""
