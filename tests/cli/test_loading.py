"""How many threads a model gets."""

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
