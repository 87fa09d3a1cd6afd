"""Checkpoints: where they are, what is in them, whether they are sound, and how they become weights."""
