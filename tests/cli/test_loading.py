"""How many threads a model gets."""

import os
import subprocess
import sys

import pytest
import torch

from gptoss.cli.environment import LoadRequest
from gptoss.cli.loading import load_model


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("asked", "given"), [(None, 1), (2, 2)])
def test_a_model_that_fits_in_a_cores_cache_gets_one_thread_unless_asked(tmp_path, asked, given):
    load_model(LoadRequest(model="nano", models_folder=tmp_path, device="cpu", ctx=None, threads=asked))
    assert torch.get_num_threads() == given


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_the_kernels_run_on_as_many_threads_as_are_asked_for(tmp_path, asked):
    pytest.importorskip("gptoss.model.kernels._cpu")
    code = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from gptoss.cli.environment import LoadRequest\n"
        "from gptoss.cli.loading import load_model\n"
        "import torch\n"
        # Choosing them starts threads of torch's own, which wait.
        f"torch.set_num_threads({asked})\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        f"engine = load_model(LoadRequest('nano', Path('.'), device='cpu', threads={asked})).engine\n"
        "engine.transformer.ops.read_once(torch.ones(32 << 20, dtype=torch.uint8))\n"
        "for _ in zip(range(3), engine.generate(list(range(64)))): pass\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    variables = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "4", "GPTOSS_BACKEND": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    # Beside the main thread.
    assert int(done.stdout) == asked - 1
