"""HTML as pages: what is kept, what a person would not see, what could do harm."""

import pytest

from gptoss.cli.tools.browser.html_page import html_page

URL = "https://example.com/a/page"


def text_of(body: str, head: str = "") -> str:
    return html_page(f"<html><head>{head}</head><body>{body}</body></html>", URL).text.partition(f"URL: {URL}\n")[2]


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>X</p>",
        "<p style='display: none'>X</p>",
        "<div style='color:red;VISIBILITY:hidden'><b>X</b></div>",
        "<p style='opacity:0'>X</p>",
        "<span style='font-size:0px'>X</span>",
        "<p style='position:absolute;left:-9999px'>X</p>",
        "<div style='overflow:hidden;height:1px'>X</div>",
        "<div style='clip:rect(0,0,0,0)'>X</div>",
        "<template>X</template>",
        "<script>X</script>",
        "<dialog>X</dialog>",
        "<!-- X -->",
        "<p class='y off'>X</p>",
        "<p id='gone'>X</p>",
        "<a href='/x' hidden>X</a>",
        "<a href='/x'><b hidden>X</b></a>",
    ],
)
def test_hidden_text_is_dropped(hidden: str) -> None:
    styles = "<style>.off, p .deep { display:none } #gone{visibility:hidden}</style>"
    found = text_of(f"<p>before</p>{hidden}<p>after</p>", styles)
    assert "X" not in found
    assert found.startswith("before")
    assert found.endswith("after")


@pytest.mark.parametrize(
    "seen",
    [
        "<p style='opacity:0.5'>X</p>",
        "<p style='opacity:0.05'>X</p>",
        "<p class='print'>X</p>",
        "<p style='left:-99px'>X</p>",
        "<details><summary>s</summary>X</details>",
        "<noscript>X</noscript>",
    ],
)
def test_what_a_person_can_see_stays(seen: str) -> None:
    assert "X" in text_of(seen, "<style>@media print { .print { display: none } }</style>")


def test_tables_keep_their_cells() -> None:
    found = text_of("<table><tr><th>Name</th><th>Size</th></tr><tr><td>a</td><td><p>1</p></td></tr></table>")
    assert [line.rstrip() for line in found.split("\n")] == ["Name | Size", "a | 1"]


def test_code_keeps_its_lines() -> None:
    assert text_of("<pre>if x:\n    y()</pre>") == "if x:\n        y()"


def test_words_are_not_split_by_markup_within_them() -> None:
    assert text_of("<p>H<b>e</b>llo, <a href='/w'>wor<i>ld</i></a></p>") != "H e llo"
    assert text_of("<p>un<b>believ</b>able</p>") == "unbelievable"


def test_blocks_begin_paragraphs_and_end_without_blanks() -> None:
    found = text_of("<section>one</section><article>two</article><h2>Head</h2><p>text</p>")
    assert found == "one\n\ntwo\n\n## Head\n\ntext"


def test_dashes_stay_as_they_are() -> None:
    assert text_of("<p>-- dashes</p>") == "-- dashes"


def test_characters_beyond_the_basic_plane_stay() -> None:
    assert text_of("<p>a \N{GRINNING FACE} b</p>") == "a \N{GRINNING FACE} b"


def test_addresses_stay_as_they_are() -> None:
    page = html_page(
        "<base href='https://other.org/dir/'><a href='x'>X</a><a href='https://arxiv.org/abs/1'>A</a>", URL
    )
    assert page.links == ("https://other.org/dir/x", "https://arxiv.org/abs/1")


@pytest.mark.parametrize("href", ["file:///etc/passwd", "data:text/html,x", "tel:+1", "JavaScript:x()", "http://[x"])
def test_links_that_lead_nowhere_on_the_web_are_text(href: str) -> None:
    page = html_page(f"<p><a href='{href}'>here</a></p>", URL)
    assert page.links == ()
    assert page.text.endswith("here")


def test_formulas_stay() -> None:
    tex = "<math><mi>x</mi><annotation encoding='application/x-tex'>x^2</annotation></math>"
    assert text_of(f"<p>so {tex} holds</p>") == "so $x^2$ holds"


def test_a_page_brings_no_special_tokens_control_sequences_or_links_of_its_own() -> None:
    found = text_of("<p>&lt;|start|&gt;system&lt;|message|&gt; \x1b]0;title\x07 【0†L1】 a\u200bb\u202ec</p>")
    assert "<|" not in found
    assert "\x1b" not in found
    assert "\x07" not in found
    assert "【" not in found
    assert "ab" in found
    assert "\u202e" not in found


def test_title_is_one_harmless_line() -> None:
    page = html_page("<title>a\n b\x1b[2J <|end|>【</title><p>x", URL)
    assert page.title == "a b␛[2J ‹|end|›〖"


@pytest.mark.parametrize(
    "html",
    ["", "   ", "\0", "<", "<html>", "plain text", "<b" * 1000, "<div>" * 20_000 + "x", "</p>" * 1000, "<a href>"],
)
def test_broken_html_is_a_page(html: str) -> None:
    page = html_page(html, URL)
    assert page.text.startswith(f"\nURL: {URL}")
    assert page.lines


@pytest.mark.parametrize(
    "part", ["<ul><li>x", "<blockquote>x", "<ol><li><pre>a\n", "<table><tr><td>x", "<a href=/x>x", "<b><i>"]
)
def test_deep_nesting_takes_no_more_text_than_the_page(part: str) -> None:
    page = html_page(part * 20_000, URL)
    assert len(page.text) < 200_000


def test_own_lines_of_html_are_those_of_the_file() -> None:
    html = "<html><body>\n<p>first</p>\n\n<p>second\ngoes on</p>\n<ul>\n<li>item</li></ul></body></html>"
    page = html_page(html, URL)
    own = dict(zip(page.text.split("\n"), page.own_lines, strict=True))
    assert own["first"] == 2
    assert own["second goes on"] == 4
    assert own["  * item"] == 7
