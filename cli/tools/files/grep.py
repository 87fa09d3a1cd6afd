"""Search files for a pattern. A program of its own, so that a pattern that takes for ever can be ended.

    grep.py < REQUEST

REQUEST is JSON: `pattern`, `files` (their names and texts), `most`. Prints one line for each match.
"""

import json
import re
import sys

_LONGEST = 300


def main() -> None:
    """Print `name:number: line` for each line that matches."""
    request = json.load(sys.stdin)
    pattern = re.compile(request["pattern"])
    left = request["most"]
    for name, text in request["files"]:
        for number, line in enumerate(text.split("\n"), 1):
            if pattern.search(line):
                sys.stdout.write(f"{name}:{number}: {line[:_LONGEST]}\n")
                left -= 1
                if left == 0:
                    return


if __name__ == "__main__":
    main()
