"""What Tab offers."""

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from gptoss.cli.line.completion import CommandCompleter
from gptoss.cli.slash.table import TABLE
from gptoss.cli.startup.completions import model_names


@pytest.fixture
def complete(tmp_path):
    (tmp_path / "talk.md").touch()
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "config.json").touch()
    (tmp_path / "models" / "owner" / "theirs").mkdir(parents=True)
    (tmp_path / "models" / "owner" / "theirs" / "config.json").touch()
    completer = CommandCompleter(TABLE, lambda: model_names(tmp_path / "models"))

    def run(text: str) -> list[str]:
        text = text.replace("TMP", str(tmp_path))
        return [each.text for each in completer.get_completions(Document(text), CompleteEvent())]

    return run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/", list(TABLE)),
        ("/e", ["/effort", "/edit", "/export", "/exit"]),
        ("/effort ", ["none", "low", "medium", "high"]),
        ("/retry h", ["high"]),
        ("/retry 7 l", ["low"]),
        ("/reasoning f", ["fold"]),
        ("/model na", ["nano"]),
        ("/model mi", ["mine"]),
        ("/model owner/", ["owner/theirs"]),
        ("/model 1", ["120b"]),
        ("/model TMP/", ["models"]),
        ("/file TMP/ta", ["lk.md"]),
        ("/export TMP/ta", ["lk.md"]),
        ("/copy ", ["code", "command"]),
        ("/undo ", []),
        ("/zzz ", []),
        ("hello /e", []),
        (" /e", []),
        ("/effort\n", []),
        ("", []),
    ],
)
def test_completions(complete, text, expected) -> None:
    assert complete(text) == expected


def test_commands_come_with_their_meanings() -> None:
    completer = CommandCompleter(TABLE, list)
    found = list(completer.get_completions(Document("/und"), CompleteEvent()))
    assert found[0].display_meta_text == TABLE["/undo"].summary
