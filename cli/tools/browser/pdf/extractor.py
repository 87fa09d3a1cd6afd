"""Write the text of one PDF file. A program of its own, run in the sandbox.

    extractor.py PACKAGES

reads the file `document` in its folder with the pypdfium2 in the folder PACKAGES. It writes JSON: `title`, and `pages`,
the text of each.
"""

from __future__ import annotations

import json
import sys

_MOST_PAGES = 2000
_MOST_CHARACTERS = 8_000_000


def main() -> None:
    """Read the file."""
    sys.path.append(sys.argv[1])
    import pypdfium2

    document = pypdfium2.PdfDocument("document")
    pages: list[str] = []
    left = _MOST_CHARACTERS
    for number in range(min(len(document), _MOST_PAGES)):
        page = document[number]
        text_page = page.get_textpage()
        text = text_page.get_text_range()[:left]
        text_page.close()
        page.close()
        left -= len(text)
        pages.append(text)
        if not left:
            break
    title = document.get_metadata_dict().get("Title", "")
    sys.stdout.write(json.dumps({"title": title, "pages": pages}))


if __name__ == "__main__":
    main()
