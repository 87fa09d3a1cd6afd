"""Engines on servers: token ids go over HTTP, and token ids come back. Imports no torch."""
