"""apply_patch: a corpus of patches that apply or are refused whole."""

import os
from pathlib import Path

import pytest

from gptoss.cli.session.events import ToolCall
from gptoss.cli.tools.patch.tool import PatchTool
from gptoss.cli.tools.tool import ToolInputError
from gptoss.cli.tools.workspace import Workspace, WorkspaceError

FILES = {
    "a.py": "import os\n\n\ndef f():\n    return 1\n\n\ndef g():\n    return 1\n",
    "crlf.txt": "one\r\ntwo\r\nthree\r\n",
    "open.txt": "one\ntwo",
    "blanks.txt": "  indented  \nplain\n",
    "quotes.txt": "it\u2019s \u2013 here\n",
    "empty.txt": "",
    "d/deep.txt": "deep\n",
}


@pytest.fixture
def workspace(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_bytes().decode() for path in folder.rglob("*") if path.is_file()}


def patch(*lines: str) -> str:
    return "\n".join(("*** Begin Patch", *lines, "*** End Patch"))


def apply(folder: Path, argument: str, tool: PatchTool | None = None) -> str:
    tool = tool or PatchTool(Workspace(folder))
    with pytest.raises(StopIteration) as ending:
        next(tool.prepare(ToolCall("functions.apply_patch", argument), ()).run())
    return ending.value.value.text


GOOD = {
    "update": (
        patch("*** Update File: a.py", "@@ def g():", "-    return 1", "+    return 2"),
        {"a.py": FILES["a.py"][:-2] + "2\n"},
    ),
    "first of two alike": (
        patch("*** Update File: a.py", "@@", "-    return 1", "+    return 2"),
        {"a.py": FILES["a.py"].replace("1", "2", 1)},
    ),
    "two hunks in order": (
        patch(
            "*** Update File: a.py",
            "@@ def f():",
            "-    return 1",
            "+    return 2",
            "@@ def g():",
            "-    return 1",
            "+    return 3",
        ),
        {"a.py": FILES["a.py"].replace("1", "2", 1).replace("1", "3", 1)},
    ),
    "context": (
        patch("*** Update File: a.py", "@@", " import os", "+import sys", " ", " "),
        {"a.py": FILES["a.py"].replace("import os\n", "import os\nimport sys\n")},
    ),
    "insertion below a header": (
        patch("*** Update File: a.py", "@@ def g():", "+    pass"),
        {"a.py": FILES["a.py"].replace("def g():\n", "def g():\n    pass\n")},
    ),
    "insertion at the end": (
        patch("*** Update File: d/deep.txt", "@@", "+deeper", "*** End of File"),
        {"d/deep.txt": "deep\ndeeper\n"},
    ),
    "end of file": (
        patch("*** Update File: a.py", "@@", "-    return 1", "+    return 9", "*** End of File"),
        {"a.py": FILES["a.py"][:-2] + "9\n"},
    ),
    "no @@ at all": (patch("*** Update File: d/deep.txt", "-deep", "+shallow"), {"d/deep.txt": "shallow\n"}),
    "numbers of a unified diff": (
        patch("*** Update File: d/deep.txt", "@@ -1,1 +1,1 @@", "-deep", "+shallow"),
        {"d/deep.txt": "shallow\n"},
    ),
    "add": (patch("*** Add File: new/x.py", "+a", "+", "+b"), {"new/x.py": "a\n\nb\n"}),
    "add an empty one": (patch("*** Add File: new.txt"), {"new.txt": ""}),
    "delete": (patch("*** Delete File: a.py"), {"a.py": None}),
    "move": (
        patch("*** Update File: d/deep.txt", "*** Move to: e/moved.txt", "@@", "-deep", "+high"),
        {"d/deep.txt": None, "e/moved.txt": "high\n"},
    ),
    "move alone": (
        patch("*** Update File: d/deep.txt", "*** Move to: moved.txt"),
        {"d/deep.txt": None, "moved.txt": "deep\n"},
    ),
    "several files": (
        patch("*** Delete File: a.py", "*** Add File: b.py", "+b", "*** Update File: d/deep.txt", "-deep", "+high"),
        {"a.py": None, "b.py": "b\n", "d/deep.txt": "high\n"},
    ),
    "the same file twice": (
        patch("*** Update File: d/deep.txt", "-deep", "+high", "*** Update File: d/deep.txt", "-high", "+low"),
        {"d/deep.txt": "low\n"},
    ),
    "delete, then add anew": (
        patch("*** Delete File: d/deep.txt", "*** Add File: d/deep.txt", "+new"),
        {"d/deep.txt": "new\n"},
    ),
    "line ends of the file stay": (
        patch("*** Update File: crlf.txt", "@@", " one", "-two", "+2", " three"),
        {"crlf.txt": "one\r\n2\r\nthree\r\n"},
    ),
    "a missing last line end stays missing": (
        patch("*** Update File: open.txt", "@@", " one", "-two", "+2"),
        {"open.txt": "one\n2"},
    ),
    "blanks at the end of lines do not matter": (
        patch("*** Update File: blanks.txt", "@@", "   indented", "-plain", "+fancy"),
        {"blanks.txt": "  indented  \nfancy\n"},
    ),
    "blanks at both ends do not matter": (
        patch("*** Update File: blanks.txt", "@@", " indented", "-plain", "+fancy"),
        {"blanks.txt": "  indented  \nfancy\n"},
    ),
    "typographic signs do not matter": (
        patch("*** Update File: quotes.txt", "@@", " it's - here", "+there"),
        {"quotes.txt": "it\u2019s \u2013 here\nthere\n"},
    ),
    "into an empty file": (patch("*** Update File: empty.txt", "@@", "+text"), {"empty.txt": "text\n"}),
    "all lines gone": (patch("*** Update File: d/deep.txt", "-deep"), {"d/deep.txt": ""}),
    "absolute path within": (None, {"d/deep.txt": "high\n"}),
    "dots within": (patch("*** Update File: ./d/../d/deep.txt", "-deep", "+high"), {"d/deep.txt": "high\n"}),
    "words around": ("Here it is:\n" + patch("*** Delete File: a.py") + "\nDone.", {"a.py": None}),
    "empty lines between files": (
        patch("", "*** Delete File: a.py", "", "*** Update File: d/deep.txt", "-deep", "+high", ""),
        {"a.py": None, "d/deep.txt": "high\n"},
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_patch(workspace, name) -> None:
    text, changes = GOOD[name]
    text = text or patch(f"*** Update File: {workspace.resolve()}/d/deep.txt", "-deep", "+high")
    tool = PatchTool(Workspace(workspace))
    assert apply(workspace, text, tool).startswith("Done!\n")
    wanted = {key: value for key, value in {**FILES, **changes}.items() if value is not None}
    assert contents(workspace) == wanted
    tool.undo()
    assert contents(workspace) == FILES


BAD = {
    "no beginning": "*** Delete File: a.py\n*** End Patch",
    "no end": "*** Begin Patch\n*** Delete File: a.py",
    "nothing": patch(),
    "stray words": patch("delete a.py"),
    "missing file": patch("*** Delete File: a.py", "*** Update File: no.py", "-a", "+b"),
    "missing file to delete": patch("*** Delete File: no.py"),
    "lines that are not there": patch("*** Delete File: a.py", "*** Update File: d/deep.txt", "-nowhere", "+b"),
    "header that is not there": patch("*** Update File: a.py", "@@ def h():", "-    return 1", "+b"),
    "hunks out of order": patch("*** Update File: open.txt", "@@", "-two", "+2", "@@", "-one", "+1"),
    "add over a file": patch("*** Delete File: crlf.txt", "*** Add File: a.py", "+x"),
    "add without plus": patch("*** Add File: b.py", "x"),
    "move over a file": patch("*** Update File: d/deep.txt", "*** Move to: a.py"),
    "move without update": patch("*** Move to: a.py"),
    "update without changes": patch("*** Update File: a.py"),
    "line without a sign": patch("*** Update File: a.py", "@@", "import os"),
    "climbing out": patch("*** Delete File: a.py", "*** Add File: ../x", "+x"),
    "climbing out from below": patch("*** Add File: d/../../x", "+x"),
    "absolute path": patch("*** Add File: /tmp/gptoss-x", "+x"),
    "through a link": patch("*** Add File: link/x", "+x"),
    "a link itself": patch("*** Update File: file-link", "-deep", "+x"),
    "through a file": patch("*** Add File: a.py/x", "+x"),
    "a folder": patch("*** Delete File: d"),
    "git": patch("*** Add File: .git/hooks/pre-commit", "+x"),
    "git in other letters": patch("*** Add File: d/.GIT/config", "+x"),
    "rules of the project": patch("*** Add File: .gptoss.toml", "+x"),
    "keys": patch("*** Add File: d/.env", "+x"),
    "no text": patch("*** Update File: binary", "-a", "+b"),
    "a zero in a path": patch("*** Add File: a\0b", "+x"),
    "the workspace": patch("*** Delete File: ."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_patch_changes_nothing(workspace, tmp_path_factory, name) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (workspace / "link").symlink_to(elsewhere)
    (workspace / "file-link").symlink_to(workspace / "d/deep.txt")
    (workspace / "binary").write_bytes(b"a\xff\n")
    before = [(path, path.read_bytes()) for path in sorted(workspace.rglob("*")) if path.is_file()]
    with pytest.raises(ToolInputError, match=r"^The patch was not applied\. "):
        apply(workspace, BAD[name])
    assert [(path, path.read_bytes()) for path in sorted(workspace.rglob("*")) if path.is_file()] == before
    assert list(elsewhere.iterdir()) == []
    assert not Path("/tmp/gptoss-x").exists()


@pytest.mark.parametrize("form", ['{{"input": {}}}', '{{"cmd": ["apply_patch", {}]}}', "[{}]", "{}"])
def test_patch_in_json(workspace, form) -> None:
    import json

    apply(workspace, form.format(json.dumps(patch("*** Delete File: a.py"))))
    assert not (workspace / "a.py").exists()


def test_file_that_changes_after_the_preview_is_not_overwritten(workspace) -> None:
    tool = PatchTool(Workspace(workspace))
    text = patch("*** Delete File: a.py", "*** Update File: d/deep.txt", "-deep", "+high")
    call = tool.prepare(ToolCall("functions.apply_patch", text), ())
    assert call.preview.text.endswith("--- d/deep.txt\n+++ d/deep.txt\n@@ -1 +1 @@\n-deep\n+high\n")
    assert call.argument == "a.py d/deep.txt"
    (workspace / "d/deep.txt").write_text("mine\n")
    with pytest.raises(StopIteration) as ending:
        next(call.run())
    assert ending.value.value.text == "The patch was not applied. d/deep.txt has changed in the meantime"
    assert (workspace / "a.py").exists()


def test_folder_that_becomes_a_link_is_not_followed(workspace, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "deep.txt").write_text("deep\n")
    tool = PatchTool(Workspace(workspace))
    call = tool.prepare(ToolCall("functions.apply_patch", patch("*** Update File: d/deep.txt", "-deep", "+high")), ())
    (workspace / "d").rename(workspace / "e")
    (workspace / "d").symlink_to(elsewhere)
    with pytest.raises(StopIteration) as ending:
        next(call.run())
    assert "link" in ending.value.value.text
    assert (elsewhere / "deep.txt").read_text() == "deep\n"


def test_failure_in_the_midst_takes_all_back(workspace) -> None:
    tool = PatchTool(Workspace(workspace))
    (workspace / "locked").mkdir()
    text = patch("*** Delete File: a.py", "*** Add File: n.txt", "+n", "*** Add File: locked/x", "+x")
    call = tool.prepare(ToolCall("functions.apply_patch", text), ())
    (workspace / "locked").rmdir()
    (workspace / "locked").write_text("a file now\n")
    with pytest.raises(StopIteration) as ending:
        next(call.run())
    assert ending.value.value.status == "error"
    assert contents(workspace) == {**FILES, "locked": "a file now\n"}


def test_mode_is_kept_and_undo_refuses_what_has_changed(workspace) -> None:
    (workspace / "a.py").chmod(0o755)
    tool = PatchTool(Workspace(workspace))
    with pytest.raises(WorkspaceError, match="no patch was applied"):
        tool.undo()
    apply(workspace, patch("*** Update File: a.py", "@@", "-import os", "+import sys"), tool)
    assert (workspace / "a.py").stat().st_mode & 0o777 == 0o755
    (workspace / "a.py").write_text("mine\n")
    with pytest.raises(WorkspaceError, match=r"a\.py has changed in the meantime"):
        tool.undo()


def test_links_and_special_files_are_not_read(workspace) -> None:
    os.mkfifo(workspace / "pipe")
    (workspace / "link").symlink_to("/etc/hostname")
    files = Workspace(workspace)
    for name in ("pipe", "link", "d", "no", "/etc/hostname", "d/../../x", ".env", "x/id_rsa", ""):
        with pytest.raises(WorkspaceError):
            files.read(name)
    assert files.read(".env.example" if (workspace / ".env.example").exists() else "d/deep.txt") == b"deep\n"
    assert [name for name, *_ in files.folder(".")] == [
        "a.py",
        "blanks.txt",
        "crlf.txt",
        "d",
        "empty.txt",
        "open.txt",
        "quotes.txt",
    ]
