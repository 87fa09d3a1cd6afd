"""`-m URL` and `gptoss remote`: a model on a server, on the command line."""

import json
import os
import subprocess
import sys

import pytest
from completions_server import Mistake

QUESTION = "What is 347 + 85?"
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"sum": {"enum": [432, 7]}},
        "required": ["sum"],
        "additionalProperties": False,
    }
)


def test_ask_answers_as_with_the_model_here(gptoss_run, server) -> None:
    remote = gptoss_run("ask", "-m", server.url, "--json", "--temperature", "0", QUESTION)
    local = gptoss_run("ask", "-m", "nano", "--json", "--temperature", "0", QUESTION)
    assert (remote.status, remote.stderr) == (0, "")
    mine, other = json.loads(remote.stdout), json.loads(local.stdout)
    for each in (mine, other):
        for name in ("model", "timing", "session", "seed"):
            del each[name]
        del each["usage"]["cached_tokens"]
    assert mine == other


def test_a_schema_holds(gptoss_run, server) -> None:
    for server.obeys in (True, False):
        result = gptoss_run("ask", "-m", server.url, "--schema", SCHEMA, "--temperature", "0", QUESTION)
        assert result.status == 0
        assert json.loads(result.stdout)["sum"] in (432, 7)


def test_chat_goes_on_in_a_saved_conversation(gptoss_run, server) -> None:
    assert gptoss_run("chat", "-m", server.url, stdin="What is 3 + 4?\n").status == 0
    assert gptoss_run("ask", "-c", "-m", server.url, "And 5 + 6?").status == 0
    assert len(server.requests[1]["prompt"]) > len(server.requests[0]["prompt"]) + 10


def test_a_server_by_name_with_a_key(gptoss_run, server, tmp_path) -> None:
    key = tmp_path / "key"
    key.write_text("k-123\n")
    key.chmod(0o600)
    assert gptoss_run("remote", "add", "lab", server.url, "--key-file", str(key)).status == 0
    assert gptoss_run("ask", "-m", "lab", QUESTION).status == 0
    assert gptoss_run("ask", "-m", f"{server.url}/v1#nano", QUESTION).status == 0
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer k-123"] * 2
    listed = gptoss_run("remote", "list").stdout
    assert listed == f"lab  {server.url}  key in {key}\n"
    assert "k-123" not in listed + (tmp_path / "home/remotes.json").read_text()
    assert gptoss_run("remote", "rm", "lab").status == 0
    assert gptoss_run("remote", "list", "--json").stdout == ""
    assert gptoss_run("ask", "-m", "lab", QUESTION).status == 3


def test_the_key_of_the_environment_goes_to_servers_that_were_added_alone(gptoss_run, server) -> None:
    assert gptoss_run("ask", "-m", server.url, QUESTION, GPTOSS_REMOTE_KEY="secret").status == 0
    assert "Authorization" not in server.headers[0]
    gptoss_run("remote", "add", "lab", server.url)
    assert gptoss_run("ask", "-m", "lab", QUESTION, GPTOSS_REMOTE_KEY="secret").status == 0
    assert server.headers[1]["Authorization"] == "Bearer secret"


def test_a_key_never_goes_over_the_network_unencrypted(gptoss_run, tmp_path) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o600)
    gptoss_run("remote", "add", "far", "http://192.0.2.1:8000", "--key-file", str(key))
    result = gptoss_run("ask", "-m", "far", QUESTION)
    assert result.status == 1
    assert "the key for http://192.0.2.1:8000 would go over the network unencrypted" in result.stderr


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_key_that_others_can_read_is_refused(gptoss_run, server, tmp_path, mode) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(mode)
    gptoss_run("remote", "add", "lab", server.url, "--key-file", str(key))
    result = gptoss_run("ask", "-m", "lab", QUESTION)
    assert result.status == 1
    assert "can be read by other users: chmod 600" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "20b", "http://h"), "20b is the name of a model"),
        (("add", "a/b", "http://h"), "is no name for a server"),
        (("add", "lab", "h:8000"), "is no address"),
        (("rm", "lab"), "no server is called lab"),
    ],
)
def test_wrong_usage_of_remote(gptoss_run, arguments, says) -> None:
    result = gptoss_run("remote", *arguments)
    assert (result.status, result.stdout) == (2, "")
    assert says in result.stderr


def test_no_server_and_no_model(gptoss_run, server) -> None:
    result = gptoss_run("ask", "-m", "http://127.0.0.1:1", QUESTION)
    assert (result.status, result.stderr) == (3, "gptoss: http://127.0.0.1:1 cannot be reached: Connection refused\n")
    result = gptoss_run("ask", "-m", f"{server.url}#other", QUESTION)
    assert (result.status, result.stdout) == (3, "")
    assert result.stderr == f"gptoss: {server.url} has no model 'other'; it serves 'nano'\n"
    result = gptoss_run("ask", "-m", "http://u:p@h", QUESTION)
    assert (result.status, "p@" in result.stderr) == (3, False)


def test_settings_that_have_no_effect_there_are_said(gptoss_run, server) -> None:
    result = gptoss_run("ask", "-m", server.url, "--threads", "2", "--dense", "bf16", QUESTION)
    assert result.status == 0
    assert result.stderr == "gptoss: --threads, --dense: of no effect, the model is on a server\n"


def test_a_context_longer_than_the_servers_is_refused(gptoss_run, server) -> None:
    result = gptoss_run("ask", "-m", server.url, "--ctx", "100000", QUESTION)
    assert result.status == 2
    assert "the server holds" in result.stderr


def test_another_vocabulary_is_refused(gptoss_run, server) -> None:
    server.name = "gpt-oss-20b"  # so the vocabulary should be o200k
    server.tokenizes = [1, 2, 3]
    result = gptoss_run("ask", "-m", server.url, QUESTION)
    assert result.status == 3
    assert "has another vocabulary than o200k_harmony" in result.stderr


def test_a_failure_in_the_middle_of_an_answer_keeps_what_was_said(gptoss_run, server, tmp_path) -> None:
    server.mistakes.append(Mistake(after=30, event='{"error": {"message": "EngineCore died"}}'))
    result = gptoss_run("ask", "-m", server.url, QUESTION)
    assert result.status == 3
    assert result.stderr.endswith("failed: EngineCore died\n")
    (saved,) = (tmp_path / "home/conversations").rglob("*.jsonl")
    assert QUESTION in saved.read_text()


def test_no_torch_is_imported(server, tmp_path) -> None:
    program = "import sys; from gptoss.cli.app import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    command = [
        sys.executable,
        "-c",
        program,
        "ask",
        "-m",
        server.url,
        "--schema",
        SCHEMA,
        "--temperature",
        "0",
        QUESTION,
    ]
    environment = os.environ | {"GPTOSS_HOME": str(tmp_path)}
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    answer, imported = ended.stdout.rstrip().rsplit("\n", 1)
    assert json.loads(answer)["sum"] in (432, 7)
    assert imported == "False"


def test_bench_measures_a_server(gptoss_run, server) -> None:
    sizes = ("--prompt-tokens", "20", "--gen-tokens", "6", "-r", "2")
    result = gptoss_run("bench", "-m", server.url, *sizes, "--parallel", "3", "--json")
    assert (result.status, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert (told["prompt_tokens"], told["gen_tokens"], told["parallel"]) == (20, 6, 3)
    assert len(told["first_token_s"]) == 2
    assert min(*told["first_token_s"], told["decode_tokens_per_s"], told["throughput_tokens_per_s"]) > 0
    beginnings = [tuple(sent["prompt"][:4]) for sent in server.requests]
    assert len(set(beginnings)) == len(server.requests) == 6
    text = gptoss_run("bench", "-m", server.url, *sizes).stdout
    assert [line.split()[0] for line in text.splitlines()] == ["model", "first", "decode"]
    assert gptoss_run("bench", "-m", server.url, "--prompt-tokens", "9000").status == 2
    assert "--parallel is for models on a server" in gptoss_run("bench", "-m", "nano", "--parallel", "2").stderr
    server.mistakes.extend([None, None, Mistake(after=2, cut=True)])
    assert gptoss_run("bench", "-m", server.url, *sizes).status == 3
