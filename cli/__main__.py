"""`python -m gptoss.cli`."""

from gptoss.cli.app import main

main()
