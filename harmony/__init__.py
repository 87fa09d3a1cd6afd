"""The harmony chat format."""
