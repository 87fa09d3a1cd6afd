"""What is typed at a terminal: the input line, its completion, editor, clipboard, and keys that are signals."""
