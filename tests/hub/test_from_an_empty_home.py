"""The whole way of a model, from an empty home to an empty home, as a user goes it: processes of their own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import Fault, Repository

NAMES = {
    "<|return|>": 256,
    "<|constrain|>": 257,
    "<|channel|>": 258,
    "<|start|>": 259,
    "<|end|>": 260,
    "<|message|>": 261,
    "<|call|>": 262,
}
COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def answering(hub, tmp_path, make_checkpoint, make_byte_tokenizer) -> int:
    """The hub has `owner/answers`, which can be asked; the bytes of its weights."""
    folder = make_checkpoint(tmp_path / "answers", "hub_mxfp4", shards=2, vocabulary=6_000)
    make_byte_tokenizer(folder, NAMES)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repositories["owner/answers"] = Repository(files)
    return sum(len(content) for name, content in files.items() if name.endswith(".safetensors"))


def test_the_whole_way(spawn, hub, home, answering) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        process = spawn(*arguments)
        stdout, stderr = process.communicate(timeout=180)
        return process.returncode, stdout, stderr

    def sent() -> int:
        return sum(count for name, count in hub.sent.items() if name.endswith(".safetensors"))

    status, _, errors = run("ask", "-m", "owner/answers", "Hi")
    assert status == 3
    assert errors.startswith("gptoss: owner/answers is not on this machine: `gptoss pull owner/answers` fetches it")

    hub.bytes_per_s = answering / 1.5
    for part in (0.25, 0.5, 0.75):
        process = spawn("pull", "owner/answers")
        hub.wait_until(lambda part=part: sent() > part * answering)
        process.kill()
        process.communicate()
    hub.bytes_per_s = None
    assert run("pull", "owner/answers")[0] == 0
    print(f"{sent() - answering} of {answering} bytes were fetched twice")
    assert sent() - answering < 3 * (256 << 10)

    status, listed, _ = run("list", "--json")
    (told,) = [each for each in map(json.loads, listed.splitlines()) if each["place"] != "built in"]
    assert (status, told["name"], told["complete"], told["last_used"]) == (0, "owner/answers", True, None)
    status, shown, errors = run("show", "owner/answers")
    assert (status, errors) == (0, "")
    assert COMMIT in shown
    status, sound, errors = run("verify", "owner/answers")
    assert (status, errors) == (0, "")
    assert "owner/answers is sound" in sound

    status, answer, _ = run("ask", "-m", "owner/answers", "--raw", "-n", "5", "--seed", "1", "Hi")
    assert status == 4  # the model is random: it does not come to an end by itself
    assert "<|start|>user<|message|>Hi<|end|><|start|>assistant" in answer
    assert json.loads(run("list", "--json")[1].splitlines()[-1])["last_used"] is not None

    assert run("rm", "owner/answers", "--yes")[0] == 0
    assert not [
        path
        for path in (home / "hf" / "hub").rglob("*")
        if path.is_file() and ".locks" not in path.parts and path.name != "CACHEDIR.TAG"
    ]
    assert run("ask", "-m", "owner/answers", "Hi")[0] == 3


class Asked:
    """A loader that finds nothing until the model has been pulled."""

    def __init__(self, load: Callable[..., object]) -> None:
        self.load = load
        self.calls = 0

    def __call__(self, request):
        self.calls += 1
        return self.load(request)


@pytest.fixture
def loader() -> Asked:
    from gptoss.cli.base.errors import InputError
    from gptoss.cli.startup.loaded import LoadedModel
    from gptoss.model.checkpoints.catalog import locate

    def load(request) -> LoadedModel:
        folder = locate(request.model, request.folders.models, request.folders.hub_cache)
        raise InputError(f"found in {folder}")

    return Asked(load)


@pytest.mark.parametrize("command", [("ask", "Hi"), ("chat",)])
def test_a_terminal_is_offered_the_pull(gptoss, hub, cache, loader, command) -> None:
    result = gptoss(*command, "-m", "owner/made", typed="y\n", load_model=loader)
    assert "owner/made is not on this machine. Pull owner/made now? [y/N] " in result.stderr
    assert f"found in {cache / 'snapshots' / COMMIT}" in " ".join(result.stderr.split())
    assert (result.status, loader.calls) == (1, 2)


@pytest.mark.parametrize("typed", ["\n", "n\n", "", "what?\n"])
def test_an_offer_that_is_not_taken(gptoss, hub, loader, typed) -> None:
    result = gptoss("ask", "Hi", typed=typed, load_model=loader)
    assert "20b (13.8 GB) is not on this machine. Pull openai/gpt-oss-20b now? [y/N] " in result.stderr
    assert "gptoss: 20b (13.8 GB) is not on this machine: `gptoss pull 20b` fetches it" in result.stderr
    assert result.status == 3
    assert hub.requests == []


def test_a_script_is_offered_nothing(gptoss, hub, loader) -> None:
    result = gptoss("ask", "-m", "owner/made", "Hi", load_model=loader)
    assert result.status == 3
    assert "[y/N]" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert hub.requests == []


def test_a_model_that_cannot_be_pulled_is_not_offered(gptoss, loader) -> None:
    result = gptoss("ask", "-m", "./nowhere", "Hi", typed="y\n", load_model=loader)
    assert result.status == 3
    assert "[y/N]" not in result.stderr


def test_the_first_screen(gptoss, home, hub) -> None:
    empty = gptoss()
    assert (empty.status, empty.stderr) == (0, "")
    assert "gptoss pull 20b && gptoss chat" in empty.stdout or "into memory:" in empty.stdout
    assert "  20b   13.8 GB   " in empty.stdout
    assert hub.requests == []
    gptoss("pull", "owner/made")
    there = gptoss().stdout
    assert "Here already: " in there
    assert "gptoss chat -m owner/made" in there
    assert "gptoss pull" not in there


def test_the_first_screen_while_a_pull_is_unfinished(gptoss, hub) -> None:
    hub.faults = [Fault("model-00002", status=404)]
    gptoss("pull", "owner/made")
    assert "gptoss pull owner/made" in gptoss().stdout


@pytest.mark.parametrize(
    ("free_gb", "disk_gb", "says"),
    [
        (
            200,
            500,
            {"20b": "fits into memory; up to about 27 tokens", "120b": "fits into memory; up to about 20 tokens"},
        ),
        (32, 500, {"20b": "fits into memory", "120b": "does not fit into memory"}),
        (32, 20, {"20b": "fits into memory", "120b": "does not fit on the disk"}),
        (4, 10, {"20b": "does not fit on the disk", "120b": "does not fit on the disk"}),
    ],
)
def test_what_would_run_here(gptoss, monkeypatch, free_gb, disk_gb, says) -> None:
    from gptoss.cli.commands import welcome
    from gptoss.cli.startup.machine import Machine

    machine = Machine(16, free_gb * 10**9, disk_gb * 10**9, 100e9, has_nvidia=True)
    monkeypatch.setattr(welcome, "look_at_machine", lambda folder: machine)
    screen = gptoss().stdout
    for name, prospect in says.items():
        (line,) = [line for line in screen.splitlines() if line.startswith(f"  {name} ")]
        assert prospect in line
    assert "an estimate" in screen
    assert "NVIDIA GPU" in screen


def test_memory_of_a_container(tmp_path: Path) -> None:
    from gptoss.cli.startup.machine import available_memory

    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   2000000 kB\n")
    assert available_memory(tmp_path, tmp_path) == 2_048_000_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert available_memory(tmp_path, tmp_path) == 2_048_000_000
    (tmp_path / "memory.max").write_text("51000\n")
    assert available_memory(tmp_path, tmp_path) == 50_000


def test_the_bandwidth_is_that_of_a_memory() -> None:
    from gptoss.cli.startup.machine import copy_bandwidth

    assert 1e8 < copy_bandwidth(1) < 1e13
