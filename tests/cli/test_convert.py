"""`gptoss convert` as transcripts: a GGUF file becomes a folder that gptoss and other programs load."""

import json

import pytest
from gguf_files import NANO, Kind, write_gguf
from tokenizers import Tokenizer

from gptoss.cli.startup.encodings import load_encoding
from gptoss.cli.startup.lazy_loading import load_model

ASK = ("-n", "12", "--temperature", "0", "--no-save", "--no-cache", "--device", "cpu", "--raw", "Hi there, 27 + 5?")


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return write_gguf(
        tmp_path_factory.mktemp("gguf") / "x.gguf", change=lambda writer: writer.add_license("apache-2.0")
    )


def test_a_gguf_file(gptoss, nano, tmp_path):
    to = tmp_path / "to"
    result = gptoss("convert", str(nano), "--to", str(to))
    assert (result.status, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "the experts are the same to the bit",
        f"{nano} is converted: 1.67 MB in {to}",
    ]
    names = ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    assert sorted(path.name for path in to.iterdir()) == [*names, "tokenizer.json", "tokenizer_config.json"]
    card = (to / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "from x.gguf (GGUF, MXFP4 experts):\n\n- `x.gguf`, " in card
    assert str(nano.parent) not in card  # a card may be published
    asked = [gptoss("ask", "-m", str(model), *ASK, load=load_model) for model in (nano, to)]
    assert asked[0].stdout == asked[1].stdout != ""
    assert gptoss("verify", str(to)).status == 0


def test_the_tokenizer(gptoss, nano, tmp_path):
    gptoss("convert", str(nano), "--to", str(tmp_path / "to"))
    ours, theirs = load_encoding(nano), Tokenizer.from_file(str(tmp_path / "to" / "tokenizer.json"))
    assert load_encoding(tmp_path / "to").specials == ours.specials
    for text in ("Hello, World! 347 + 85?", "  spaces\n\nand  lines ", "Grüße, 日本語"):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
        assert theirs.decode(ours.encode(text)) == text
    stop = json.loads((tmp_path / "to" / "generation_config.json").read_text())["eos_token_id"]
    assert set(stop) == ours.stop_tokens


def test_what_is_rounded_is_said(gptoss, tmp_path):
    source = write_gguf(tmp_path / "x.gguf", dense=Kind.Q8_0, experts=Kind.BF16)
    result = gptoss("convert", str(source), "--to", str(tmp_path / "to"))
    assert result.status == 0
    assert "layers in Q8_0 were rounded to bfloat16 once" in result.stderr
    assert "experts packed to MXFP4: " in result.stderr


def test_a_folder_keeps_its_small_files(gptoss, tmp_path):
    result = gptoss("convert", "nano", "--to", str(tmp_path / "to"))
    assert result.status == 0, result.stderr
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "to" / name).read_bytes() == (NANO / name).read_bytes()
    assert "from nano (hub, MXFP4 experts)" in (tmp_path / "to" / "README.md").read_text()


def test_what_is_wrong_is_said_in_a_line(gptoss, nano, tmp_path):
    (tmp_path / "x").write_text("mine")
    for arguments, status, message in (
        ((str(nano), "--to", str(tmp_path)), 1, "is not empty: name a folder that is not there yet"),
        ((str(nano), "--to", str(tmp_path / "x")), 1, "is no folder"),
        ((str(tmp_path / "none"), "--to", str(tmp_path / "y")), 3, "there is no model and no folder"),
        ((str(nano),), 2, "--to"),
    ):
        result = gptoss("convert", *arguments)
        assert result.status == status
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]
