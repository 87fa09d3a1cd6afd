"""Which server a value of `--mcp` and an entry of a file mean, and where their keys go."""

import json
import sys
from pathlib import Path

import pytest

from gptoss.cli.base.errors import CliError, InputError, UsageError
from gptoss.cli.tools.mcp.servers import Server, servers_of

KEY = "sk-0123456789"


@pytest.fixture
def one(tmp_path):
    """The one server that a value of `--mcp` means, with these entries in the file of servers."""

    def read(chosen: str, variables: dict | None = None, **entries) -> Server:
        path = tmp_path / "mcp.json"
        if entries:
            path.write_text(json.dumps({"mcpServers": entries}))
        (server,) = servers_of(chosen, path, variables or {})
        return server

    return read


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        (f"{sys.executable} -m mcp_server_time --zone 'a b'", "mcp_server_time"),
        (f"clock={sys.executable} x.py", "clock"),
        (f"{sys.executable} folder/my-server.py", "my_server"),
        ("https://mcp.example.com/mcp", "mcp_example_com"),
        ("docs=https://mcp.example.com/mcp", "docs"),
    ],
)
def test_command_and_address_have_names(one, chosen, name) -> None:
    server = one(chosen)
    assert server.name == name
    assert (server.url is None) == ("https" not in chosen)


def test_command_is_split_as_a_shell_splits_it_and_no_shell_reads_it(one) -> None:
    assert one(f"{sys.executable} -c 'a b; $(x)'").command == (sys.executable, "-c", "a b; $(x)")


def test_entry_of_the_common_form(one, tmp_path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    entry = {
        "command": sys.executable,
        "args": ["-m", "x", "${ZONE:-UTC}"],
        "env": {"A": "${env:HOME_TOWN}", "API_KEY": "${file:key}"},
        "cwd": str(tmp_path),
        "tools": ["get_*"],
        "seconds": 5,
        "autoApprove": ["*"],
    }
    server = one("clock-1", {"HOME_TOWN": "Ulm"}, **{"clock-1": entry})
    assert server.name == "clock_1"
    assert server.command == (sys.executable, "-m", "x", "UTC")
    assert server.variables == {"A": "Ulm", "API_KEY": KEY}
    assert (server.folder, server.only, server.seconds) == (tmp_path, ("get_*",), 5)
    assert KEY not in repr(server)
    assert KEY not in server.source


def test_file_of_another_program_is_taken_whole(tmp_path) -> None:
    path = tmp_path / "claude.json"
    path.write_text(
        json.dumps({"servers": {"a": {"url": "https://a/mcp"}, "b": {"url": "https://b"}, "c": {"disabled": True}}})
    )
    assert [each.name for each in servers_of(str(path), tmp_path / "none", {})] == ["a", "b"]


def test_keys_are_not_shown(one) -> None:
    entry = {"url": "https://host/mcp?token=abcdefgh", "headers": {"Authorization": "Bearer ${KEY}"}}
    server = one("a", {"KEY": KEY}, a=entry)
    assert server.headers == {"Authorization": f"Bearer {KEY}"}
    assert not any(secret in f"{server!r} {server.source}" for secret in (KEY, "abcdefgh"))
    assert server.redacted(f"echo Bearer {KEY}, {KEY}, token=abcdefgh") == "echo [key], [key], [key]"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"url": "http://host/mcp", "headers": {"A": "key"}}, "go over https only"),
        ({"url": "https://me:pass@host/mcp"}, "do not belong into an address"),
        ({"url": "ftp://host"}, "begins with https"),
        ({"url": "https://[host"}, "begins with https"),
        ({"url": "https://host", "type": "sse"}, "sse is not supported"),
        ({"url": "https://host", "headers": {"A": "${NOT_SET}"}}, "NOT_SET is not set"),
        ({"url": "https://host", "headers": {"A": "x\r\nB: y"}}, "cannot be sent"),
        ({"url": "https://host", "headers": {"A": "${file:missing}"}}, "cannot read .*missing: No such file"),
        ({}, "needs a command or a url"),
        ({"command": "no-such-program"}, "no program 'no-such-program'"),
        ({"command": sys.executable, "args": "x"}, "args must be a list of texts"),
        ({"command": sys.executable, "env": {"A": 1}}, "env must be an object of texts"),
        ({"command": sys.executable, "cwd": "/none"}, "cwd is no folder"),
        ({"command": sys.executable, "seconds": 0}, "seconds must be a number"),
        ("text", "must be an object"),
    ],
)
def test_entry_that_is_wrong_says_where(one, entry, said) -> None:
    with pytest.raises(InputError, match=f"mcp.json: a.*: .*{said}" if entry != "text" else said):
        one("a", a=entry)


def test_value_that_means_no_server(one, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"neither a server in .*mcp.json nor a program; did you mean 'clock'"):
        one("clok", clock={"url": "https://a"})
    with pytest.raises(UsageError, match="No closing quotation"):
        one("python 'x")
    with pytest.raises(InputError, match="there is no file"):
        one(str(tmp_path / "none.json"))
    (tmp_path / "mcp.json").write_text('{"other": 1}')
    with pytest.raises(InputError, match="key mcpServers"):
        one("clock")


def test_file_that_others_can_change_is_refused(one, tmp_path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"a": {"url": "https://a"}}}')
    path.chmod(0o666)
    with pytest.raises(CliError, match=r"can change|change it"):
        one("a")


def test_empty_value_is_refused() -> None:
    with pytest.raises(UsageError, match="a name, an address or a command"):
        servers_of(" ", Path("/none/mcp.json"), {})
