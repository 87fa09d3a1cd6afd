"""What every part of the command line stands on: errors, text, streams, signals, settings."""
