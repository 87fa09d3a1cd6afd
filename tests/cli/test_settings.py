"""A flag over an environment variable over the config file over the default; and errors that name the place."""

import os
from pathlib import Path

import pytest

from gptoss.cli.base.errors import SettingsError
from gptoss.cli.base.settings import Effort, Folders, ReasoningView, Settings, load_settings


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"

    def write(text: str | bytes) -> Path:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_defaults(tmp_path) -> None:
    assert load_settings({}, {}, tmp_path / "none.toml") == Settings()


def test_order(config) -> None:
    path = config('model = "file"\neffort = "low"\nseed = 1\ntemperature = 0\nreasoning = "hide"\n')
    variables = {"GPTOSS_MODEL": "variable", "GPTOSS_EFFORT": "high"}
    settings = load_settings({"model": "flag", "effort": None}, variables, path)
    assert settings == Settings(model="flag", effort=Effort.HIGH, seed=1, temperature=0.0, reasoning=ReasoningView.HIDE)


def test_empty_variable_is_as_good_as_none(tmp_path) -> None:
    assert load_settings({}, {"GPTOSS_MODEL": "", "GPTOSS_EFFORT": ""}, tmp_path / "none") == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\nmodle = "nano"\n', "{path}, line 2: unknown key 'modle': did you mean 'model'?"),
        ("zzz = 1\n", "{path}, line 1: unknown key 'zzz': known are model, effort, "),
        ('effort = "huge"\n', "{path}, line 1: effort is 'huge', it must be one of none, low, medium, high"),
        ("temperature = -1\n", "{path}, line 1: temperature is -1, it must be a number, 0 or more"),
        ("temperature = nan\n", "{path}, line 1: temperature is nan, it must be a number, 0 or more"),
        ("top_p = 0\n", "{path}, line 1: top_p is 0, it must be a number above 0 and at most 1"),
        ("max_tokens = true\n", "{path}, line 1: max_tokens is True, it must be a whole number, 1 or more"),
        ("max_tokens = 1.5\n", "{path}, line 1: max_tokens is 1.5, it must be a whole number, 1 or more"),
        ('model = ""\n', "{path}, line 1: model is '', it must be the name or the folder of a model"),
        ("[model]\nname = 1\n", "{path}, line 1: model is {{'name': 1}}, it must be the name"),
        ("model = \n", "{path}: not TOML: Invalid value (at line 1, column 9)"),
        (b"model = '\xff'\n", "{path}: not TOML: 'utf-8' codec can't decode byte 0xff"),
        ('"\x1b[2J" = 1\n'.replace("\x1b", "\\u001b"), "{path}: unknown key '\u241b[2J'"),
    ],
)
def test_config_errors_name_the_place(config, text, message) -> None:
    path = config(text)
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {}, path)
    assert str(caught.value).startswith(message.format(path=path))
    assert "\n" not in str(caught.value)


NO_FILES = [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")]


@pytest.mark.parametrize("make", NO_FILES, ids=["pipe", "folder", "device"])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["ask", "Hi"], 2), (["config", "get"], 2), (["config", "set", "effort", "low"], 1)],
)
def test_config_that_is_no_file_is_neither_waited_for_nor_read(gptoss, tmp_path, make, arguments, status) -> None:
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir()
    make(config)
    result = gptoss(*arguments)
    assert (result.status, result.stdout) == (status, "")
    assert result.stderr == f"gptoss: cannot read {config}: it is not a regular file\n"


@pytest.mark.parametrize("arguments", [["config", "get"], ["config", "set", "effort", "low"]])
def test_config_that_is_too_large(gptoss, tmp_path, arguments) -> None:
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir()
    config.write_text("#" * (1 << 20))
    assert gptoss("config", "get").status == 0
    config.write_text("#" * ((1 << 20) + 1))
    result = gptoss(*arguments)
    assert (result.status, result.stderr) == (2, f"gptoss: {config}: larger than 1 MiB: it is no config file\n")


@pytest.mark.parametrize(
    ("flag", "value", "wanted"),
    [
        ("--threads", "100000", "a whole number from 1 to 1024"),
        ("--cache-gb", "inf", "a number above 0, 1,000,000 at most"),
        ("--context-gb", "2000000", "a number above 0, 1,000,000 at most"),
        ("--temperature", "inf", "a number, 0 or more"),
        ("--top-p", "0.0", "a number above 0 and at most 1"),
        ("--device", "gpu", "one of auto, cpu, cuda, mps"),
        ("--system", "\udcff", "text in UTF-8"),
        ("--model", "", "the name or the folder of a model"),
    ],
)
def test_flag_with_a_wrong_value_is_refused_before_the_model_is_loaded(gptoss, flag, value, wanted) -> None:
    result = gptoss("ask", flag, value, "Hi", load=None)
    name = "instructions" if flag == "--system" else flag.strip("-").replace("-", "_")
    assert result.status == 2
    assert result.stderr.startswith(f"gptoss: the command line: {name} is ")
    assert result.stderr.endswith(f", it must be {wanted}\n")


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:1"])
def test_devices(tmp_path, device) -> None:
    assert load_settings({"device": device}, {}, tmp_path / "none").device == device


def test_empty_instructions_on_the_command_line_leave_out_those_of_the_file(config) -> None:
    assert load_settings({"instructions": ""}, {}, config('instructions = "Be brief."\n')).instructions == ""


def test_byte_order_mark_is_no_setting(config) -> None:
    assert load_settings({}, {}, config('\ufeffmodel = "nano"\n')).model == "nano"


def test_variable_with_a_wrong_value(tmp_path) -> None:
    with pytest.raises(SettingsError, match="environment variable GPTOSS_EFFORT: effort is 'x', it must be one of"):
        load_settings({}, {"GPTOSS_EFFORT": "x"}, tmp_path / "none")


def test_a_config_error_is_status_2(gptoss, tmp_path) -> None:
    home = tmp_path / "other"
    home.mkdir()
    (home / "config.toml").write_text("effort = 3\n")
    result = gptoss("ask", "Hi", "--home", str(home))
    assert result.status == 2
    assert result.stderr == (
        f"gptoss: {home}/config.toml, line 1: effort is 3, it must be one of none, low, medium, high\n"
    )


def test_folders_of_one_home() -> None:
    home = Folders(Path("/h/config.toml"), Path("/h/models"), Path("/h/state"), Path("/h/cache"), Path("/hub"))
    assert Folders.locate({"GPTOSS_HOME": "/h", "HF_HUB_CACHE": "/hub"}) == home
    assert Folders.locate({"GPTOSS_HOME": "/other", "HF_HUB_CACHE": "/hub"}, Path("/h")) == home


def test_folders_of_the_platform() -> None:
    folders = Folders.locate({})
    assert folders.config.name == "config.toml"
    assert {folders.config.parent.name, folders.models.parent.name, folders.state.name, folders.cache.name} == {
        "gptoss"
    }
