"""GGUF models from the hub and of other programs: pulled, listed, run, removed."""

import json
import os
from pathlib import Path

import pytest
from gguf_files import write_gguf
from hub_server import Repository

from gptoss.cli.base.settings import Folders
from gptoss.cli.startup.lazy_loading import find_model

REPOSITORY = "ggml-org/gpt-oss-20b-GGUF"


@pytest.fixture(scope="module")
def nano(tmp_path_factory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "x.gguf").read_bytes()


@pytest.fixture
def parts(tmp_path) -> dict[str, bytes]:
    first = write_gguf(tmp_path / "parts" / "big.gguf", split_tensors=20)
    return {path.name: path.read_bytes() for path in sorted(first.parent.iterdir())}


def models(gptoss) -> dict[str, dict]:
    told = [json.loads(line) for line in gptoss("list", "--json").stdout.splitlines()]
    return {each["name"]: each for each in told if each["place"] != "built in"}


def ask(gptoss, model: str):
    return gptoss("ask", "-m", model, "-n", "3", "--seed", "1", "--json", "--no-save", "Hi")


def test_pulled_listed_run_and_removed(gptoss, hub, home, nano) -> None:
    files = {"gpt-oss-20b-mxfp4.gguf": nano, "README.md": b"# GGUF\n", "x.bin": b"x"}
    hub.repositories[REPOSITORY] = Repository(files, gguf={"architecture": "gpt-oss"})
    assert gptoss("pull", REPOSITORY).status == 0
    assert hub.sent["x.bin"] == 0
    told = models(gptoss)[REPOSITORY]
    assert (told["place"], told["layout"], told["complete"], told["owner"]) == ("the hub's cache", "GGUF", True, None)
    answer = ask(gptoss, REPOSITORY)
    assert json.loads(answer.stdout)["model"] == REPOSITORY, answer
    assert "was complete already" in gptoss("pull", REPOSITORY).stderr
    assert gptoss("rm", REPOSITORY, "--yes").status == 0
    assert models(gptoss) == {}


def test_into_a_folder(gptoss, hub, home, nano) -> None:
    hub.repositories[REPOSITORY] = Repository({"a.gguf": nano})
    to = home / "gptoss" / "models" / "mine"
    assert gptoss("pull", REPOSITORY, "--to", str(to)).status == 0
    assert models(gptoss)["mine"]["layout"] == "GGUF"
    assert ask(gptoss, "mine").status == 4
    assert gptoss("rm", "mine", "--yes").status == 0
    assert not to.exists()


def test_one_of_several(gptoss, hub, home, nano, parts) -> None:
    files = {"m-Q4_K_M.gguf": nano, "m-F16.gguf": nano, "mmproj-F16.gguf": nano, **parts}
    hub.repositories[REPOSITORY] = Repository(files)
    refused = gptoss("pull", REPOSITORY)
    assert refused.status == 3
    assert f"has 3 GGUF models: name one as {REPOSITORY}:FILE, of big-00001-of-0000" in refused.stderr
    assert "has 0 GGUF models of that name" in gptoss("pull", f"{REPOSITORY}:Q9").stderr
    assert not any(hub.sent[name] for name in files)
    assert gptoss("pull", f"{REPOSITORY}:f16").status == 0
    assert {name for name in files if hub.sent[name]} == {"m-F16.gguf"}
    assert gptoss("show", f"{REPOSITORY}:F16").status == 0
    assert gptoss("pull", f"{REPOSITORY}:big").status == 0
    assert all(hub.sent[name] for name in parts)
    assert "GGUF" in gptoss("show", f"{REPOSITORY}:big").stdout
    both = gptoss("show", REPOSITORY)
    assert both.status == 3
    assert "has 2 GGUF models" in both.stderr
    assert models(gptoss)[REPOSITORY]["complete"]


def test_a_missing_part(gptoss, hub, parts) -> None:
    hub.repositories[REPOSITORY] = Repository(dict(list(parts.items())[1:]))
    refused = gptoss("pull", REPOSITORY)
    assert refused.status == 3
    assert "but no 'big-00001-of-" in refused.stderr


def test_another_architecture_is_not_fetched(gptoss, hub, nano) -> None:
    hub.repositories["some/llama-GGUF"] = Repository({"a.gguf": nano}, gguf={"architecture": "llama"})
    refused = gptoss("pull", "some/llama-GGUF")
    assert refused.status == 3
    assert "is not fetched: its architecture is 'llama', and only gpt-oss models run here" in refused.stderr
    assert hub.sent["a.gguf"] == 0


def test_safetensors_go_before_gguf(gptoss, hub, checkpoint, nano) -> None:
    hub.repositories["owner/made"] = Repository(dict(checkpoint) | {"a.gguf": nano})
    assert gptoss("pull", "owner/made").status == 0
    assert hub.sent["a.gguf"] == 0


def test_models_of_other_programs(gptoss, home, nano) -> None:
    store = home / ".lmstudio" / "models" / "me" / "tuned"
    store.mkdir(parents=True)
    (store / "x.gguf").write_bytes(nano)
    told = models(gptoss)["lmstudio:me/tuned"]
    assert (told["owner"], told["place"], told["folder"]) == ("LM Studio", "another program", str(store / "x.gguf"))
    assert "LM Studio: ~/.lmstudio/models/me/tuned/x.gguf" in gptoss("list").stdout
    answer = ask(gptoss, "lmstudio:me/tuned")
    assert json.loads(answer.stdout)["model"] == "lmstudio:me/tuned", answer
    assert models(gptoss)["lmstudio:me/tuned"]["last_used"] is not None
    assert len(models(gptoss)) == 1
    for name in ("lmstudio:me/tuned", str(store / "x.gguf")):
        refused = gptoss("rm", name, "--yes")
        assert refused.status == 1
        assert "belongs to LM Studio: remove it there" in refused.stderr
    assert Path(store / "x.gguf").read_bytes() == nano
    assert gptoss("ask", "-m", "lmstudio:me/other", "Hi").status == 3


def test_they_are_named_before_a_pull_is_offered(gptoss, home, nano) -> None:
    store = home / ".lmstudio" / "models" / "me" / "tuned"
    store.mkdir(parents=True)
    (store / "x.gguf").write_bytes(nano)
    asked = gptoss("ask", "-m", "owner/made", "Hi", typed="n\n")
    assert asked.status == 3
    assert "of other programs is here: lmstudio:me/tuned (-m NAME)" in asked.stderr
    assert "Pull owner/made now?" in asked.stderr
    assert "gptoss chat -m lmstudio:me/tuned" in gptoss().stdout


def test_the_program_finds_them_before_it_imports_torch(home, nano) -> None:
    store = home / ".lmstudio" / "models" / "me" / "tuned"
    store.mkdir(parents=True)
    (store / "x.gguf").write_bytes(nano)
    folders = Folders.locate(os.environ)
    assert find_model("lmstudio:me/tuned", folders) == store / "x.gguf"
