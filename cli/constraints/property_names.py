"""One spelling for each property name in JSON.

llguidance 1.9.1 lets the name of a property that the schema does not list be spelled with escapes of any character:
where `a` has to be a number, `{"\\u0061": "text"}` passes, though the name is the same. So in names a character may be
escaped by number only if JSON has no other spelling for it.
"""

from __future__ import annotations

# What follows the backslash. The short escapes of five control characters are their only spelling.
_NUMBERED = {f"u{code:04x}".encode() for code in (*range(0x20), 0x7F) if chr(code) not in "\b\t\n\f\r"}
_PREFIXES = {escape[:end] for escape in _NUMBERED for end in range(1, len(escape) + 1)}
_LONGEST = max(map(len, _NUMBERED))


class PropertyNames:
    """Reads JSON byte by byte, just enough to know which strings are property names. The JSON is assumed valid."""

    __slots__ = ("_at_name", "_escape", "_in_string", "_is_name", "_nesting")

    def __init__(self) -> None:
        self._nesting = b""  # the open brackets
        self._at_name = False  # a string that begins here is a name
        self._in_string = False
        self._is_name = False
        self._escape: bytes | None = None  # what came after the backslash

    def copy(self) -> PropertyNames:
        """Return a copy to read on from this position."""
        other = PropertyNames.__new__(PropertyNames)
        for slot in self.__slots__:
            setattr(other, slot, getattr(self, slot))
        return other

    @property
    def in_escape(self) -> bool:
        """Whether the position is within an escape in a name."""
        return self._escape is not None and self._is_name

    def read(self, data: bytes) -> bool:
        """Read on; return whether all names in `data` have their one spelling."""
        is_unique = True
        for byte in data:
            if self._escape is not None:
                is_unique &= self._read_escape(byte)
            elif self._in_string:
                if byte == ord("\\"):
                    self._escape = b""
                self._in_string = byte != ord('"')
            elif byte == ord('"'):
                self._in_string, self._is_name, self._at_name = True, self._at_name, False
            elif byte in b"{[":
                self._nesting += bytes([byte])
                self._at_name = byte == ord("{")
            elif byte in b"}]":
                self._nesting = self._nesting[:-1]
                self._at_name = False
            elif byte == ord(","):
                self._at_name = self._nesting.endswith(b"{")
        return is_unique

    def _read_escape(self, byte: int) -> bool:
        escape = (self._escape or b"") + bytes([byte])
        is_whole = escape[:1] != b"u" or len(escape) == _LONGEST
        self._escape = None if is_whole else escape
        return not self._is_name or escape[:1] != b"u" or escape in _PREFIXES
