"""How many threads a model gets, and what is read before it is needed."""

import os
import subprocess
import sys
import time

import pytest
import torch
from requested import load_request

from gptoss.cli.startup import loading
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.loaded import LoadedModel
from gptoss.cli.startup.loading import load_model
from gptoss.model.interface import Request
from gptoss.model.storage import expert_pager


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("asked", "given"), [(None, 1), (2, 2)])
def test_a_model_that_fits_in_a_cores_cache_gets_one_thread_unless_asked(tmp_path, asked, given):
    load_model(load_request("nano", tmp_path, threads=asked))
    assert torch.get_num_threads() == given


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_the_kernels_run_on_as_many_threads_as_are_asked_for(tmp_path, asked):
    pytest.importorskip("gptoss.model.kernels._cpu")
    code = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from gptoss.cli.base.settings import Folders, Settings\n"
        "from gptoss.cli.startup.environment import LoadRequest\n"
        "from gptoss.cli.startup.loading import load_model\n"
        "import torch\n"
        # Choosing them starts threads of torch's own, which wait.
        f"torch.set_num_threads({asked})\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        f"settings = Settings(device='cpu', threads={asked})\n"
        "engine = load_model(LoadRequest('nano', Folders.locate({}, Path('.')), settings)).engine\n"
        "engine.transformer.ops.read_once(torch.ones(32 << 20, dtype=torch.uint8))\n"
        "from gptoss.model import Request\n"
        "for _ in zip(range(3), engine.generate(Request(tuple(range(64))))): pass\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    variables = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    # Beside the main thread.
    assert int(done.stdout) == asked - 1


@pytest.mark.parametrize(("memory", "is_read"), [(1 << 40, True), (1000, False), (None, False)])
def test_files_are_read_ahead_where_they_fit_into_memory(tmp_path, monkeypatch, memory, is_read):
    monkeypatch.setattr(loading, "available_memory", lambda *, swap=False: None if swap else memory)
    told = []
    loaded = load_model(load_request("nano", tmp_path, reading=lambda *sizes: told.append(sizes)))
    assert bool(told) == is_read == (loaded.plan.reading == "ahead")
    assert not told or told[-1][0] == told[-1][1] > 1_000_000


@pytest.mark.parametrize(("memory", "is_paged"), [(1 << 40, False), (1000, True), (None, False)])
def test_experts_are_read_when_chosen_where_the_files_do_not_fit(tmp_path, monkeypatch, memory, is_paged):
    pytest.importorskip("gptoss.model.kernels._cpu")
    monkeypatch.setattr(loading, "available_memory", lambda *, swap=False: None if swap else memory)
    read = []
    monkeypatch.setattr(expert_pager.ExpertPager, "read", lambda _self, _experts, chosen: read.append(chosen))
    loaded = load_model(load_request("nano", tmp_path, "cpu"))
    next(loaded.engine.generate(Request((1, 2, 3))))
    assert bool(read) == is_paged == (loaded.plan.reading == "chosen")


def test_the_checkpoint_is_opened_once_a_run(tmp_path):
    """Config, header and generation config, with the cache on the disk in use."""
    code = (
        "import sys\n"
        "opened = []\n"
        "def note(event, arguments):\n"
        "    if event == 'open' and 'checkpoint' in str(arguments[0]):\n"
        "        opened.append(str(arguments[0]).rpartition('/')[2])\n"
        "sys.addaudithook(note)\n"
        "from gptoss.cli.__main__ import main\n"
        "sys.argv = ['gptoss', 'ask', '-m', 'nano', 'What is 2 + 3?']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(*sorted(opened), sep='\\n', file=sys.stderr)\n"
    )
    variables = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "GPTOSS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    files = [line for line in done.stderr.splitlines() if line.endswith((".json", ".safetensors"))]
    assert files == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]


def test_how_much_is_read_stands_on_the_status_line(gptoss, scripted, encoding, reply) -> None:
    def load(request: LoadRequest) -> LoadedModel:
        request.reading(3_200_000_000, 13_800_000_000)
        time.sleep(0.6)
        engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("Hello"))])
        return LoadedModel(request.model, engine, encoding)

    result = gptoss("ask", "-m", "20b", "Hi", load=load, terminal="err")
    assert "loading 20b: 3.2 of 13.8 GB read" in result.stderr
