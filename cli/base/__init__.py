"""The base of the command line: errors, text, streams, signals, settings."""
