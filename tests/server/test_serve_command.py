"""`gptoss serve` as a process and as a command line: where it listens, what it says, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from gptoss.cli.app import run
from gptoss.cli.server.listening import ListenError, is_loopback, listen_tcp, listen_unix, remove_socket
from gptoss.cli.startup.environment import Environment


@contextmanager
def started(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "gptoss.cli", "serve", "-m", "nano", *arguments],
        env={"PATH": os.environ["PATH"], "GPTOSS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path) -> None:
    path = tmp_path / "s"
    with started(tmp_path, "--socket", str(path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"unix:{path}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url="http://any-name", timeout=10) as client:
            asked = {"prompt": "1 + 1 is", "max_tokens": 400, "stream": True, "ignore_eos": True}
            with client.stream("POST", "/v1/completions", json=asked) as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("data: ")
                process.send_signal(signal.SIGTERM)  # what runs may finish
                assert [line for line in lines if line][-1] == "data: [DONE]"
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "")
        assert not path.exists()
    assert "nano answers at unix:" in err
    assert "POST /v1/completions 200" in err
    assert "1 + 1" not in err


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
def test_a_thousand_requests_leave_the_memory_as_it_was(tmp_path) -> None:
    path = tmp_path / "s"
    with started(tmp_path, "--socket", str(path), "--no-access-log") as process:
        assert process.stdout is not None
        process.stdout.readline()

        def megabytes() -> float:
            return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://s", timeout=60) as client:
            for number in range(1000):
                if number == 400:
                    before = megabytes()
                asked = {"messages": [{"role": "user", "content": f"What is {number} + 3?"}], "max_tokens": 4}
                tool = {"name": f"f{number}", "parameters": {"properties": {f"x{number}": {"type": "integer"}}}}
                kinds = (
                    ("/v1/completions", {"prompt": f"{number} + 7 is", "max_tokens": 4}),
                    ("/v1/chat/completions", {**asked, "tools": [{"type": "function", "function": tool}]}),
                    ("/v1/chat/completions", {**asked, "stream": True}),
                    ("/v1/responses", {"input": f"What is {number} + 3?", "max_output_tokens": 4}),
                )
                route, body = kinds[number % 4]
                assert client.post(route, json=body).status_code == 200
        assert megabytes() < before + 8


@pytest.fixture
def command(tmp_path: Path):
    def invoke(*arguments: str, **variables: str) -> tuple[int, str]:
        def load(request):
            raise AssertionError("the model is not loaded for that")

        file = tmp_path / "stderr"
        with file.open("w+", encoding="utf-8") as stderr:
            environment = Environment(
                load, stdin=None, stderr=stderr, variables={"GPTOSS_HOME": str(tmp_path / "home"), **variables}
            )
            status = run(["serve", "-m", "nano", *arguments], environment)
        return status, file.read_text(encoding="utf-8")

    return invoke


def test_another_address_needs_a_key(command) -> None:
    status, said = command("--host", "0.0.0.0", "--port", "0")
    assert status == 2
    assert "GPTOSS_API_KEY or --key-file" in said


@pytest.mark.parametrize("key", ["short", "with a blank in it, and long", "\u00e9" * 20])
def test_a_key_that_is_none(command, key) -> None:
    status, said = command("--port", "0", GPTOSS_API_KEY=key)
    assert status == 1
    assert "at least 16 characters" in said
    assert key not in said


def test_a_key_that_others_can_read(command, tmp_path) -> None:
    file = tmp_path / "key"
    file.write_text("a-key-that-is-long-enough\n")
    file.chmod(0o644)
    status, said = command("--port", "0", "--key-file", str(file))
    assert (status, "chmod 600" in said) == (1, True)
    assert "long-enough" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tls-cert", "a.pem"], "belong together"),
        (["--socket", "s", "--tls-cert", "a", "--tls-key", "b"], "exclude each other"),
        (["--host", "no.such.host.invalid"], "set a key"),
        (["--socket", "x" * 200], "longer than 100 bytes"),
    ],
)
def test_wrong_usage(command, arguments, words) -> None:
    status, said = command(*arguments)
    assert (status, words in said) == (2, True)
    assert said.count("\n") == 1


def test_a_certificate_that_is_not_there(command) -> None:
    status, said = command("--port", "0", "--tls-cert", "nowhere.pem", "--tls-key", "nowhere.key")
    assert (status, "nowhere.pem: there is no such file" in said) == (1, True)


def test_an_address_that_is_taken(command) -> None:
    with listen_tcp("127.0.0.1", 0) as listener:
        status, said = command("--port", str(listener.getsockname()[1]))
    assert (status, "in use" in said) == (1, True)


def test_stale_sockets_are_replaced_and_nothing_else_is(tmp_path) -> None:
    path = tmp_path / "s"
    with listen_unix(path), pytest.raises(ListenError, match="a server listens"):
        listen_unix(path)
    assert path.exists()
    with listen_unix(path):
        inode = path.stat().st_ino
        remove_socket(path, inode + 1)
        assert path.exists()
        remove_socket(path, inode)
        assert not path.exists()
    path.write_text("a file")
    with pytest.raises(ListenError, match="no socket"):
        listen_unix(path)
    assert path.read_text() == "a file"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListenError, match="no socket"):
        listen_unix(tmp_path / "link")
    with pytest.raises(ListenError, match="No such file"):
        listen_unix(tmp_path / "nowhere" / "s")


def test_addresses_of_a_name() -> None:
    with listen_tcp("localhost", 0) as listener:
        assert is_loopback(listener.getsockname()[0])


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.3.2.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "box.lan", "")))


def test_help_imports_neither_torch_nor_the_server() -> None:
    program = (
        "import sys; from gptoss.cli.app import run; from gptoss.cli.startup.environment import Environment\n"
        "status = run(['serve', '--help'], Environment(lambda request: None))\n"
        "print(status, sorted({'torch', 'uvicorn', 'starlette', 'asyncio'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stderr == "0 []\n"
    assert "--socket" in done.stdout


def test_the_server_imports_no_tools() -> None:
    program = (
        "import sys; import gptoss.cli.server.serving\n"
        "print([name for name in sys.modules if name.startswith(('gptoss.cli.tools', 'gptoss.cli.sandbox', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.long
def test_tls(tmp_path) -> None:
    if subprocess.run(["openssl", "version"], capture_output=True).returncode:
        pytest.skip("openssl is not there to make a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    wanted = f"req -x509 -newkey rsa:2048 -nodes -days 1 {names}"
    made = ["openssl", *wanted.split(), "-keyout", str(key), "-out", str(cert)]
    subprocess.run(made, check=True, capture_output=True)
    with started(tmp_path, "--port", "0", "--tls-cert", str(cert), "--tls-key", str(key), "--no-access-log") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("https://127.0.0.1:")
        with httpx2.Client(verify=ssl.create_default_context(cafile=cert), trust_env=False) as client:
            assert client.get(url.removesuffix("/v1") + "/health").json() == {"status": "ok"}
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].removesuffix("/v1")))) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert b"200" not in plain.recv(100)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
    assert "GET" not in err
