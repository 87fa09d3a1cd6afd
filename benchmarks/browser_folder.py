"""How fast the browser is over a folder: the first index, a refresh without changes, and the three functions.

    python benchmarks/browser_folder.py [--documents 10000] [--megabytes 100]

Prints seconds of the clock and, in brackets, of the processor: on a machine that does other work only these compare.

Makes Markdown documents of random words, whose frequencies fall as in natural text (Zipf), in a temporary folder.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gptoss.cli.tools.browser.browsing import Browsing
from gptoss.cli.tools.browser.display import Window, token_lengths
from gptoss.cli.tools.browser.folder.library import FolderLibrary
from gptoss.cli.tools.browser.html_page import html_page
from gptoss.harmony import Encoding

_WORDS = 50_000
_QUERIES = 40


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=100)
    arguments = parser.parse_args()
    window = Window(token_lengths(Encoding.o200k_harmony()))
    with tempfile.TemporaryDirectory() as folder:
        words = _made(Path(folder, "documents"), arguments.documents, arguments.megabytes)
        library = FolderLibrary(Path(folder, "documents"), Path(folder, "index"))
        print(f"first index      {_both(lambda: list(library.prepared()))}")
        size = sum(path.stat().st_size for path in Path(folder, "index").iterdir())
        print(f"  its size       {size / 1e6:8.0f} MB")
        library.close()
        library = FolderLibrary(Path(folder, "documents"), Path(folder, "index"))
        print(f"refresh          {_both(lambda: list(library.prepared()))}")
        chosen = random.Random(2)
        browsing = Browsing(library, window)
        times: dict[str, list[float]] = {"search": [], "open": [], "find": []}
        for number in range(_QUERIES):
            # Frequent and rare words, one to five.
            query = " ".join(words[int(len(words) ** chosen.random()) - 1] for _ in range(1 + number % 5))
            times["search"].append(_seconds(lambda query=query: browsing.search(query)))
            page = browsing.stack[-1].page
            if page.links:
                times["open"].append(_seconds(lambda: browsing.open(0)))
                times["find"].append(_seconds(lambda query=query: browsing.find(query.split()[0])))
        for name, found in times.items():
            median, most = statistics.median(found) * 1e3, max(found) * 1e3
            print(f"{name:<16} {median:8.1f} ms median, {most:.1f} ms at most, of the processor")
        library.close()
    html = _html()
    size = len(html.encode())
    pages = Browsing(_OnePage(html), window)
    print(f"page of {size / 1e6:.1f} MB   {_both(lambda: pages.open('https://example.com/'))} until it is shown")


class _OnePage:
    def __init__(self, html: str) -> None:
        self.html = html

    def search(self, query: str):
        raise NotImplementedError

    def fetch(self, url: str):
        return html_page(self.html, url)


def _made(folder: Path, documents: int, megabytes: int) -> list[str]:
    chosen = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = list(dict.fromkeys("".join(chosen.choices(letters, k=chosen.randint(2, 10))) for _ in range(_WORDS)))
    weights = [1 / (rank + 2) for rank in range(len(words))]
    size = megabytes * 1_000_000 // documents
    for number in range(documents):
        path = folder / f"part{number // 100}" / f"document{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = " ".join(chosen.choices(words, weights, k=size // 5))[: size - 100]
        lines = [text[begin : begin + 70] for begin in range(0, len(text), 70)]
        path.write_text(f"# Title {chosen.choice(words)} {number}\n\n" + "\n".join(lines), encoding="utf-8")
    return words


def _html() -> str:
    chosen = random.Random(3)
    words = ["".join(chosen.choices("abcdefghij-", k=chosen.randint(2, 9))) for _ in range(1000)]
    part = "".join(
        f"<div class='c'><h2>Part {n}</h2>\n<p>{' '.join(chosen.choices(words, k=50))} <a href='/p{n}'>link {n}</a></p>"
        f"<ul><li>one</li><li>two <b>bold</b></li></ul></div>\n"
        for n in range(11_500)
    )
    return f"<html><head><title>Large</title></head><body>{part}</body></html>"


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _both(work: Callable[[], object]) -> str:
    began, computed = time.perf_counter(), time.process_time()
    work()
    return f"{time.perf_counter() - began:8.2f} s ({time.process_time() - computed:.2f} s)"


if __name__ == "__main__":
    main()
