"""What a download can leave in the place of a file."""

from __future__ import annotations

BEGINNING_BYTES = 64
"""How much of a file `stand_in` needs at most."""

_PAGE = "a web page, such as an error or a login"
_BINARY = (
    (b"GGUF", "a GGUF file, llama.cpp's format"),
    (b"PK\x03\x04", "a zip archive, as pickle files of torch are"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
)


def stand_in(beginning: bytes) -> str | None:
    """Return what a file is that begins so and stands in for another; None: it may be the file itself.

    Args:
        beginning: the first `BEGINNING_BYTES` or more, or all of the file.
    """
    for magic, kind in _BINARY:
        if beginning.startswith(magic):
            return kind
    if beginning.startswith(b"\x1f\x8b\x08") and beginning[8:9] != b"{":  # else the length of a safetensors header
        return "a gzip archive"
    if beginning.startswith((b"\xff\xfe<\0", b"\xfe\xff\0<")):
        return _PAGE
    if b"\0" in beginning[:8]:
        return None
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"version http", b"oid sha256")):
        return "a Git LFS pointer (git lfs pull fetches the file)"
    if text.startswith(b"/annex/objects/") or b"/.git/annex/objects/" in text:
        return "a git-annex pointer (git annex get fetches the file)"
    return _PAGE if text.startswith(b"<") else None


def is_text(beginning: bytes) -> bool:
    """Whether a file that begins so is text; white space alone is none."""
    return bool(beginning.strip()) and all(32 <= byte < 127 or byte in b"\t\n\r" for byte in beginning)
