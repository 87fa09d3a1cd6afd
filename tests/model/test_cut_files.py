"""A file of the model that is cut while it is mapped: an error, where the system would end the process."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from generating import generate
from gguf_files import write_gguf
from loaded import loaded_engine

import gptoss.model.nano
from gptoss.model.checkpoints import verify
from gptoss.model.errors import CheckpointError
from gptoss.model.interface import SamplingParams
from gptoss.model.storage import made_weights
from gptoss.model.storage.disk_cache import DiskCache
from gptoss.model.storage.mapping import map_file, require_whole

pytest.importorskip("gptoss.model.storage._mapped_files", reason="built without a compiler", exc_type=ImportError)

IDS = torch.randint(0, 96, (20,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture
def model(make_checkpoint, tmp_path):
    return make_checkpoint(tmp_path / "model")


def begin(engine, max_tokens=3):
    return generate(engine, IDS, SamplingParams(temperature=0, max_tokens=max_tokens))


def weights_of(model):
    return max(model.glob("*.safetensors"), key=lambda path: path.stat().st_size)


def test_between_two_answers(model):
    engine = loaded_engine(model, "cpu")
    assert len(list(begin(engine))) == 3
    os.truncate(weights_of(model), 100)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"model\S*\.safetensors' was cut short, or could not be read"):
            list(begin(engine))


def test_a_gguf_file(tmp_path):
    path = write_gguf(tmp_path / "x.gguf")
    engine = loaded_engine(path, "cpu")
    assert len(list(begin(engine))) == 3
    os.truncate(path, 100)
    with pytest.raises(CheckpointError, match=r"x\.gguf' was cut short, or could not be read"):
        list(begin(engine))


def test_less_than_a_page(model):
    """The system fills the rest of the last page with zeros."""
    engine = loaded_engine(model, "cpu")
    list(begin(engine))
    path = weights_of(model)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="was cut short"):
        list(begin(engine))


def test_in_the_middle_of_an_answer(model):
    generation = begin(loaded_engine(model, "cpu"), max_tokens=8)
    next(generation)
    os.truncate(weights_of(model), 100)
    with pytest.raises(CheckpointError, match="was cut short"):
        list(generation)


def test_before_the_conversation_is_kept(model, tmp_path):
    """What was computed with zeros is never written."""
    engine = loaded_engine(model, "cpu", disk_cache=DiskCache(tmp_path / "cache", 1 << 30, "a name"))
    generation = begin(engine, max_tokens=8)
    next(generation)
    os.truncate(weights_of(model), 100)
    with pytest.raises(CheckpointError):
        list(generation)
    engine.retain(IDS)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".made", ".prefix")]


def test_the_cached_dense_layers(model, tmp_path, monkeypatch):
    pytest.importorskip("gptoss.model.ops.cpu", reason="built without a compiler", exc_type=ImportError)
    monkeypatch.setattr(made_weights, "WORTH_BYTES", 0)
    cache = DiskCache(tmp_path / "cache", 1 << 30, "a name")
    first = loaded_engine(model, "cpu", dense="int8", disk_cache=cache)
    list(begin(first))
    first.retain()
    engine = loaded_engine(model, "cpu", dense="int8", disk_cache=cache)
    expected = list(begin(engine))
    (path,) = (tmp_path / "cache").rglob("*.made")
    os.truncate(path, 100)
    with pytest.raises(CheckpointError, match=r"\.made', a cached copy of the model's dense layers, is damaged"):
        list(begin(engine))
    assert list(begin(engine)) == expected, "made anew"


def test_under_verify(model):
    cut = False

    def progress(*_) -> None:
        nonlocal cut
        if not cut:
            cut = True
            os.truncate(weights_of(model), 2 * os.sysconf("SC_PAGESIZE"))

    assert any("was cut short" in fault or "ends" in fault for fault in verify.verify(model, progress).faults)


def test_another_file_is_not_blamed(model, tmp_path):
    """The guard is of files that are mapped now."""
    other = tmp_path / "other"
    other.write_bytes(bytes(1 << 16))
    with other.open("rb") as file:
        mapping = map_file(file, 1 << 16, other)
    os.truncate(other, 0)
    assert mapping[5000] == 0
    with pytest.raises(CheckpointError, match="other' was cut short"):
        require_whole([mapping])
    assert len(list(begin(loaded_engine(model, "cpu")))) == 3


def test_a_bus_error_elsewhere_still_ends_the_process(tmp_path):
    code = """
import mmap, os, sys
from pathlib import Path
from gptoss.model.storage.mapping import map_file
path = Path(sys.argv[1]); path.write_bytes(bytes(1 << 16))
with open(path, "r+b") as file:
    ours = map_file(file, 1 << 16, path)
    other = mmap.mmap(file.fileno(), 1 << 16)
os.truncate(path, 0)
assert ours[4096] == 0
other[4096]
"""
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (-signal.SIGBUS, "")


def test_a_chat_ends_with_a_line_and_what_was_said_is_kept(tmp_path):
    folder = tmp_path / "nano"
    shutil.copytree(Path(gptoss.model.nano.__file__).parent / "checkpoint", folder)
    home = tmp_path / "home"
    chat = subprocess.Popen(
        [sys.executable, "-m", "gptoss.cli", "chat", "-m", str(folder), "--home", str(home), "--no-cache"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert chat.stdin is not None
    assert chat.stdout is not None
    chat.stdin.write("What is 2+3?\n")
    chat.stdin.flush()
    answer = chat.stdout.readline()
    os.truncate(weights_of(folder), 10_000)
    _, err = chat.communicate("What is 3+3?\n", timeout=60)
    assert chat.returncode == 1, err
    assert "was cut short, or could not be read, while it was in use" in err
    assert "Traceback" not in err
    assert len(set(err.strip().splitlines())) == 1, err  # twice if it was cut before the first answer was kept
    (saved,) = home.rglob("*.jsonl")
    assert answer.strip()
    assert answer.strip() in saved.read_text()
