"""`gptoss config`: the settings in effect, and the file in which they are kept."""

from __future__ import annotations

import json
import os
import re
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from gptoss.cli.base.errors import InputError, SettingsError, UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.settings import KEYS, Folders, checked, load_settings, read_config_text, unknown_key
from gptoss.cli.base.text import one_line
from gptoss.cli.startup import completions
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.groups import command_group
from gptoss.cli.startup.options import HomeOption
from gptoss.model.storage.regular_file import make_private_folder

app = command_group("The settings, and the file that keeps them.")


@app.command()
def get(
    context: typer.Context,
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY", help="One setting. [default: all that are set]", autocompletion=completions.settings
        ),
    ] = None,
    home: HomeOption = None,
) -> ExitStatus:
    """Print a setting as it is in effect: of a variable, the config file or the default; status 1 if it has none."""
    environment, folders = _opened(context, home)
    settings = load_settings({}, environment.variables, folders.config)
    output = environment.output()
    values = {name: getattr(settings, name) for name in KEYS}
    if key is None:
        for name, value in values.items():
            if value is not None:
                output.write(output.safe(f"{name} = {_toml(value)}") + "\n")
        return ExitStatus.ANSWERED
    if key not in values:
        raise unknown_key(key)
    if values[key] is None:
        return ExitStatus.FAILED
    value = values[key]
    output.write(output.safe(_toml(value) if isinstance(value, bool) else str(value)) + "\n")
    return ExitStatus.ANSWERED


@app.command("set")
def set_(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", autocompletion=completions.settings)],
    value: Annotated[str, typer.Argument(metavar="VALUE")],
    home: HomeOption = None,
) -> ExitStatus:
    """Write a setting into the config file; the rest of the file stays as it is."""
    _, folders = _opened(context, home)
    if key not in KEYS:
        raise unknown_key(key)
    write_setting(folders.config, key, _read_value(key, value))
    return ExitStatus.ANSWERED


@app.command()
def unset(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", autocompletion=completions.settings)],
    home: HomeOption = None,
) -> ExitStatus:
    """Take a setting out of the config file, so that its default holds; status 1 if it is not there."""
    _, folders = _opened(context, home)
    if write_setting(folders.config, key, None):  # a key that is unknown too: nothing else works until it is gone
        return ExitStatus.ANSWERED
    if key not in KEYS:
        raise unknown_key(key)
    return ExitStatus.FAILED


@app.command()
def path(context: typer.Context, home: HomeOption = None) -> ExitStatus:
    """Print where the config file is, or would be."""
    environment, folders = _opened(context, home)
    environment.output().write(f"{one_line(str(folders.config))}\n")
    return ExitStatus.ANSWERED


def write_setting(config: Path, key: str, value: Any) -> bool:
    """Put one line of the config file in the place of another, or at the end; without a value, take it out.

    Returns:
        whether there was anything to do.

    Raises:
        SettingsError: the file is too large or not TOML, or has the setting in a form that one line cannot replace.
        InputError: it cannot be read or written.
    """
    where = one_line(str(config))
    try:
        text = read_config_text(config)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {where}: {getattr(error, 'strerror', 'not UTF-8')}") from None
    line = "" if value is None else f"{key} = {_toml(value)}\n"
    written = re.compile(rf"^[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*=.*(?:\n|\Z)", re.MULTILINE)
    if written.search(text):
        changed = written.sub(lambda _: line, text, count=1)
    else:
        changed = text + ("\n" if text and not text.endswith("\n") else "") + line
    try:
        before = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{where}: not TOML: {one_line(str(error))}") from None
    after: dict[str, Any] | None = None
    with suppress(tomllib.TOMLDecodeError, RecursionError):
        after = tomllib.loads(changed)
    if value is None and key not in before:
        return False
    if after != {**{name: each for name, each in before.items() if name != key}, **tomllib.loads(line)}:
        raise SettingsError(f"{where}: {key} stands there over several lines: change it in an editor")
    _replace(config, changed)
    return True


def _replace(config: Path, text: str) -> None:
    """Replace the file, whole or not at all; a link to it stays a link."""
    import secrets

    target = config.resolve()
    unfinished = target.with_name(f".{target.name}-{secrets.token_hex(4)}.new")
    try:
        make_private_folder(target.parent)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise InputError(f"cannot write {one_line(str(config))}: {error.strerror}") from None


def _read_value(key: str, value: str) -> Any:
    """Return a value as it is, where the setting is a text or one of several words; else as TOML."""
    with suppress(SettingsError):
        return checked(key, value, "the command line")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        read = value
    try:
        return checked(key, read, "the command line")
    except SettingsError as error:
        raise UsageError(str(error)) from None


def _toml(value: Any) -> str:
    # A basic string of TOML is one of JSON, but for DEL, which it wants escaped.
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _opened(context: typer.Context, home: Path | None) -> tuple[Environment, Folders]:
    environment: Environment = context.obj
    return environment, Folders.locate(environment.variables, home)
