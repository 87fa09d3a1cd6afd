"""The version is written in pyproject.toml; everything else repeats it."""

import re
import tomllib
from pathlib import Path

import pytest

import gptoss.harmony
import gptoss.model

ROOT = Path(__file__).parents[1]


def test_packages_have_the_version_of_pyproject() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert gptoss.model.__version__ == gptoss.harmony.__version__ == version


def test_the_changelog_begins_with_what_is_not_released_or_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert released[0].split(" ")[0] == version
    assert headings.index(released[0]) <= 1


def test_another_name_is_an_attribute_error() -> None:
    for package in (gptoss.model, gptoss.harmony):
        with pytest.raises(AttributeError, match="no attribute 'version'"):
            package.version  # noqa: B018
