"""What the project says of itself agrees: version, changelog, dependencies."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import gptoss.harmony
import gptoss.model

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# torch brings triton where there is a card; pillow, mcp, ddgs and pypdfium2 are extras, and mcp brings two others.
OPTIONAL = {"triton", "pillow", "mcp", "mcp_types", "anyio", "ddgs", "pypdfium2"}
DISTRIBUTIONS = {"markdown_it": "markdown-it-py", "PIL": "pillow"}


def test_packages_have_the_version_of_pyproject() -> None:
    assert gptoss.model.__version__ == gptoss.harmony.__version__ == PROJECT["version"]


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert next(each for each in headings if each != "Unreleased") == PROJECT["version"]
    assert "Unreleased" not in headings[1:]


@pytest.mark.parametrize("package", [gptoss.model, gptoss.harmony])
def test_another_name_is_an_attribute_error(package) -> None:
    with pytest.raises(AttributeError, match="no attribute 'version'"):
        package.version  # noqa: B018


def test_each_dependency_is_imported_and_has_a_reason() -> None:
    declared = {re.match(r"[\w-]+", each)[0] for each in PROJECT["dependencies"]}
    assert declared == third_party_imports() - OPTIONAL
    table = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").partition("\n\n`triton`")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == declared


def third_party_imports() -> set[str]:
    """The distributions that the packages import."""
    names = set()
    for package in ("cli", "model", "harmony"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found = {alias.name.partition(".")[0] for alias in node.names}
                    # A file that is run as a program imports its neighbours.
                    names |= {name for name in found if not path.with_name(f"{name}.py").exists()}
                elif isinstance(node, ast.ImportFrom):
                    names.add(node.module.partition(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in names - sys.stdlib_module_names - {"gptoss"}}
