"""The tool python: a stateful interpreter in a sandbox."""
