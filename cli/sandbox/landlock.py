"""Landlock for Linux: which files a confined process can reach.

Runs in the launcher too, so it imports the standard library alone. Source: linux/landlock.h, and the kernel's
userspace-api/landlock.rst.
"""

import ctypes
import os
import struct

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE = 1 << 4 | 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_FIFO, _MAKE_SYM = 1 << 7, 1 << 8, 1 << 10, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ALL_OF_FIRST = (1 << 13) - 1
_NET = 1 << 0 | 1 << 1
_SCOPES = 1 << 0 | 1 << 1  # abstract unix sockets, signals
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

SIGNALS_SINCE = 6
"""The version that keeps signals within the sandbox."""
TRUNCATE_SINCE = 3
"""The version that guards files against being cut."""


class LandlockError(Exception):
    """The kernel has no Landlock, or does not take the rules."""


def version() -> int:
    """Return the version of the kernel's Landlock; 0 if it has none."""
    found = ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, int(found))


def restrict(read: list[str], write: list[str]) -> None:
    """Let the calling thread, and all that it starts, reach these paths and no others; there is no way back.

    Args:
        read: files and folders that can be read and run; those that do not exist are left out.
        write: those in which files can be made, written and removed too.

    Raises:
        LandlockError: that is not possible.
    """
    abi = version()
    if not abi:
        raise LandlockError("this kernel has no Landlock")
    handled = _ALL_OF_FIRST | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    handled |= _IOCTL_DEV if abi >= 5 else 0
    attributes = struct.pack("QQQ", handled, _NET, _SCOPES)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    libc = ctypes.CDLL(None, use_errno=True)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        raise LandlockError(f"landlock: {os.strerror(ctypes.get_errno())}")
    reading = _EXECUTE | _READ_FILE | _READ_DIR
    writing = reading | _WRITE_FILE | _REMOVE | _MAKE_DIR | _MAKE_REG | _MAKE_FIFO | _MAKE_SYM | _REFER | _TRUNCATE
    try:
        for paths, access in ((read, reading), (write, writing)):
            for path in paths:
                _allow(libc, ruleset, path, access & handled)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_RESTRICT_SELF, ruleset, 0):
            raise LandlockError(f"landlock: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib takes twice the time of this program to import
            access &= _OF_FILES
        rule = struct.pack("=Qi", access, descriptor)
        if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0):
            raise LandlockError(f"landlock: {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)
