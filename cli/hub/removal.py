"""Remove a model and nothing else: no link is followed, and only files known to belong to it are removed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gptoss.cli.base.errors import PullError
from gptoss.cli.hub.client import quiet_library
from gptoss.cli.hub.destinations import PULL_LOCK, WORK_FOLDER, own_file, read_record
from gptoss.cli.hub.inventory import InstalledModel, Place
from gptoss.cli.hub.listing import is_checkpoint_file
from gptoss.cli.hub.locks import held_if_free
from gptoss.cli.hub.transfer import disk_errors
from gptoss.model.errors import quote

_BUSY = "is being pulled by another process: stop that first"


def require_removable(model: InstalledModel) -> None:
    """Refuse what must not be removed, before the person is asked.

    Raises:
        PullError: it comes with the program, was put there by someone else, or is a link.
    """
    if model.place is Place.BUILT_IN:
        raise PullError(f"{model.name} comes with gptoss: there is nothing to remove")
    if model.place is Place.OTHER:
        raise PullError(f"{model.name} belongs to {model.owner}: remove it there")
    if model.place is Place.FOLDER and not read_record(model.folder):
        raise PullError(f"{quote(model.folder)} was not put there by gptoss: remove it by yourself")
    link = next((path for path in (model.root, model.folder) if path.is_symlink()), None)
    if link is not None:
        raise PullError(f"{quote(link)} is a link to {quote(link.resolve())}: remove it by yourself")


def remove(model: InstalledModel) -> list[Path]:
    """Remove a model; return the files that stay in its folder because they are not known to belong to it.

    Raises:
        PullError: as `require_removable`; another process is pulling it; the disk does not let it go.
    """
    require_removable(model)
    quiet_library()
    with disk_errors(model.root):
        return _remove_from_cache(model) if model.place is Place.CACHE else _remove_folder(model)


def _remove_from_cache(model: InstalledModel) -> list[Path]:
    """Remove by the library's own strategy, which knows the other users of a blob."""
    from huggingface_hub import scan_cache_dir

    root = model.root
    cache = root.parent
    with held_if_free(cache / ".locks" / root.name / PULL_LOCK) as free:
        if not free:
            raise PullError(f"{model.name} {_BUSY}")
        scanned = scan_cache_dir(cache)
        entry = next((repo for repo in scanned.repos if repo.repo_path.name == root.name), None)
        if entry is None:
            raise PullError(f"{quote(root)} is damaged, and the hub's library does not know it: remove it by yourself")
        # The strategy goes by commits alone, and a copy of a repository has those of its original.
        alone = replace(scanned, repos=frozenset({entry}))
        alone.delete_revisions(*(revision.commit_hash for revision in entry.revisions)).execute()
    if root.exists():
        raise PullError(f"{quote(root)} could not be removed as a whole: look at who owns it")
    return []


def _remove_folder(model: InstalledModel) -> list[Path]:
    folder, record = model.folder, read_record(model.folder)
    with held_if_free(folder / WORK_FOLDER / PULL_LOCK) as free:
        if not free:
            raise PullError(f"{model.name} {_BUSY}")
        names = list(record.get("files", {})) or [path.name for path in folder.iterdir() if _is_weight_or_config(path)]
        for name in sorted(names, key=lambda name: name != "config.json"):  # without a config it is no model
            with suppress(ValueError, FileNotFoundError):
                own_file(folder, name).unlink()  # of a link, the link
        for path in (folder / WORK_FOLDER).iterdir():
            if path.name != PULL_LOCK:
                path.unlink()
    (folder / WORK_FOLDER / PULL_LOCK).unlink(missing_ok=True)
    (folder / WORK_FOLDER).rmdir()
    left = sorted(folder.iterdir())
    if not left:
        folder.rmdir()
        if model.place is Place.MODELS and "/" in model.name:
            with suppress(OSError):  # of another model of the same owner
                folder.parent.rmdir()
    return left


def _is_weight_or_config(path: Path) -> bool:
    """Whether a file of a folder without a record is one of the model: not one that a person may have written."""
    return is_checkpoint_file(path.name) and path.suffix in (".json", ".safetensors", ".gguf", ".jinja")
