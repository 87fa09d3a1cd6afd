"""The reference and the man page say what the help texts say."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gptoss.cli import reference
from gptoss.cli.base.exit_status import ExitStatus

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("make", [reference.markdown, reference.man_page])
def test_pages_in_the_repository_are_up_to_date(make) -> None:
    name = reference.MARKDOWN if make is reference.markdown else reference.MAN_PAGE
    assert (DOCS / name).read_text(encoding="utf-8") == make(), "run python -m gptoss.cli.reference docs"


def test_every_command_and_its_options_are_there(gptoss) -> None:
    for command in reference.commands():
        helped = gptoss(*command.name.split()[1:], "--help")
        assert helped.status == 0
        assert command.name in reference.markdown()
        assert command.options[-1][0] == "-h, --help"
        names = [part.split()[0] for written, _ in command.options for part in written.replace("/", ",").split(",")]
        assert names
    assert len(list(reference.commands())) >= 20


def test_every_exit_status_is_in_the_man_page() -> None:
    page = reference.man_page()
    assert all(f"\\fB{int(status)}\\fR" in page for status in ExitStatus)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not there to read the page")
def test_groff_reads_the_man_page_without_a_warning() -> None:
    page = DOCS / reference.MAN_PAGE
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
