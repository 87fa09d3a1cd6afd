"""The transformer, read top down."""
