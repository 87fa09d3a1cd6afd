"""Other programs, unmodified, against a server whose model says what a script says: turns, a call, a schema, an error.

They are installed by npm and pip, so these tests are long.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from serving_in_thread import Running, serve

from gptoss.cli.session.options import SessionModel
from gptoss.harmony import Encoding

pytestmark = pytest.mark.long

CODEX, OPENCODE, LLM = "@openai/codex@0.169.0", "opencode-ai", "llm==0.36"
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer"}},
    "required": ["age"],
    "additionalProperties": False,
}


def final(text: str) -> str:
    return f"<|channel|>final<|message|>{text}<|return|>"


def call(name: str, reasoning: str = "I look.", **arguments: Any) -> str:
    header = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
    thought = f"<|channel|>analysis<|message|>{reasoning}<|end|><|start|>assistant"
    return f"{thought}{header}{json.dumps(arguments)}<|call|>"


@dataclass
class Script:
    """A server and its model; `prompts` are those of conversations, without the titles that opencode asks for."""

    running: Running
    encoding: Encoding
    engine: Any
    folder: Path

    def says(self, *completions: str) -> None:
        self.engine.completions = [self.encoding.encode_with_special(text) for text in completions]

    @property
    def prompts(self) -> list[str]:
        return [text for ids in self.engine.prompts if "# Tools" in (text := self.encoding.decode(ids))]

    def run(self, *command: str, status: int | None = 0, **variables: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **variables}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )
        assert status in (None, done.returncode), done.stdout
        return done.stdout


@pytest.fixture
def script(scripted: ModuleType, tmp_path: Path) -> Iterator[Callable[..., Script]]:
    encoding = Encoding.o200k_harmony()

    class Engine(scripted.ScriptedEngine):  # type: ignore[name-defined,misc]
        def generate(self, request: Any, progress: Any = None) -> Any:
            if "# Tools" not in encoding.decode(request.ids) and "title" in encoding.decode(request.ids):
                self.completions.insert(0, encoding.encode_with_special(final("A title")))
            return super().generate(request, progress)

    engine = Engine([], max_context=24_000, vocabulary=encoding.vocab_size, stop_tokens=encoding.stop_tokens)
    with serve(SessionModel("gpt-oss-20b", engine, encoding)) as running:
        yield Script(running, encoding, engine, tmp_path)


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Install a package by npm; the folder of its programs."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not there")
    folder = tmp_path_factory.mktemp("npm")

    def install(package: str) -> Path:
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--silent", package], cwd=folder, timeout=300, check=False
        )
        if done.returncode:
            pytest.skip(f"npm cannot install {package}")
        return folder / "node_modules" / ".bin"

    return install


def test_codex(script: Script, npm) -> None:
    codex = str(npm(CODEX) / "codex")
    url = f"{script.running.url}/v1"

    def ask(*words: str, status: int | None = 0) -> str:
        options = ["--skip-git-repo-check", "--oss", "--local-provider", "ollama", "-m", "gpt-oss:20b"]
        return script.run(codex, "exec", *options, *words, status=status, CODEX_OSS_BASE_URL=url)

    script.says(call("exec_command", cmd="echo from-the-tool"), final("It said so."))
    said = ask("say hi by the tool")
    assert "It said so." in said
    one, two = script.prompts
    assert "Process exited with code" in two  # with which depends on whether its sandbox works here
    assert two.startswith(one + call("exec_command", cmd="echo from-the-tool"))
    script.says(final("A second answer."))
    assert "A second answer." in ask("resume", "--last", "and again")
    assert "It said so." in script.prompts[-1]
    schema = script.folder / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    script.says(final('{"age": 5}'))
    assert '{"age": 5}' in ask("--output-schema", str(schema), "invent")
    assert "# Response Formats" in script.prompts[-1]
    script.says(final("Not reached."))
    assert "context window" in ask("nine " * 20_000, status=None).lower()
    statuses = {(each.route, each.status) for each in script.running.seen}
    assert {("/api/version", 200), ("/api/tags", 200), ("/v1/responses", 200)} <= statuses
    assert script.running.complaints == []


def test_llm(script: Script, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("llm")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    installed = subprocess.run([folder / "bin" / "pip", "install", "-q", LLM], timeout=300, check=False)
    if installed.returncode:
        pytest.skip("pip cannot install llm")
    (script.folder / "extra-openai-models.yaml").write_text(
        f"- model_id: gptoss\n  model_name: gpt-oss-20b\n  api_base: {script.running.url}/v1\n"
        "  supports_tools: true\n  supports_schema: true\n"
        f"- model_id: other\n  model_name: other\n  api_base: {script.running.url}/v1\n"
    )

    def ask(*words: str, model: str = "gptoss", status: int = 0) -> str:
        variables = {"LLM_USER_PATH": str(script.folder), "OPENAI_API_KEY": "unused"}
        return script.run(str(folder / "bin" / "llm"), "-m", model, *words, status=status, **variables)

    script.says(final("First."), final("Second."))
    assert ask("hello") == "First.\n"
    assert ask("-c", "again") == "Second.\n"
    script.says(call("llm_version"), final("That version."))
    assert "That version." in ask("-T", "llm_version", "which version?")
    one, two = script.prompts[-2:]
    assert two.startswith(one + call("llm_version"))  # the reasoning too, which llm drops
    script.says(final('{"name": "Ann", "age": 5}'))
    assert json.loads(ask("--schema", "name, age int", "invent")) == {"name": "Ann", "age": 5}
    assert "'other' is not served here" in ask("hello", model="other", status=1)
    assert script.running.complaints == []


def test_opencode(script: Script, npm) -> None:
    opencode = str(npm(OPENCODE) / "opencode")
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{script.running.url}/v1"},
        "models": {"gpt-oss-20b": {}, "other": {}},
    }
    (script.folder / "opencode.json").write_text(
        json.dumps({"provider": {"gptoss": provider}, "autoupdate": False, "permission": {"bash": "allow"}})
    )

    def ask(*words: str, model: str = "gpt-oss-20b", status: int | None = 0) -> str:
        return script.run(opencode, "run", "-m", f"gptoss/{model}", *words, status=status)

    script.says(call("bash", command="echo from-the-tool", description="Says hi"), final("It said so."))
    said = ask("say hi by the tool")
    assert "It said so." in said
    assert "from-the-tool" in script.prompts[1]
    assert "I look." in script.prompts[1]
    script.says(final("A second answer."))
    assert "A second answer." in ask("--continue", "and again")
    assert "It said so." in script.prompts[-1]
    assert "is not served here" in ask("hello", model="other", status=None)
    assert script.running.complaints == []
