"""Keys of a terminal, with pastes told from typing where the terminal does not mark them."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

BLOCK = '"""'

# A person's keys come one at a time. Those of a paste come in pieces, a few milliseconds after each other.
_QUIET_S = 0.03
_MOST_KEYS = 1 << 20
_ENTER = (Keys.ControlM, Keys.ControlJ)


class PastingInput(Vt100Input):
    """The keys of a terminal; several lines at once are a paste, as if the terminal had marked it as one.

    Attributes:
        read_at: when keys were read last, by the monotonic clock.
    """

    read_at = 0.0

    def read_keys(self) -> list[KeyPress]:
        """Return what was typed, or pasted, since the last call."""
        keys = super().read_keys()
        self.read_at = time.monotonic()
        while 1 < len(keys) < _MOST_KEYS and not self.closed and self._is_ready():
            more = super().read_keys()
            if not more and self.closed:
                break
            keys += more
        return marked(keys)

    def _is_ready(self) -> bool:
        return bool(select.select([self.fileno()], [], [], _QUIET_S)[0])


def marked(keys: Sequence[KeyPress]) -> list[KeyPress]:
    '''Return keys that came at once, with several lines of them as pastes.

    The line end behind a paste is left out, for it is the person who sends. It stays behind a block between two """,
    which says itself where it ends.
    '''
    end = 1 + max((number for number, key in enumerate(keys) if _is_text(key)), default=-1)
    is_line_end = [key.key in _ENTER and not _is_escape(keys, number - 1) for number, key in enumerate(keys)]
    if not any(is_line_end[:end]):
        return list(keys)
    result: list[KeyPress] = []
    text = ""
    for key, ends_line in zip(keys[:end], is_line_end, strict=False):
        if ends_line or _is_text(key):
            text += "\n" if ends_line else key.data
            continue
        if text:
            result.append(KeyPress(Keys.BracketedPaste, text))
        text = ""
        result.append(key)
    result.append(KeyPress(Keys.BracketedPaste, text))
    bare = text.strip()
    is_block = bare.startswith(BLOCK) and bare.endswith(BLOCK) and len(bare) >= 2 * len(BLOCK)
    rest = [key for key, ends_line in zip(keys[end:], is_line_end[end:], strict=True) if is_block or not ends_line]
    return [*result, *rest]


def _is_text(key: KeyPress) -> bool:
    return key.key is Keys.Tab or not isinstance(key.key, Keys)


def _is_escape(keys: Sequence[KeyPress], number: int) -> bool:
    """Whether this key makes the next one another (Alt-Enter)."""
    return number >= 0 and keys[number].key is Keys.Escape
