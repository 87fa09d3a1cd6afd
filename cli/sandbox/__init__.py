"""Run programs that can reach nothing but their own folder."""
