"""`python -m gptoss.cli`, and the console script."""

import signal


def main() -> None:
    """Run the program; what is imported until it can deal with Ctrl-C is not to answer that with a traceback."""
    heeds = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeds:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gptoss.cli.app import main as program

    if heeds:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    program()


if __name__ == "__main__":
    main()
