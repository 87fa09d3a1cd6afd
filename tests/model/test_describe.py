"""What is said of a checkpoint is what loading it shows."""

import pytest
import torch
from loaded import loaded_transformer

from gptoss.model import Checkpoint
from gptoss.model.checkpoints.describe import describe


@pytest.mark.parametrize(
    ("layout", "experts"), [("original", "MXFP4"), ("hub_mxfp4", "MXFP4"), ("hub_bf16", "BF16"), ("puzzle", "MXFP4")]
)
def test_parts_and_sizes(tmp_path, make_checkpoint, layout, experts):
    folder = make_checkpoint(tmp_path, layout, shards=2)
    description = describe(Checkpoint.open(folder))
    assert description.parts["experts"].precisions == (experts,)
    assert sum(part.nbytes for part in description.parts.values()) == description.weight_bytes
    assert description.num_files == 2
    assert description.file_bytes == sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert description.config.num_layers == (3 if layout == "puzzle" else 2)


@pytest.mark.parametrize("layout", ["hub_mxfp4", "puzzle"])
def test_the_cache_takes_what_is_said(tmp_path, make_checkpoint, layout):
    folder = make_checkpoint(tmp_path, layout)
    transformer = loaded_transformer(folder)
    cache = transformer.new_cache(300)
    with torch.inference_mode():
        transformer(torch.arange(300) % 90, cache)
    assert cache.nbytes == describe(Checkpoint.open(folder)).cache_bytes(300)


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, None),
        ({"README.md": "---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n# Hi\n"}, "apache-2.0"),
        ({"README.md": "---\r\nlicense: 'mit'\r\n---\r\n"}, "mit"),
        ({"README.md": "---\nlicense: other\nlicense_name: nvidia-open\n---\n"}, "nvidia-open"),
        ({"README.md": "# Hi\nlicense: mit\n"}, None),
        ({"README.md": "---\nlicense: mit\nnever ended"}, None),
        ({"README.md": "---\ntitle: x\n---\n", "LICENSE": "\n  Apache License\n  Version 2.0\n"}, "Apache License"),
        ({"README.md": "---\nlicense: " + " " * 60000 + "x" + " " * 5000 + "\n---\n", "LICENSE": "MIT"}, "x"),
        ({"README.md": "---\nlicense: " + " " * 70000 + "x\n---\n", "LICENSE": "MIT"}, "MIT"),
    ],
)
def test_licence(tmp_path, make_checkpoint, files, licence):
    folder = make_checkpoint(tmp_path)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    assert describe(Checkpoint.open(folder)).licence == licence


def test_a_licence_elsewhere_is_not_read(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path / "mine")
    (tmp_path / "secret").write_text("MIT")
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    assert describe(Checkpoint.open(folder)).licence is None
