"""What a download can leave in the place of a file."""

from __future__ import annotations


def stand_in(beginning: bytes) -> str | None:
    """Return what a file is that begins so and stands in for another; None: it may be the file itself.

    Args:
        beginning: the first eight bytes or more.
    """
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version "):
        return "a Git LFS pointer (git lfs pull fetches the file)"
    if text.startswith((b"<!doc", b"<html", b"<?xml", b"<head", b"<body")):
        return "a web page, such as an error or a login"
    return None
