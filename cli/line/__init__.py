"""Input at a terminal: the input line, its completion, editor, clipboard, and keys that act as signals."""
