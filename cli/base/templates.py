"""Prompts with gaps: `{{name}}` is a variable, `{{input}}` what the command line, files and standard input say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.inputs import read_text
from gptoss.cli.base.ownership import require_own
from gptoss.cli.base.text import one_line

SUFFIXES = (".md", ".txt")
INPUT = "input"

_GAP = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


def paths_of(folder: Path) -> list[Path]:
    """Return the files of the templates.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # not as if there were none
        raise InputError(f"cannot read {one_line(str(folder))}: {error.strerror}") from None


def read_template(which: str, folder: Path) -> str:
    """Return the text of a template.

    Args:
        which: a name in the folder, with or without `.md` or `.txt` (of two, the `.md`), else the path of a file.
        folder: of the templates.

    Raises:
        UsageError: there is none.
        InputError: it, or the folder, cannot be read, or it is not text.
    """
    if os.sep in which and _is_readable(Path(which)):  # no name: whether the folder can be read does not matter
        return read_text(Path(which))
    paths = paths_of(folder)
    named = {**{path.stem: path for path in reversed(paths)}, **{path.name: path for path in paths}}
    if which in named:
        require_own(named[which])
        return read_text(named[which])
    if _is_readable(Path(which)):
        return read_text(Path(which))
    near = get_close_matches(which, named, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"templates lie in {one_line(str(folder))}"
    raise UsageError(f"there is no template {one_line(which)!r}: {hint}")


def _is_readable(path: Path) -> bool:
    """Whether something can be read there: a file, or a pipe, as a shell's <(...) gives it."""
    return path.exists() and not path.is_dir()


def variables_of(settings: Sequence[str]) -> dict[str, str]:
    """Return the variables in `NAME=VALUE`s.

    Raises:
        UsageError: one is not like that, or `input`, or there twice.
    """
    variables: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not _GAP.fullmatch("{{" + name + "}}"):
            raise UsageError(f"--var {one_line(setting)!r}: a variable is NAME=VALUE")
        if name == INPUT or name in variables:
            raise UsageError(
                f"--var {name}: " + ("that is what the prompt is called" if name == INPUT else "given twice")
            )
        variables[name] = value
    return variables


def gaps_of(template: str) -> list[str]:
    """Return the names in its gaps, each once, in their order."""
    return list(dict.fromkeys(_GAP.findall(template)))


def fill(template: str, variables: Mapping[str, str], prompt: str) -> str:
    """Return the template with its gaps filled; what is filled in is not looked at for gaps again.

    A prompt for which the template has no gap stands after it.

    Raises:
        UsageError: a variable is missing, or has no gap.
    """
    gaps = set(gaps_of(template))
    missing = sorted(gaps - variables.keys() - {INPUT})
    if missing:
        raise UsageError(f"the template needs --var {missing[0]}=VALUE")
    unused = sorted(variables.keys() - gaps)
    if unused:
        raise UsageError(f"the template has no gap for --var {unused[0]}")
    if INPUT in gaps and not prompt:
        raise UsageError("the template needs a prompt, as an argument, in a file (-f) or on standard input")
    filled = _GAP.sub(lambda gap: prompt if gap[1] == INPUT else variables[gap[1]], template)
    return filled if INPUT in gaps or not prompt else f"{filled}\n\n{prompt}"
