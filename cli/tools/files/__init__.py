"""Functions that look at the files of a workspace."""
