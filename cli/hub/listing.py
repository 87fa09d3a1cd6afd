"""The file listing of a hub repository, and the files of one checkpoint in it.

It is untrusted input: names must be plain names from a fixed set, sizes bounded, hashes well-formed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gptoss.cli.base.errors import PullError
from gptoss.cli.hub.client import endpoint, hub_errors, read_timeout_s, request_headers, retrying
from gptoss.model.checkpoints.catalog import HubReference
from gptoss.model.checkpoints.gguf_place import choose_gguf, gguf_names, part_names
from gptoss.model.errors import UnsupportedModelError, quote
from gptoss.model.storage.json_file import JsonError, parse_json_object

CONFIG = "config.json"
MAX_FILES = 1000
MAX_FILE_BYTES = 1 << 42
MAX_SMALL_BYTES = 64 << 20
"""Upper bound of a file that is not stored by its sha256: the largest published one, a tokenizer, has 28 MB."""

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_model.safetensors"
_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.safetensors")
_GGUF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.gguf")
_BESIDE_WEIGHTS = re.compile(
    r"generation_config\.json|(?:tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|"
    r"chat_template\.(?:jinja|json)|(?:README|LICENSE|NOTICE|USAGE_POLICY)(?:\.md|\.txt)?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OID = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository.

    Attributes:
        name: a plain name, of the repository's top level.
        size: in bytes.
        key: its hash, and its name among the blobs of the hub's cache: the sha256 of a large file (Git LFS), the id
            as a Git blob of a small one.
    """

    name: str
    size: int
    key: str

    @property
    def is_large(self) -> bool:
        """Whether its key is a sha256."""
        return len(self.key) == 64


@dataclass(frozen=True)
class Listing:
    """One revision of a repository: its commit, and the files of its top level that may belong to a checkpoint."""

    reference: HubReference
    commit: str
    files: tuple[RemoteFile, ...]
    architecture: str | None = None
    """That of its GGUF files, as the hub says; None: it does not say."""

    @property
    def is_gguf(self) -> bool:
        """Whether its weights are GGUF files: chosen by the reference, or because there are no others."""
        has_gguf = any(_GGUF.fullmatch(file.name) for file in self.files)
        others = any(_WEIGHTS.fullmatch(file.name) for file in self.files)
        return has_gguf and (self.reference.chosen is not None or not others)

    def find(self, name: str) -> RemoteFile | None:
        """Return the file of this name, if there is one."""
        return next((file for file in self.files if file.name == name), None)

    def require(self, name: str) -> RemoteFile:
        """Return the file of this name.

        Raises:
            UnsupportedModelError: there is none.
        """
        file = self.find(name)
        if file is None:
            raise UnsupportedModelError(
                f"{self.reference.repository} has no {name} at its top level: it is no checkpoint"
            )
        return file


def fetch_listing(reference: HubReference, note: Callable[[str], None]) -> Listing:
    """Request the file listing of a repository.

    Raises:
        ModelNotFoundError: the hub has no such model or revision, or does not give it to this user.
        UnsupportedModelError: it holds no checkpoint.
        PullError: the hub cannot be reached, or its answer makes no sense.
    """
    from huggingface_hub import HfApi

    def ask() -> Any:
        with hub_errors(reference, "the list of files"):
            headers = request_headers()  # once: the library looks for the token at every call
            api = HfApi(endpoint=endpoint(), token=False, headers=headers)
            return api.model_info(
                reference.repository,
                revision=reference.revision or "main",
                files_metadata=True,
                timeout=read_timeout_s(),
            )

    try:
        info = retrying(ask, note)
        commit, siblings = str(info.sha), list(info.siblings or ())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PullError(f"{endpoint()} answered with a list of files that is none ({type(error).__name__})") from None
    if not _COMMIT.fullmatch(commit):
        raise PullError(f"{endpoint()} names {quote(commit)} as the commit of {reference.repository}")
    wanted = [sibling for sibling in siblings if is_checkpoint_file(str(sibling.rfilename))]
    if len({sibling.rfilename for sibling in wanted}) < len(wanted):
        raise PullError(f"{endpoint()} lists a file of {reference.repository} twice")
    if len(wanted) > MAX_FILES:
        raise UnsupportedModelError(f"{reference.repository} has {len(wanted)} files, more than {MAX_FILES}")
    files = tuple(sorted((_file(each, reference) for each in wanted), key=_by_name))
    told = getattr(info, "gguf", None)
    architecture = told.get("architecture") if isinstance(told, dict) else None
    return Listing(reference, commit, files, architecture if isinstance(architecture, str) else None)


def checkpoint_files(listing: Listing, read_small: Callable[[RemoteFile], bytes]) -> tuple[RemoteFile, ...]:
    """Return the files of one checkpoint, by the rule by which it will be opened: the one file, the index, else all.

    Args:
        listing: of the repository.
        read_small: the content of a small file of it.

    Raises:
        UnsupportedModelError: there are no weights that could be opened.
        PullError: the index makes no sense.
    """
    if listing.is_gguf:
        return _gguf_files(listing)
    weights = [file for file in listing.files if _WEIGHTS.fullmatch(file.name)]
    index = listing.find(_INDEX)
    single = listing.find(_SINGLE)
    if single is not None:
        chosen = [single]
    elif index is not None:
        names = _indexed(index, read_small(index), listing.reference)
        missing = next((name for name in names if listing.find(name) is None), None)
        if missing is not None:
            raise UnsupportedModelError(f"{listing.reference.repository} has an index but no {quote(missing)}")
        chosen = [index, *(file for file in weights if file.name in names)]
    else:
        chosen = [file for file in weights if file.name != _ADAPTER]
    if not chosen:
        raise UnsupportedModelError(
            f"{listing.reference.repository} has no .safetensors or .gguf weights at its top level; other kinds are "
            "never opened"
        )
    is_weight = re.compile(f"{_WEIGHTS.pattern}|{_GGUF.pattern}")
    beside = [file for file in listing.files if not is_weight.fullmatch(file.name) and file != index]
    return (*beside, *chosen)


def _gguf_files(listing: Listing) -> tuple[RemoteFile, ...]:
    """Return the files of one GGUF model.

    Raises:
        UnsupportedModelError: there are several and none was chosen, none fits the choice, or parts are missing.
    """
    reference = listing.reference
    names = [file.name for file in listing.files if _GGUF.fullmatch(file.name)]
    models = gguf_names(names)
    fitting = models if reference.chosen is None else choose_gguf(models, reference.chosen)
    if len(fitting) != 1:
        listed = ", ".join((fitting or models)[:8]) + (", ..." if len(fitting or models) > 8 else "")
        raise UnsupportedModelError(
            f"{reference.repository} has {len(fitting)} GGUF models{' of that name' if reference.chosen else ''}: name "
            f"one as {reference.repository}:FILE, of {listed}"
        )
    parts = part_names(fitting[0])
    missing = next((name for name in parts if name not in names), None)
    if missing is not None:
        raise UnsupportedModelError(f"{reference.repository} has {quote(fitting[0])} but no {quote(missing)}")
    beside = [file for file in listing.files if re.fullmatch(r"(?:README|LICENSE|NOTICE)(?:\.md|\.txt)?", file.name)]
    return (*beside, *(file for file in listing.files if file.name in parts))


def is_checkpoint_file(name: str) -> bool:
    """Whether a name is one that a file of a checkpoint may have."""
    return name in (CONFIG, _INDEX) or any(form.fullmatch(name) for form in (_WEIGHTS, _GGUF, _BESIDE_WEIGHTS))


def _by_name(file: RemoteFile) -> str:
    return file.name


def _file(sibling: Any, reference: HubReference) -> RemoteFile:
    """Return one entry of the hub's list.

    Raises:
        PullError: its size or its hash is missing or cannot be.
    """
    large = sibling.lfs is not None
    size, key = (sibling.lfs.size, sibling.lfs.sha256) if large else (sibling.size, sibling.blob_id)
    form, most = (_SHA256, MAX_FILE_BYTES) if large else (_OID, MAX_SMALL_BYTES)
    name = sibling.rfilename
    if not isinstance(size, int) or not 0 <= size <= most:
        raise PullError(f"{endpoint()} gives {quote(size)} as the size of {quote(name)} of {reference.repository}")
    if not isinstance(key, str) or not form.fullmatch(key):
        raise PullError(f"{endpoint()} gives {quote(key)} as the hash of {quote(name)} of {reference.repository}")
    return RemoteFile(name, size, key)


def _indexed(index: RemoteFile, text: bytes, reference: HubReference) -> set[str]:
    try:
        weight_map = parse_json_object(text).get("weight_map")
    except JsonError as error:
        raise PullError(f"{index.name} of {reference.repository} {error}") from None
    names: Iterable[object] = weight_map.values() if isinstance(weight_map, dict) else ()
    found = {name for name in names if isinstance(name, str) and _WEIGHTS.fullmatch(name)}
    if not found or len(found) != len({str(name) for name in names}):
        raise UnsupportedModelError(f"{index.name} of {reference.repository} names no .safetensors files of its own")
    return found
