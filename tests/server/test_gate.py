"""Who is let in: names, pages of browsers, keys, content types."""

from __future__ import annotations

import pytest

from gptoss.cli.server.errors import ApiError
from gptoss.cli.server.gate import Gate

KEY = "a-key-that-is-long-enough"


def status(gate: Gate, method: str = "GET", path: str = "/v1/models", **headers: str) -> int:
    given = {"host": "localhost:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        gate.check(method, path, given)
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "[::1]", "192.168.0.7:1", "box.lan:9"],
)
def test_addresses_and_known_names(host) -> None:
    assert status(Gate(hosts=frozenset({"localhost", "box.lan"})), host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "", "127.0.0.1:x"),
        *("localhost:8080:9", "[::1", "[evil]", "[::1]evil", "127.0.0.1, evil.example", "::1", "localhost@evil"),
        *("127.1", "0x7f000001", "2130706433", "localhost.", "[127.0.0.1]"),
    ],
)
def test_other_names_are_those_of_pages_that_rebind_them(host) -> None:
    assert status(Gate(), host=host) == 403


def test_a_unix_socket_has_no_name() -> None:
    assert status(Gate(hosts=None), host="whatever") == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:8080", ""])
def test_pages_are_refused(origin) -> None:
    assert status(Gate(), origin=origin) == 403


@pytest.mark.parametrize(
    ("site", "expected"), [("cross-site", 403), ("same-site", 403), ("none", 200), ("same-origin", 200)]
)
def test_what_a_browser_says_of_a_request_without_origin(site, expected) -> None:
    assert status(Gate(), sec_fetch_site=site) == expected


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY} ", 200),
        (f"Bearer {KEY}x", 401),
        ("Bearer ", 401),
        ("", 401),
        (KEY, 401),
        (f"Basic {KEY}", 401),
        (f"Bearer \u00e9{KEY}", 401),
    ],
)
def test_the_key(authorization, expected) -> None:
    gate = Gate(KEY)
    for path in ("/v1/models", "/v1/completions", "/metrics", "/nothing", "/api/tags"):
        assert status(gate, path=path, authorization=authorization) == expected
    assert status(gate, path="/health") == 200
    assert KEY not in str(ApiError(""))


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("", 415),
        ("text/plain; application/json", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
def test_what_a_form_can_send_is_refused(content_type, expected) -> None:
    assert status(Gate(), "POST", "/v1/completions", content_type=content_type) == expected


def test_through_http(start) -> None:
    running = start(gate=Gate(KEY))
    with running.client() as client:
        assert client.get("/health").status_code == 200
        refused = client.get("/metrics")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["error"]["code"] == "invalid_api_key"
        allowed = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"})
        assert "gptoss_requests_total" in allowed.text
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403
        preflight = client.request(
            "OPTIONS",
            "/v1/completions",
            headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        )
        assert preflight.status_code == 403
        assert "access-control-allow-origin" not in preflight.headers
    assert KEY not in repr(running.seen)
