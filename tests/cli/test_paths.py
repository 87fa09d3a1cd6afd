"""Options and arguments that are paths."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["ask", "Hi", "--home", ""], "--home"),
        (["ask", "Hi", "--home="], "--home"),
        (["sessions", "list", "--home", ""], "--home"),
        (["ask", "-f", ""], "-f' / '--file"),
        (["ask", "-f", "-", "-f", ""], "-f' / '--file"),
        (["ask", "Hi", "--policy", ""], "--policy"),
        (["ask", "Hi", "--reasoning-file", ""], "--reasoning-file"),
        (["ask", "--batch", ""], "--batch"),
        (["ask", "--batch", "-", "--results", ""], "--results"),
        (["pull", "20b", "--to", ""], "--to"),
        (["sessions", "import", ""], "FILE"),
        (["sessions", "export", "x", ""], "FILE"),
    ],
)
def test_empty_path_is_not_the_working_directory(gptoss, reply, tmp_path, monkeypatch, arguments, option) -> None:
    monkeypatch.chdir(tmp_path)
    result = gptoss(*arguments, stdin=b'"Hi"', completions=[reply("A")])
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr == f"gptoss: Invalid value for '{option}': it is empty where a path belongs\n"
    assert list(tmp_path.iterdir()) == []


def test_empty_variable_of_the_home_is_as_good_as_none(gptoss, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "platform"))
    result = gptoss("config", "path", variables={"GPTOSS_HOME": ""})
    assert (result.status, result.stdout) == (0, f"{tmp_path}/platform/gptoss/config.toml\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["ask", "Hi", "--reasoning-file", "-"],
            "--reasoning-file is a file: --reasoning show writes the reasoning to standard error",
        ),
        (
            ["ask", "--batch", "-", "--results", "-"],
            "--results is a file: without it the answers go to standard output",
        ),
    ],
)
def test_dash_is_no_file_to_write(gptoss, reply, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    result = gptoss(*arguments, stdin=b'"Hi"', completions=[reply("A")])
    assert (result.status, result.stdout, result.stderr) == (2, "", f"gptoss: {message}\n")
    assert list(tmp_path.iterdir()) == []
