"""A pull that goes well: what is fetched, where it lies, what is said."""

import os
from pathlib import Path

import huggingface_hub
import pytest

COMMIT = "c0ffee" + "0" * 34
WANTED = {
    "config.json",
    "README.md",
    "LICENSE",
    "model.safetensors.index.json",
    *(f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_into_the_cache_of_the_hub(gptoss, hub, cache, checkpoint) -> None:
    result = gptoss("pull", "owner/made")
    assert (result.status, result.stdout) == (0, "")
    snapshot = cache / "snapshots" / COMMIT
    assert contents(snapshot) == {name: checkpoint[name] for name in WANTED}
    assert result.stderr.splitlines()[0] == "7 files, 3.16 MB"
    assert result.stderr.splitlines()[-1] == f"owner/made is complete: 3.16 MB in {snapshot}"
    assert {name for name, count in hub.sent.items() if count} == WANTED
    assert all(hub.sent[name] == len(checkpoint[name]) for name in WANTED)


def test_the_library_finds_what_was_pulled(gptoss, home, cache) -> None:
    gptoss("pull", "owner/made")
    cached = str(home / "hf" / "hub")
    found = huggingface_hub.snapshot_download("owner/made", cache_dir=cached, local_files_only=True)
    assert Path(found) == cache / "snapshots" / COMMIT
    scanned = huggingface_hub.scan_cache_dir(cached)
    assert scanned.warnings == []
    assert [(repo.repo_id, repo.nb_files) for repo in scanned.repos] == [("owner/made", 7)]
    assert not scanned.incomplete_files


def test_what_the_library_has_fetched_is_not_fetched_again(gptoss, hub, home, checkpoint) -> None:
    name = "model-00002-of-00003.safetensors"
    huggingface_hub.hf_hub_download("owner/made", name, cache_dir=home / "hf" / "hub", endpoint=hub.url)
    before = hub.sent[name]
    assert gptoss("pull", "owner/made").status == 0
    assert before == hub.sent[name] == len(checkpoint[name])


def test_again_fetches_nothing(gptoss, hub) -> None:
    gptoss("pull", "owner/made")
    sent = dict(hub.sent)
    result = gptoss("pull", "owner/made")
    assert result.status == 0
    assert "was complete already" in result.stderr
    assert dict(hub.sent) == sent


def test_into_a_folder(gptoss, hub, home, checkpoint) -> None:
    folder = home / "some" / "where"
    result = gptoss("pull", "owner/made", "--to", str(folder))
    assert result.status == 0
    assert contents(folder) == {name: checkpoint[name] for name in WANTED}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {".gptoss-pull"}
    assert {path.name for path in (folder / ".gptoss-pull").iterdir()} == {"gptoss-pull.lock", "pulled.json"}
    sent = dict(hub.sent)
    again = gptoss("pull", "owner/made", "--to", str(folder))
    assert (again.status, dict(hub.sent)) == (0, sent)


def test_a_new_commit_fetches_what_has_changed(gptoss, hub, home, checkpoint) -> None:
    folder = home / "there"
    for arguments in ((), ("--to", str(folder))):
        hub.repositories["owner/made"].files = dict(checkpoint)
        hub.repositories["owner/made"].commit = COMMIT
        assert gptoss("pull", "owner/made", *arguments).status == 0
        hub.sent.clear()
        hub.repositories["owner/made"].files["README.md"] = b"# New\n"
        del hub.repositories["owner/made"].files["LICENSE"]
        hub.repositories["owner/made"].commit = "d" * 40
        assert gptoss("pull", "owner/made", *arguments).status == 0
        assert dict(hub.sent) == {"README.md": 6}
    assert contents(folder)["README.md"] == b"# New\n"
    assert "LICENSE" not in contents(folder)


def test_a_single_file_goes_before_shards(gptoss, hub, home, checkpoint) -> None:
    hub.repositories["owner/made"].files["model.safetensors"] = b"one"
    folder = home / "there"
    assert gptoss("pull", "owner/made", "--to", str(folder)).status == 0
    assert set(contents(folder)) == {"config.json", "README.md", "LICENSE", "model.safetensors"}


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_revision(gptoss, cache, revision) -> None:
    assert gptoss("pull", f"owner/made@{revision}").status == 0
    assert (cache / "refs" / "main").exists() == (revision == "main")


def test_the_built_in_model_needs_no_pull(gptoss, hub) -> None:
    result = gptoss("pull", "nano")
    assert (result.status, result.stderr) == (0, "nano comes with gptoss: there is nothing to pull\n")
    assert hub.requests == []


@pytest.mark.parametrize("model", ["21b", "./folder", "owner/made@../../x", "a--b/c", "owner/na..me", ""])
def test_what_is_no_name(gptoss, hub, model) -> None:
    result = gptoss("pull", "--", model)
    assert result.status == 2
    assert result.stderr.startswith("gptoss: there is no model")
    assert hub.requests == []


def test_a_token_goes_to_the_hub_alone(gptoss, hub, monkeypatch) -> None:
    hub.repositories["owner/made"].token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert gptoss("pull", "owner/made").status == 0
    assert hub.leaked_tokens == 0


def test_offline(gptoss, hub, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert result.stderr.count("\n") == 1
    assert "offline mode is on" in result.stderr
    assert hub.requests == []


def test_only_its_owner_can_change_what_a_pull_makes(gptoss, hub, home) -> None:
    before = os.umask(0)
    try:
        assert gptoss("pull", "owner/made").status == 0
        assert gptoss("pull", "owner/made", "--to", str(home / "there" / "deep")).status == 0
    finally:
        assert os.umask(before) == 0
    made = [path for path in home.rglob("*") if path.suffix != ".lock" and not path.is_symlink()]
    assert [path for path in made if path.stat().st_mode & 0o022] == []
