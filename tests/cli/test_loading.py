"""How many threads a model gets, and what is read before it is needed."""

import time

import pytest
import torch

from gptoss.cli import loading
from gptoss.cli.environment import LoadedModel, LoadRequest
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


@pytest.mark.parametrize(("memory", "is_read"), [(1 << 40, True), (1000, False), (None, False)])
def test_files_are_read_ahead_where_they_fit_into_memory(tmp_path, monkeypatch, memory, is_read):
    monkeypatch.setattr(loading, "available_memory", lambda: memory)
    told = []
    load_model(LoadRequest(model="nano", models_folder=tmp_path, reading=lambda *sizes: told.append(sizes)))
    assert bool(told) == is_read
    assert not told or told[-1][0] == told[-1][1] > 1_000_000


def test_how_much_is_read_stands_on_the_status_line(gptoss, scripted, encoding, reply) -> None:
    def load(request: LoadRequest) -> LoadedModel:
        request.reading(3_200_000_000, 13_800_000_000)
        time.sleep(0.6)
        engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("Hello"))])
        return LoadedModel(request.model, engine, encoding)

    result = gptoss("ask", "-m", "20b", "Hi", load=load, terminal="err")
    assert "loading 20b: 3.2 of 13.8 GB read" in result.stderr
