"""Locks of files between programs; some file systems have none."""

from __future__ import annotations

import errno
import fcntl
import logging

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_REFUSED = (errno.EACCES, errno.EPERM)  # of a file that is open: so say some network file systems
_reported = False


def lock(descriptor: int, *, wait: bool = True) -> bool:
    """Lock an open file until it is closed, where its file system has locks; that it has none is reported once.

    Args:
        descriptor: of the file.
        wait: for a program that holds the lock.

    Returns:
        False if another program holds the lock and `wait` is False.

    Raises:
        OSError: the file cannot be locked for another reason.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _REFUSED and not says_no_locks(error):
            raise
        _report(error)
    return True


def says_no_locks(error: OSError) -> bool:
    """Return whether a failure to lock a file means that its file system has no locks; that is reported once."""
    has_none = error.errno in _NO_LOCKS
    if has_none:
        _report(error)
    return has_none


def _report(error: OSError) -> None:
    global _reported
    if not _reported:
        text = "the file system has no locks: let no other gptoss write to the same files (%s)"
        log.warning(text, error.strerror)
    _reported = True
