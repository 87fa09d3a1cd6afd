"""The gpt-oss model."""
