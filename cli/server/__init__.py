"""The model behind HTTP, by the APIs that other programs know. Samples only: it imports none of the built-in tools."""
