"""The command line of gptoss."""
