"""Models of Ollama, LM Studio and llama.cpp, in folders laid out as those programs do."""

import hashlib
import json
from pathlib import Path

import gguf
import pytest
from gguf_files import write_gguf

from gptoss.model.checkpoints.catalog import hub_reference, locate
from gptoss.model.checkpoints.checkpoint import Checkpoint
from gptoss.model.checkpoints.gguf_header import read_architecture
from gptoss.model.checkpoints.other_stores import OtherStores, find_foreign, foreign_models, owner_of
from gptoss.model.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError


@pytest.fixture(scope="module")
def nano(tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "nano.gguf")


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A GGUF file of another architecture."""
    path = tmp_path_factory.mktemp("llama") / "llama.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def put(file: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(file.read_bytes())
    return to


def into_ollama(store: Path, file: Path, name: str, layers: tuple = (), size: int | None = None) -> Path:
    """Store a file as Ollama does; return its blob."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    blob = put(file, store / "blobs" / f"sha256-{digest}")
    model = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    model["size"] = file.stat().st_size if size is None else size
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    template = {"mediaType": "application/vnd.ollama.image.template", "digest": f"sha256:{'0' * 64}", "size": 3}
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": [*layers, model, template]}))
    return blob


@pytest.fixture
def stores(tmp_path, nano, llama) -> OtherStores:
    found = OtherStores((tmp_path / "ollama",), (tmp_path / "lmstudio",), (tmp_path / "llama.cpp",))
    ollama = tmp_path / "ollama"
    into_ollama(ollama, nano, "registry.ollama.ai/library/gpt-oss/20b")
    into_ollama(ollama, nano, "registry.ollama.ai/someone/mine/latest")
    into_ollama(ollama, nano, "hf.co/ggml-org/gpt-oss-20b-GGUF/Q8_0")
    into_ollama(ollama, llama, "registry.ollama.ai/library/llama3/8b")
    put(nano, tmp_path / "lmstudio" / "me" / "one" / "gpt-oss-20b-MXFP4.gguf")
    put(nano, tmp_path / "lmstudio" / "me" / "two" / "a.gguf")
    put(nano, tmp_path / "lmstudio" / "me" / "two" / "b.gguf")
    put(llama, tmp_path / "lmstudio" / "me" / "llama" / "llama.gguf")
    put(nano, tmp_path / "llama.cpp" / "ggml-org_gpt-oss-20b-GGUF_gpt-oss-20b-mxfp4.gguf")
    put(llama, tmp_path / "llama.cpp" / "someone_llama_llama.gguf")
    return found


NAMES = [
    "llama.cpp:ggml-org_gpt-oss-20b-GGUF_gpt-oss-20b-mxfp4.gguf",
    "lmstudio:me/one",
    "lmstudio:me/two/a.gguf",
    "lmstudio:me/two/b.gguf",
    "ollama:gpt-oss:20b",
    "ollama:hf.co/ggml-org/gpt-oss-20b-GGUF:Q8_0",
    "ollama:someone/mine:latest",
]


def test_the_architecture_is_read_from_the_beginning(nano, llama, tmp_path):
    assert read_architecture(nano) == "gpt-oss"
    assert read_architecture(llama) == "llama"
    for content in (b"", b"GGUF", b"GGUF" + b"\xff" * 40, nano.read_bytes()[:40]):
        (tmp_path / "x").write_bytes(content)
        assert read_architecture(tmp_path / "x") is None
    assert read_architecture(tmp_path) is None


def test_models_of_gpt_oss_are_listed_and_can_be_opened(stores, nano):
    models = foreign_models(stores)
    assert sorted(model.name for model in models) == NAMES
    for model in models:
        assert model.is_complete
        assert model.nbytes == nano.stat().st_size
        assert find_foreign(model.name, stores) == model.path
        assert locate(model.name, None, Path("/nowhere"), stores) == model.path
    assert Checkpoint.open(find_foreign("ollama:gpt-oss:20b", stores)).layout.is_gguf


def test_other_spellings(stores):
    assert find_foreign("ollama:someone/mine", stores) == find_foreign("ollama:someone/mine:latest", stores)
    assert find_foreign("llama.cpp:ggml-org_gpt-oss-20b-GGUF_gpt-oss-20b-mxfp4", stores).suffix == ".gguf"
    assert find_foreign("lmstudio:me/one/gpt-oss-20b-MXFP4.gguf", stores) == find_foreign("lmstudio:me/one", stores)
    with pytest.raises(UnsupportedModelError, match=r"2 files of 'me/two': name one of lmstudio:me/two/a\.gguf, lmst"):
        find_foreign("lmstudio:me/two", stores)


def test_another_model_says_what_it_is_when_it_is_opened(stores):
    with pytest.raises(UnsupportedModelError, match="the architecture is 'llama': only gpt-oss"):
        Checkpoint.open(find_foreign("ollama:llama3:8b", stores))


@pytest.mark.parametrize(
    "name",
    [
        "ollama:gpt-oss:120b",
        "ollama:../../etc/passwd",
        "ollama:gpt-oss:../20b",
        "ollama:a/b/c/d/e",
        "lmstudio:me",
        "lmstudio:../lmstudio/one",
        "lmstudio:me/one/../x",
        "llama.cpp:../llama.cpp/x",
        "llama.cpp:x\0",
    ],
)
def test_what_is_not_there(stores, name):
    with pytest.raises(ModelNotFoundError, match=r"has no model .* here \(looked in .*\): there (is|are) ") as error:
        find_foreign(name, stores)
    assert str(error.value).isprintable()


def test_what_is_here_is_said_where_a_model_is_missing(stores, tmp_path):
    with pytest.raises(ModelNotFoundError) as error:
        locate("20b", None, tmp_path, stores)
    assert str(error.value).endswith(f"; of other programs are here: {', '.join(NAMES[:3])} and 4 more")
    with pytest.raises(ModelNotFoundError, match=r"did you mean ollama:gpt-oss:20b\?"):
        locate("gpt-oss:20b", None, tmp_path, stores)
    with pytest.raises(ModelNotFoundError, match=r"did you mean 20b\?"):
        locate("gpt-oss:20b", None, tmp_path)


def test_names_of_other_kinds():
    for name in ("20b", "gpt-oss:20b", "ollama", "ollama:", "owner/name", "/ollama:x"):
        assert owner_of(name) is None
    assert hub_reference("ollama:gpt-oss:20b") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers": 3}',
        b'{"layers": [3]}',
        b'{"layers": [{"mediaType": [], "digest": 1}]}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../x"}]}',
        b"[" * 100_000,
        b"\xff\0",
    ],
)
def test_broken_manifests(tmp_path, content):
    manifest = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "x" / "y"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(content)
    stores = OtherStores(ollama=(tmp_path,))
    assert foreign_models(stores) == []
    with pytest.raises(CheckpointError):
        find_foreign("ollama:x:y", stores)


def test_what_is_not_whole(stores, nano, tmp_path):
    blob = into_ollama(tmp_path / "ollama", nano, "registry.ollama.ai/library/short/1b", size=1)
    assert {model.name: model.is_complete for model in foreign_models(stores)}["ollama:short:1b"] is False
    blob.unlink()
    assert not [model for model in foreign_models(stores) if model.name == "ollama:gpt-oss:20b"]
    with pytest.raises(
        ModelNotFoundError, match=r"gpt-oss:20b' is not whole: .* is missing \(`ollama pull gpt-oss:20b`"
    ):
        find_foreign("ollama:gpt-oss:20b", stores)


def test_an_adapter_is_not_left_out_silently(tmp_path, nano):
    adapter = {"mediaType": "application/vnd.ollama.image.adapter", "digest": f"sha256:{'1' * 64}", "size": 1}
    into_ollama(tmp_path, nano, "registry.ollama.ai/me/tuned/latest", layers=(adapter,))
    stores = OtherStores(ollama=(tmp_path,))
    assert foreign_models(stores) == []
    with pytest.raises(UnsupportedModelError, match="has an adapter beside the model"):
        find_foreign("ollama:me/tuned", stores)


class TestPlaces:
    @pytest.fixture(autouse=True)
    def _home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr("sys.platform", "linux")

    def test_by_default(self, tmp_path):
        stores = OtherStores.of({})
        assert stores.ollama[0] == tmp_path / ".ollama" / "models"
        assert Path("/usr/share/ollama/.ollama/models") in stores.ollama
        assert stores.lm_studio == (tmp_path / ".lmstudio" / "models", tmp_path / ".cache" / "lm-studio" / "models")
        assert stores.llama_cpp == (tmp_path / ".cache" / "llama.cpp",)

    def test_variables(self, tmp_path):
        stores = OtherStores.of({"OLLAMA_MODELS": "/o", "LLAMA_CACHE": "~/l", "XDG_CACHE_HOME": "/x"})
        assert stores.ollama[0] == Path("/o")
        assert stores.llama_cpp == (tmp_path / "l",)
        assert OtherStores.of({"XDG_CACHE_HOME": "/x"}).llama_cpp == (Path("/x/llama.cpp"),)

    def test_what_lm_studio_has_written(self, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (tmp_path / ".lmstudio-home-pointer").write_text(f"{elsewhere}\n")
        (elsewhere / "settings.json").write_text('{"downloadsFolder": "/disk/models"}')
        folders = OtherStores.of({}).lm_studio
        assert folders[:2] == (Path("/disk/models"), elsewhere / "models")
        (elsewhere / "settings.json").write_text('{"downloadsFolder": 3}')
        assert OtherStores.of({}).lm_studio[0] == elsewhere / "models"
