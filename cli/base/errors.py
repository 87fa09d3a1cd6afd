"""The exceptions that leave the program as one line on standard error.

    CliError                 status 1
    |-- UsageError           status 2   a flag, an argument, the prompt
    |   |-- SettingsError    status 2   a variable or the config file
    |   `-- SchemaError      status 2   a schema or pattern that the grammar engine does not support
    |-- InputError           status 1   what a file or standard input holds
    |-- MemoryShortageError  status 3   the model needs more memory than there is
    |-- PullError            status 1   a model could not be fetched, listed or removed
    |-- NoAnswerError        status 1   the model ended without a final message
    `-- OutputError          status 1   standard output cannot be written
        `-- OutputClosed     status 141 its reader has gone: nothing to say, and nobody to say it to

Errors of `gptoss.model` and `gptoss.harmony` have trees of their own; `status_of` knows them all.
"""

from __future__ import annotations

from gptoss.cli.base.exit_status import ExitStatus


class CliError(Exception):
    """Something the user can mend; its text says what is wrong, where, and what to do."""

    status = ExitStatus.FAILED


class UsageError(CliError):
    """The command line asks for something that cannot be done."""

    status = ExitStatus.USAGE


class SettingsError(UsageError):
    """An environment variable or the config file holds something that cannot be used."""


class SchemaError(UsageError):
    """The grammar engine does not support a schema or pattern; the text has the place in it."""


class InputError(CliError):
    """A file or standard input does not hold what it should."""


class MemoryShortageError(CliError):
    """The model needs more memory than there is; its text says what would fit."""

    status = ExitStatus.MODEL_UNUSABLE


class PullError(CliError):
    """A model could not be fetched or removed, for a reason that lies with the connection, the hub or the disk."""


class NoAnswerError(CliError):
    """The model ended its turn without an answer."""


class OutputError(CliError):
    """Standard output cannot be written."""


class OutputClosed(OutputError):  # noqa: N818 - no fault of anybody
    """The reader of standard output has gone."""

    status = ExitStatus.CLOSED_PIPE


def status_of(error: Exception) -> ExitStatus | None:
    """Return the exit status for an error that a user may meet; None for a fault of the program itself."""
    if isinstance(error, CliError):
        return error.status
    # Imported here, because these packages take longer to import than `gptoss --help` may take in all.
    from gptoss.harmony.errors import HarmonyError, VocabularyError
    from gptoss.model.errors import ContextFullError, ModelError

    if isinstance(error, ContextFullError):
        return ExitStatus.FAILED
    if isinstance(error, ModelError | VocabularyError):
        return ExitStatus.MODEL_UNUSABLE
    if isinstance(error, HarmonyError):
        return ExitStatus.FAILED
    return None
