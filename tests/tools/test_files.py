"""list_dir, read_file and grep_files."""

import json
import time
from pathlib import Path

import pytest

from gptoss.cli.session.events import ToolCall
from gptoss.cli.tools.files.tool import FilesTool
from gptoss.cli.tools.tool import ToolInputError
from gptoss.cli.tools.workspace import Workspace


@pytest.fixture
def workspace(tmp_path) -> Path:
    for name, text in {
        "README.md": "# Title\n\nsome text\n",
        "src/main.py": "def main():\n    return 'needle'\n",
        "src/.gitignore": "*.log\n!kept.log\n",
        "src/x.log": "needle\n",
        "src/kept.log": "needle here too\n",
        "build/out.txt": "needle\n",
        "node/build/x.txt": "needle\n",
        ".gitignore": "/build/\n",
        ".env": "SECRET=needle\n",
        ".git/config": "needle\n",
        "binary.bin": "needle\0",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def run(folder: Path, name: str, **arguments) -> str:
    call = FilesTool(Workspace(folder)).prepare(ToolCall(f"functions.{name}", json.dumps(arguments)), ())
    with pytest.raises(StopIteration) as ending:
        next(call.run())
    return ending.value.value.text


def test_tree_follows_gitignore(workspace) -> None:
    assert run(workspace, "list_dir").split("\n") == [
        ".env (14 bytes)",
        ".gitignore (8 bytes)",
        "README.md (19 bytes)",
        "binary.bin (7 bytes)",
        "node/",
        "  build/",
        "src/",
        "  .gitignore (16 bytes)",
        "  kept.log (16 bytes)",
        "  main.py (32 bytes)",
    ]
    assert run(workspace, "list_dir", path="src") == ".gitignore (16 bytes)\nkept.log (16 bytes)\nmain.py (32 bytes)"
    assert run(workspace, "list_dir", path="nowhere") == "nowhere: No such file or directory"
    assert "outside of the workspace" in run(workspace, "list_dir", path="..")


def test_lines_have_numbers(workspace) -> None:
    assert run(workspace, "read_file", path="src/main.py") == "L1: def main():\nL2:     return 'needle'"
    assert run(workspace, "read_file", path="README.md", offset=2, limit=1) == "L2: \n[1 more lines, from line 3 on]"
    assert run(workspace, "read_file", path="README.md", offset=9) == "README.md: has 3 lines"
    assert "keys and passwords" in run(workspace, "read_file", path=".env")
    assert run(workspace, "read_file", path="binary.bin") == "binary.bin: no text"


def test_search_leaves_out_ignored_secret_and_binary_files(workspace) -> None:
    found = run(workspace, "grep_files", pattern="need[l]e")
    assert found.split("\n") == [
        "node/build/x.txt:1: needle",
        "src/kept.log:1: needle here too",
        "src/main.py:2:     return 'needle'",
    ]
    assert run(workspace, "grep_files", pattern="needle", include="*.py") == "src/main.py:2:     return 'needle'"
    assert run(workspace, "grep_files", pattern="needle", path="src/main.py") == "src/main.py:2:     return 'needle'"
    assert run(workspace, "grep_files", pattern="nothing") == "[No match in 6 files.]"
    assert run(workspace, "grep_files", pattern="(") == "pattern: missing ), unterminated subpattern at position 0"


def test_pattern_that_takes_for_ever_is_ended(workspace, monkeypatch) -> None:
    monkeypatch.setattr("gptoss.cli.tools.files.tool._GREP_S", 0.3)
    (workspace / "a.txt").write_text("a" * 64 + "b\n")
    began = time.monotonic()
    assert "the pattern is too slow" in run(workspace, "grep_files", pattern="(a|a)*$")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object, not a list"),
        ("{}", "'path' is a required property"),
        ('{"path": 1}', "path: 1 is not of type 'string'"),
        ('{"path": "a", "lines": 3}', "'lines' was unexpected"),
        ('{"path": "a", "limit": 0}', "limit: 0 is less than the minimum of 1"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(workspace, text, message) -> None:
    if text == "{":
        text = "{path: 1"
    with pytest.raises(ToolInputError, match=message):
        FilesTool(Workspace(workspace)).prepare(ToolCall("functions.read_file", text), ())


@pytest.mark.parametrize(
    "text", ['```json\n{"path": "README.md"}\n```', '{"path": "README.md"', ' {"path":"README.md"}\n']
)
def test_slips_with_one_reading_are_repaired(workspace, text) -> None:
    call = FilesTool(Workspace(workspace)).prepare(ToolCall("functions.read_file", text), ())
    assert call.argument == 'read_file {"path": "README.md"}'
