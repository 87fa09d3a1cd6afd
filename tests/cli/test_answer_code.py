"""The last command of an answer, for `/copy command`."""

import pytest

from gptoss.cli.slash.answer_code import code_blocks, last_command


def fenced(language: str, *lines: str) -> str:
    return f"Try:\n\n```{language}\n" + "\n".join(lines) + "\n```\n"


@pytest.mark.parametrize(
    ("answer", "command"),
    [
        (fenced("bash", "cd /tmp", "ls -l"), "ls -l"),
        (fenced("sh", "make  # all", "", "# done"), "make  # all"),
        (fenced("console", "$ pip install x", "Collecting x", "$ x --version", "x 1.0"), "x --version"),
        (fenced("", "user@host:~$ df -h", "Filesystem"), "df -h"),
        (fenced("", "no prompt"), None),
        (fenced("python", "x = 1"), None),
        (fenced("bash", "a") + fenced("python", "b"), "a"),
        (fenced("bash", "docker run \\", "  --rm \\", "  image"), "docker run \\\n  --rm \\\n  image"),
        (fenced("bash", "cat > f <<'EOF'", "one", "EOF"), "cat > f <<'EOF'\none\nEOF"),
        (fenced("bash", "echo\x1b[201~hi"), "echo\u241b[201~hi"),
        (fenced("bash", "echo a \\"), "echo a \\"),
        (fenced("bash", "cat <<EOF", "open"), "cat <<EOF\nopen"),
        ("no code", None),
    ],
)
def test_last_command(answer, command) -> None:
    assert last_command(code_blocks(answer)) == command


def test_copied_to_the_clipboard(gptoss, reply) -> None:
    import base64

    options = {
        "terminal": "out err",
        "variables": {"PATH": ""},
        "completions": [reply(fenced("bash", "ls", "du")), reply("-")],
    }
    result = gptoss("chat", "-m", "nano", stdin=b"a\n/copy command\nb\n/copy command\n/copy code\n", **options)
    assert f"\x1b]52;c;{base64.b64encode(b'du').decode()}\x07" in result.stdout
    assert "there is no command in the last answer to copy" in result.stderr
    assert "there is no code in the last answer to copy" in result.stderr
