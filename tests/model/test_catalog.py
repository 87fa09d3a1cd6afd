"""Where a model's folder is looked for, and what is said where there is none."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss.model.checkpoints import catalog
from gptoss.model.checkpoints.catalog import CATALOG, default_hub_cache, find_spec, locate
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.errors import CheckpointError, ModelNotFoundError


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """An empty folder of models and an empty hub cache, and no others to be found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path / "models", tmp_path / "hub"


def snapshot(hub: Path, repository: str, revision: str = "0123abc", *, main: bool = True) -> Path:
    """The folder of a revision in the hub's cache."""
    cached = hub / f"models--{repository.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True, exist_ok=True)
    if main:
        (cached / "refs" / "main").write_text(revision)
    return cached / "snapshots" / revision


def refused(model: str, places: tuple[Path, Path], *parts: str) -> None:
    with pytest.raises(ModelNotFoundError) as error:
        locate(model, *places)
    message = str(error.value)
    assert message.isprintable()
    for part in parts:
        assert part in message


def test_names_are_unique_and_the_default_is_one_of_them():
    assert len({spec.name for spec in CATALOG}) == len(CATALOG)
    assert find_spec(catalog.DEFAULT_MODEL) is not None
    assert find_spec("gpt-5") is None


@pytest.mark.parametrize("name", ["20b", "120b", "safeguard-20b", "safeguard-120b", "puzzle-88b"])
def test_what_is_not_here_says_its_size_and_where_it_was_looked_for(name, places):
    spec = find_spec(name)
    models, hub = places
    refused(name, places, spec.size, repr(str(models / name)), repr(str(hub)), f"`gptoss pull {name}`", "-m FOLDER")


def test_sizes_for_people():
    assert [find_spec(name).size for name in ("20b", "120b", "puzzle-88b")] == ["13.8 GB", "65.3 GB", "50 GB"]


@pytest.mark.parametrize("place", ["20b", "openai/gpt-oss-20b"])
def test_the_folder_of_models_goes_first(place, places, make_checkpoint):
    models, hub = places
    make_checkpoint(snapshot(hub, "openai/gpt-oss-20b"))
    folder = make_checkpoint(models / place)
    assert locate("20b", models, hub) == folder


def test_the_hubs_cache(places, make_checkpoint):
    models, hub = places
    make_checkpoint(snapshot(hub, "openai/gpt-oss-20b", "0000old", main=False))
    folder = make_checkpoint(snapshot(hub, "openai/gpt-oss-20b", "1234new"))
    assert locate("20b", models, hub) == folder
    assert locate("openai/gpt-oss-20b", models, hub) == folder


def test_a_revision_that_is_not_main(places, make_checkpoint):
    models, hub = places
    folder = make_checkpoint(snapshot(hub, "me/mine", "v1.0", main=False))
    assert locate("me/mine", models, hub) == folder


def test_only_the_original_layout_was_downloaded(places, make_checkpoint):
    models, hub = places
    folder = make_checkpoint(snapshot(hub, "openai/gpt-oss-120b") / "original", "original")
    assert locate("120b", models, hub) == folder


def test_a_download_without_weights_is_not_the_model(places, make_checkpoint):
    folder = make_checkpoint(snapshot(places[1], "openai/gpt-oss-20b"))
    (folder / "model.safetensors").unlink()
    refused("20b", places, "13.8 GB")


def test_a_broken_folder_of_that_name_is_left_to_explain_itself(places):
    models, hub = places
    (models / "20b").mkdir()
    assert locate("20b", models, hub) == models / "20b"
    with pytest.raises(CheckpointError, match="is empty"):
        Checkpoint.open(locate("20b", models, hub))


def test_a_revision_in_the_cache(places, make_checkpoint):
    models, hub = places
    commit = "0a" * 20
    main = make_checkpoint(snapshot(hub, "me/mine", "1b" * 20))
    other = make_checkpoint(snapshot(hub, "me/mine", commit, main=False))
    (hub / "models--me--mine" / "refs" / "refs" / "pr").mkdir(parents=True)
    (hub / "models--me--mine" / "refs" / "refs" / "pr" / "1").write_text(commit)
    assert locate("me/mine", models, hub) == locate("me/mine@main", models, hub) == main
    assert locate(f"me/mine@{commit}", models, hub) == locate("me/mine@refs/pr/1", models, hub) == other
    make_checkpoint(models / "me" / "mine")
    assert locate("me/mine@main", models, hub) == main  # of a folder it is not known which revision it is
    refused("me/mine@v2", places, "`gptoss pull me/mine@v2`")
    for model in ("me/mine@", "me/mine@../x", "me/mine@/x", "me/mine@a..b", "nano@main"):
        refused(model, places, "there is no model")


@pytest.mark.parametrize("revision", ["../../../outside", "/etc", "", "a\nb", "\xff", "x" * 1000])
def test_a_reference_does_not_lead_out_of_the_cache(revision, places, make_checkpoint, tmp_path):
    make_checkpoint(tmp_path / "outside")
    snapshot(places[1], "openai/gpt-oss-20b", "ok")
    reference = places[1] / "models--openai--gpt-oss-20b" / "refs" / "main"
    reference.write_bytes(revision.encode("latin-1"))
    refused("20b", places)


def test_a_folder_is_taken_as_it_is(places, make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "mine")
    assert locate(str(folder), *places) == folder
    assert locate("mine", *places) == Path("mine")
    assert locate("./mine", *places) == Path("mine")
    assert locate("../" + tmp_path.name + "/mine", *places).samefile(folder)
    # A file is no model, but what kind of file it is, opening it tells best.
    assert locate(str(folder / "config.json"), *places) == folder / "config.json"


def test_a_folder_goes_before_a_repository_and_a_name_before_a_folder(places, make_checkpoint, tmp_path):
    models, hub = places
    make_checkpoint(snapshot(hub, "me/mine"))
    make_checkpoint(tmp_path / "me" / "mine")
    assert locate("me/mine", models, hub) == Path("me/mine")
    make_checkpoint(tmp_path / "20b")
    refused("20b", places, "13.8 GB")
    assert locate("./20b", models, hub) == Path("20b")


def test_a_home_folder(places, make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = make_checkpoint(tmp_path / "mine")
    assert locate("~/mine", *places) == folder


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("30b", ["no model and no folder '30b'", "nano, 20b, 120b"]),
        ("nan", ["did you mean nano?"]),
        ("120B", ["did you mean 120b?"]),
        ("gpt-oss-20b", ["did you mean 20b?"]),
        ("gpt-oss:120b", ["did you mean 120b?"]),
        ("gpt-oss-safeguard-20b", ["did you mean safeguard-20b?"]),
        ("", ["no folder ''"]),
        ("../x", ["no folder '../x'"]),
        ("a/../b", ["no folder 'a/../b'"]),
        ("../../etc/x", ["no folder"]),
        ("a\x1b[2J\nb", [r"'a\x1b[2J\nb'"]),
        ("\ud800", [r"'\ud800'"]),
        ("a\0b", [r"'a\x00b'"]),
        ("x" * 9999, ["xxx...xxx"]),
        ("~nobody-of-this-name/x", ["no folder"]),
        ("me/mine", ["me/mine is not on this machine: `gptoss pull me/mine`", "models/me/mine'"]),
    ],
)
def test_what_is_nothing(model, parts, places):
    refused(model, places, *parts)


def test_nano_lies_in_the_package(places, make_checkpoint, tmp_path, monkeypatch):
    assert catalog._NANO_FOLDER.parts[-3:] == ("model", "nano", "checkpoint")
    monkeypatch.setattr(catalog, "_NANO_FOLDER", tmp_path / "nano")
    refused("nano", places, "install gptoss again")
    make_checkpoint(tmp_path / "nano")
    assert locate("nano", *places) == tmp_path / "nano"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "/home/me/.cache/huggingface/hub"),
        ({"HF_HUB_CACHE": "~/x"}, "/home/me/x"),
    ],
)
def test_the_hubs_environment(variables, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("HF_HOME", "/not/handed/down")
    assert default_hub_cache(variables) == Path(expected)


def test_without_a_folder_of_models_the_hubs_cache_alone_is_looked_in(places, make_checkpoint):
    _, hub = places
    with pytest.raises(ModelNotFoundError, match=rf"\(looked in the hub's cache '{hub}'\)"):
        locate("20b", None, hub)
    folder = make_checkpoint(snapshot(hub, "openai/gpt-oss-20b"))
    assert locate("20b", None, hub) == folder


def test_the_catalogue_does_not_wait_for_torch():
    code = "import sys, gptoss.model.checkpoints.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_folder_that_may_not_be_read_is_a_model_that_cannot_be_used(tmp_path, monkeypatch):
    def refused(path, *_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", refused)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        Checkpoint.open(tmp_path)
    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(ModelNotFoundError, match="is not on this machine"):
        locate("20b", tmp_path, tmp_path)
