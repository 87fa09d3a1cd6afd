"""The conversation core: messages in, events out. Knows no terminal, no files, no signals."""
