"""The function apply_patch: changes to several files in one text."""
