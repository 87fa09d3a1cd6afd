"""What the shells complete: commands, options, and the names of what is there."""

import json
import os
import shutil
import subprocess
import sys

import pexpect
import pytest

from gptoss.cli.conversations.store import Store
from gptoss.cli.startup import completions
from gptoss.harmony import Conversation, Message


@pytest.fixture
def program(tmp_path) -> str:
    """A folder with `gptoss` in it."""
    path = tmp_path / "bin" / "gptoss"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gptoss.cli "$@"\n')
    path.chmod(0o755)
    return str(path.parent)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gptoss ses", "sessions"),
        ("gptoss ask --overf", "--overflow"),
        ("gptoss sessions exp", "export"),
        ("gptoss ask -m nan", "nano"),
        ("gptoss show min", "mine"),
        ("gptoss chat --session gre", "greeting"),
        ("gptoss sessions show 202", "20260314-092600-"),
        ("gptoss sessions delete gre", "greeting"),
        ("gptoss config set temp", "temperature"),
        ("gptoss ask --template trans", "translate"),
        ("gptoss templates show trans", "translate"),
    ],
)
def test_bash_completes(tmp_path, create, words, expected) -> None:
    create(name="greeting")
    create(Conversation.of(Message.user("Name three rivers.")))
    for path in ("templates/translate.md", "models/mine/config.json"):
        (tmp_path / "home" / path).parent.mkdir(parents=True)
        (tmp_path / "home" / path).write_text("{}")
    variables = {
        "_GPTOSS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "GPTOSS_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "gptoss.cli"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=30)
    (found,) = done.stdout.split()
    assert (done.returncode, done.stderr) == (0, "")
    assert found.startswith(expected)


def test_shell_is_given_nothing_that_it_would_obey(create, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GPTOSS_HOME", str(tmp_path / "home"))
    hostile = "\\$(touch x) `y` 'z' \"; w: !1"
    create(Conversation.of(Message.user(hostile)), name=hostile)
    create(name="a b")
    create(name="two")
    (tmp_path / "home" / "models" / hostile).mkdir(parents=True)
    (tmp_path / "home" / "models" / hostile / "config.json").touch()
    ids = [log.saved.id for log in Store(tmp_path / "home" / "conversations", None).readable()]
    assert [name for name, _ in completions.conversations("")] == ["two", *ids[1:]]
    told = "".join(title for _, title in completions.conversations(""))
    assert not set(told) & set("\\$()`'\";:!")
    assert hostile not in completions.models("")
    (tmp_path / "home" / "mcp.json").write_text(json.dumps({"mcpServers": {hostile: {}, "time": {}, "git": {}}}))
    assert completions.mcp_servers("") == ["time", "git"]
    (tmp_path / "home" / "mcp.json").write_text("[")
    assert completions.mcp_servers("t") == []


def test_home_that_cannot_be_read_completes_to_nothing(tmp_path) -> None:
    (tmp_path / "home").write_text("in the way")
    variables = {"_GPTOSS_COMPLETE": "complete_bash", "COMP_WORDS": "gptoss sessions show x", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "gptoss.cli"],
        env=os.environ | variables | {"GPTOSS_HOME": str(tmp_path / "home")},
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"", b"")


SHELLS = {
    "bash": (["--norc", "-i"], 'eval "$(gptoss completion bash)"'),
    "zsh": (["-f", "-i"], 'autoload -Uz compinit; compinit -u -D; eval "$(gptoss completion zsh)"'),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_the_shell_itself(tmp_path, program, shell) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not there")
    arguments, setting_up = SHELLS[shell]
    variables = {"PATH": f"{program}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm", "PS1": "now: "}
    at = pexpect.spawn(shell, arguments, env=variables, encoding="utf-8", dimensions=(24, 100), timeout=30)
    try:
        at.expect("now: ")
        at.send(f"{setting_up}; PS1='then: '\r")
        at.expect("then: ")
        at.send("gptoss sess\t")
        at.expect("ions")
        at.send("exp\t")
        at.expect("ort")
    finally:
        at.close(force=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not there")
def test_fish_completes(tmp_path, program) -> None:
    done = subprocess.run(
        ["fish", "--no-config", "-c", 'gptoss completion fish | source; complete -C "gptoss sessions exp"'],
        env={"PATH": f"{program}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split()[0] == "export"


@pytest.mark.parametrize(("shell", "beginning"), [("zsh", "#compdef gptoss"), ("fish", "complete --command gptoss")])
def test_other_shells_have_scripts(gptoss, shell, beginning) -> None:
    assert gptoss("completion", shell).stdout.startswith(beginning)
