"""Saved conversations: their files, resuming, listing, export."""
