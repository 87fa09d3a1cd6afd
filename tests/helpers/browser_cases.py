"""Pages and calls whose displays were recorded from OpenAI's own code by `record_browser_displays.py`."""

import random
import re
from typing import Any

_TEXT = (
    "the model reads a page and cites its lines with well-known numbers; état naïve 東京 data-driven results, "
    "follow-up questions (for example) in 2024-11-25 every so-called long-term plan--or not--ends. "
    "https://example.org/a/very/long/path/that/does/not/fit/on/one/line/of/eighty/columns/at-all-and-goes-on"
)
_WORDS = _TEXT.split()


def _paragraph(seed: int, words: int) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(_WORDS) for _ in range(words))


def _article(paragraphs: int) -> str:
    parts = [f"<h2>Part {n}</h2><p>{_paragraph(n, 60)} <a href='/part/{n}'>part {n}</a></p>" for n in range(paragraphs)]
    return f"<html><head><title>A long article</title></head><body><h1>Long</h1>{''.join(parts)}</body></html>"


_HTML: dict[str, str] = {
    "https://example.com/simple": (
        "<html><head><title>Simple page</title></head><body><h1>Heading</h1><p>First paragraph with "
        "<a href='/other'>a link</a>, <a href='https://elsewhere.org/x?a=1&amp;b=2'>another</a> and "
        "<a href='/other'>the first again</a>.</p><p>Second<br>line.</p></body></html>"
    ),
    "https://example.com/lists": (
        "<html><head><title>Lists</title></head><body><p>Before</p><ul><li>one</li><li>two<ul><li>inner</li>"
        "<li>inner two</li></ul></li><li><p>three</p></li></ul><p>Between</p><ol start='3'><li>c</li><li>d<ul><li>e"
        "</li></ul></li></ol><dl><dt>Term</dt><dd>Meaning</dd><dt>Other</dt><dd>More</dd></dl></body></html>"
    ),
    "https://example.com/code": (
        "<html><head><title>Code</title></head><body><p>Call <code>f(x)</code> so:</p><pre><code>def f(x):\n"
        "    return x\n\n\n\nprint(f(1))\n</code></pre><p>After.</p><ul><li>Item<pre>a = 1\nb = 2</pre></li></ul>"
        "<blockquote><p>Quoted text.</p><p>More of it.</p></blockquote><hr><p>End <q>said</q> and <s>gone</s>.</p>"
        "</body></html>"
    ),
    "https://example.com/links": (
        "<html><head><title>Links</title></head><body><p><a href='#top'>Top</a> <a href='mailto:a@b.c'>Mail</a> "
        "<a href='javascript:x()'>Script</a> <a href='sub/page.html'>Sub<b> page</b></a> <a href='//cdn.example.net/f'>"
        "CDN</a> <a href='https://example.com:8080/p'>Port</a> <a href='/dagger'>A † sign</a> "
        "【brackets】 ◼ <img src='x.png' alt='A cat'> <img src='y.png'> <a href='/img'><img src='z.png'></a></p>"
        "<p>x<sup>2</sup> and H<sub>2</sub>O, a note<sup><a href='#note'>1</a></sup> on <abbr title='Not a "
        "Number'>NaN</abbr>.</p></body></html>"
    ),
    "https://example.com/other": (
        "<html><head><title>Other page</title></head><body><p>Needle in a haystack. needle again.</p><p>"
        + _paragraph(7, 120)
        + "</p><p>The NEEDLE is here too.</p></body></html>"
    ),
    "https://example.com/plain": "<html><body><p>A page without a title.</p></body></html>",
    "https://example.com/long": _article(24),
    "https://example.com/cjk": (
        "<html><head><title>東京</title></head><body><p>" + "東京は日本の首都である。" * 60 + "</p><p>"
        "éàü " * 100 + "</p></body></html>"
    ),
    "https://example.com/%E6%9D%B1%20x": "<html><head><title>Escaped</title></head><body><p>Escaped.</p></body></html>",
}

_BLOCKS = "h1|h2|p|li|ul|ol|dl|dt|dd|pre|blockquote|title|head|body"

PAGES = {
    url: re.sub(rf"(</(?:{_BLOCKS})>|<br>|<hr>)|(?=<(?:ul|ol|pre)\b)", "\\1\n", html) for url, html in _HTML.items()
}
"""HTML by address; with line breaks between blocks, without which the reference writes blanks at the ends of lines."""

RESULTS = [
    ("Simple page", "https://example.com/simple", "A page that is simple."),
    ("Other page", "https://example.com/other", "Needles and hay."),
    ("A long article", "https://example.com/long", _paragraph(3, 40)),
    ("Lists", "https://example.com/lists", ""),
]
"""What every search finds: title, address, summary."""

Call = tuple[str, dict[str, Any]]

DIALOGUES: dict[str, list[Call]] = {
    "search and open": [
        ("search", {"query": "needles"}),
        ("open", {"id": 0}),
        ("open", {"cursor": 0, "id": 1}),
        ("find", {"pattern": "needle"}),
        ("open", {"id": 1}),
        ("open", {"cursor": 3, "id": 0, "loc": 2}),
        ("find", {"pattern": "nothing of the kind", "cursor": 2}),
        ("find", {"pattern": "page", "cursor": 0}),
    ],
    "scroll": [
        ("open", {"id": "https://example.com/long"}),
        ("open", {"loc": 40}),
        ("open", {"loc": 10, "num_lines": 3}),
        ("open", {"cursor": 0, "loc": 5, "num_lines": 9}),
        ("find", {"pattern": "## PART 1"}),
        ("open", {"id": 3}),
        ("open", {"id": 4, "cursor": 0}),
        ("open", {"loc": 170}),
    ],
    "errors": [
        ("open", {}),
        ("find", {"pattern": "x"}),
        ("open", {"id": "https://example.com/simple"}),
        ("open", {"id": 99}),
        ("open", {"cursor": 9}),
        ("open", {"loc": 1000}),
        ("find", {"pattern": "paragraph"}),
        ("find", {"pattern": "paragraph"}),
        ("find", {"pattern": "a", "cursor": 7}),
    ],
    "pages": [("open", {"id": url}) for url in PAGES],
    "windows": [
        *(("open", {"id": "https://example.com/cjk", "loc": loc}) for loc in (0, 3, 9)),
        *(("open", {"id": "https://example.com/long", "loc": loc}) for loc in (0, 1, 7, 33, 90, 101, 126)),
    ],
}
"""Calls one after the other, each dialogue with a browser of its own."""

VIEW_TOKENS = (1024, 100)
"""The windows that the dialogues are recorded with."""
