"""`gptoss list` and `gptoss rm`: what is there, and that only what is a model goes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import Fault, Repository
from huggingface_hub.utils import WeakFileLock
from safetensors.torch import load_file, save_file

from gptoss.cli.hub.last_use import last_uses, record_use

COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def models(gptoss):
    """What `gptoss list --json` says, without the built-in model, by name."""

    def tell() -> dict[str, dict]:
        result = gptoss("list", "--json")
        assert (result.status, result.stderr) == (0, "")
        told = [json.loads(line) for line in result.stdout.splitlines()]
        return {each["name"]: each for each in told if each["place"] != "built in"}

    return tell


@pytest.fixture
def mine(home, make_checkpoint) -> Path:
    """A model that somebody has put into the models folder."""
    return make_checkpoint(home / "gptoss" / "models" / "me" / "mine", "original")


def test_nothing_is_there(models) -> None:
    assert models() == {}


def test_what_was_pulled(gptoss, models, cache, home) -> None:
    gptoss("pull", "owner/made")
    gptoss("pull", "owner/made", "--to", str(home / "gptoss" / "models" / "made"))
    nbytes = sum(path.stat().st_size for path in (cache / "blobs").iterdir())
    assert nbytes > 3_100_000
    assert models() == {
        "owner/made": {
            "name": "owner/made",
            "repository": "owner/made",
            "place": "the hub's cache",
            "folder": str(cache / "snapshots" / COMMIT),
            "bytes": nbytes,
            "layout": "MXFP4",
            "complete": True,
            "last_used": None,
            "owner": None,
        },
        "made": {
            "name": "made",
            "repository": "owner/made",
            "place": "the models folder",
            "folder": str(home / "gptoss" / "models" / "made"),
            "bytes": nbytes,
            "layout": "MXFP4",
            "complete": True,
            "last_used": None,
            "owner": None,
        },
    }


def test_names_of_the_catalogue(gptoss, hub, home, models) -> None:
    hub.repositories["openai/gpt-oss-20b"] = hub.repositories["owner/made"]
    gptoss("pull", "20b")
    assert list(models()) == ["20b"]
    assert gptoss("rm", "openai/gpt-oss-20b", "--yes").status == 0
    assert models() == {}


def test_the_beginning_of_a_model(gptoss, hub, models, cache) -> None:
    hub.faults = [
        Fault("model-00002", cut_after=200_000, times=1),
        Fault("model-00002", cut_after=0),
    ]
    gptoss("pull", "owner/made")
    told = models()["owner/made"]
    assert not told["complete"]
    assert told["bytes"] > 200_000
    assert "(not complete: gptoss pull owner/made)" in gptoss("list").stdout
    assert "is not on this machine: `gptoss pull owner/made`" in gptoss("ask", "-m", "owner/made", "Hi").stderr
    assert gptoss("rm", "owner/made", "--yes").status == 0
    assert not cache.exists()


def test_what_another_program_has_begun(gptoss, hub, home, models) -> None:
    for name in ("config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors"):
        huggingface_hub.hf_hub_download("owner/made", name, cache_dir=home / "hf" / "hub", endpoint=hub.url)
    assert not models()["owner/made"]["complete"]


def test_other_models_are_not_shown(gptoss, home, models) -> None:
    snapshot = home / "hf" / "hub" / "models--some--bert" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "bert"}')
    (snapshot / "model.safetensors").write_bytes(b"x")
    assert models() == {}
    assert gptoss("rm", "some/bert", "--yes").status == 3
    assert snapshot.exists()


def test_folders_that_were_used_and_when(gptoss, home, models, make_checkpoint) -> None:
    folder = make_checkpoint(home / "elsewhere", "hub_bf16")
    record_use(home / "gptoss" / "state", folder)
    told = models()[str(folder)]
    assert (told["place"], told["layout"]) == ("a folder", "unpacked")
    assert told["last_used"].startswith("20")
    shutil.rmtree(folder)
    assert models() == {}


@pytest.mark.parametrize(("layout", "method", "expected"), [("hub_bf16", "mxfp4", "unpacked"), ("hub", None, "MXFP4")])
def test_the_layout_is_that_of_the_tensors_not_of_the_config(home, models, make_checkpoint, layout, method, expected):
    folder = make_checkpoint(home / "elsewhere", layout)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(
        json.dumps(config | ({"quantization_config": {"quant_method": method}} if method else {}))
    )
    record_use(home / "gptoss" / "state", folder)
    assert models()[str(folder)]["layout"] == expected
    weights = folder / "model.safetensors"
    for header in (b"", b"\xff" * 8, (1 << 20).to_bytes(8, "little") + b"{", (2).to_bytes(8, "little") + b"[]"):
        weights.write_bytes(header)
        assert models()[str(folder)]["layout"] == ("MXFP4" if method else "unpacked"), (
            "the config's, where it is broken"
        )


def test_the_layout_of_shards_without_an_index_and_of_unpacked_originals(home, models, make_checkpoint):
    shards = make_checkpoint(home / "elsewhere", "hub_bf16", shards=3, index=False)
    original = make_checkpoint(home / "original", "original")
    for folder, expected in ((shards, "unpacked"), (original, "original")):
        record_use(home / "gptoss" / "state", folder)
        assert models()[str(folder)]["layout"] == expected
    config = json.loads((shards / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (shards / "config.json").write_text(json.dumps(config))
    assert models()[str(shards)]["layout"] == "unpacked"
    weights = load_file(original / "model.safetensors")
    unpacked = {name.removesuffix(".blocks"): each for name, each in weights.items() if not name.endswith(".scales")}
    save_file(unpacked, original / "model.safetensors")
    assert models()[str(original)]["layout"] == "original, unpacked"


@pytest.mark.parametrize("content", ["", "[]", '{"a": "b"}', '{"relative": 1, "/absolute": "x"}', "\0"])
def test_a_broken_record_of_use_costs_nothing(home, models, content) -> None:
    state = home / "gptoss" / "state"
    state.mkdir(parents=True)
    (state / "models.json").write_text(content)
    assert models() == {}
    record_use(state, home)
    assert list(last_uses(state)) == [home]


def test_rm_asks(gptoss, cache) -> None:
    gptoss("pull", "owner/made")
    kept = gptoss("rm", "owner/made", typed="\n")
    assert kept.status == 1
    assert "Remove owner/made, 3.16 MB in " in kept.stderr
    assert kept.stderr.endswith("nothing was removed\n")
    assert cache.exists()
    assert gptoss("rm", "owner/made").status == 2
    assert cache.exists()
    gone = gptoss("rm", "owner/made", typed="y\n")
    assert gone.status == 0
    assert not cache.exists()
    assert gptoss("rm", "owner/made", "--yes").status == 3


def test_rm_leaves_what_others_have_in_the_cache(gptoss, hub, home, cache) -> None:
    """Also a copy of the repository, which has the same commit."""
    hub.repositories["owner/other"] = Repository(dict(hub.repositories["owner/made"].files))
    gptoss("pull", "owner/made")
    gptoss("pull", "owner/other")
    (home / "hf" / "hub" / "note.txt").write_text("mine")
    assert gptoss("rm", "owner/made", "--yes").status == 0
    assert (cache.parent / "models--owner--other" / "snapshots" / COMMIT / "config.json").exists()
    assert (home / "hf" / "hub" / "note.txt").exists()


def test_rm_of_a_pulled_folder_takes_its_own_files_alone(gptoss, home) -> None:
    folder = home / "there"
    gptoss("pull", "owner/made", "--to", str(folder))
    (folder / "notes.txt").write_text("mine")
    (folder / "extra.safetensors").write_text("mine")
    result = gptoss("rm", str(folder), "--yes")
    assert result.status == 0
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "extra.safetensors"}
    assert "extra.safetensors, notes.txt" in result.stderr


def test_rm_of_a_pulled_folder_leaves_nothing(gptoss, home) -> None:
    folder = home / "gptoss" / "models" / "me" / "made"
    gptoss("pull", "owner/made", "--to", str(folder))
    assert gptoss("rm", "me/made", "--yes").status == 0
    assert not folder.parent.exists()


def test_rm_of_a_folder_without_a_record(gptoss, mine) -> None:
    (mine / "README.md").write_text("mine")
    result = gptoss("rm", "me/mine", "--yes")
    assert result.status == 0
    assert [path.name for path in mine.iterdir()] == ["README.md"]


def test_rm_refuses_what_is_not_its_own(gptoss, home, make_checkpoint) -> None:
    folder = make_checkpoint(home / "elsewhere")
    record_use(home / "gptoss" / "state", folder)
    result = gptoss("rm", str(folder), "--yes")
    assert result.status == 1
    assert "was not put there by gptoss" in result.stderr
    assert (folder / "config.json").exists()


def test_rm_follows_no_link(gptoss, home, mine, make_checkpoint, cache) -> None:
    outside = make_checkpoint(home / "outside")
    linked = mine.parent / "linked"
    linked.symlink_to(outside)
    result = gptoss("rm", "me/linked", "--yes")
    assert result.status == 1
    assert "is a link to" in result.stderr
    (mine / "model-00009-of-00009.safetensors").symlink_to(outside / "model.safetensors")
    assert gptoss("rm", "me/mine", "--yes").status == 0
    assert not mine.exists()
    assert (outside / "model.safetensors").exists()
    gptoss("pull", "owner/made")
    moved = home / "moved"
    cache.rename(moved)
    cache.symlink_to(moved)
    result = gptoss("rm", "owner/made", "--yes")
    assert result.status == 1
    assert (moved / "snapshots" / COMMIT / "config.json").exists()


def test_a_record_that_names_files_elsewhere(gptoss, home) -> None:
    folder = home / "gptoss" / "models" / "made"
    gptoss("pull", "owner/made", "--to", str(folder))
    victim = home / "gptoss" / "config.toml"
    victim.write_text("")
    record = folder / ".gptoss-pull" / "pulled.json"
    told = json.loads(record.read_text())
    told["files"] |= {"../../config.toml": "0" * 40, str(victim): "0" * 40}
    record.write_text(json.dumps(told))
    assert gptoss("rm", "made", "--yes").status == 0
    assert victim.exists()


def test_rm_of_the_built_in_model(gptoss) -> None:
    result = gptoss("rm", "nano", "--yes")
    assert result.status in (1, 3)  # 3 where this checkout has none
    assert result.stderr.count("\n") == 1


def test_rm_of_what_is_being_pulled(gptoss, home) -> None:
    gptoss("pull", "owner/made")
    with WeakFileLock(home / "hf" / "hub" / ".locks" / "models--owner--made" / "gptoss-pull.lock"):
        result = gptoss("rm", "owner/made", "--yes")
    assert result.status == 1
    assert "is being pulled by another process" in result.stderr


def test_rm_of_what_is_there_twice(gptoss, home) -> None:
    folder = home / "gptoss" / "models" / "owner" / "made"
    gptoss("pull", "owner/made")
    gptoss("pull", "owner/made", "--to", str(folder))
    assert gptoss("rm", "owner/made", "--yes").status == 2
    assert gptoss("rm", str(folder), "--yes").status == 0
    assert gptoss("rm", "owner/made", "--yes").status == 0


def test_list_imports_neither_torch_nor_the_library() -> None:
    code = (
        "import sys; from gptoss.cli.app import run; from gptoss.cli.startup.environment import Environment;"
        "status = run(['list'], Environment(load_model=None));"
        "sys.exit(f'{status}' if status or {'torch', 'huggingface_hub', 'rich'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
