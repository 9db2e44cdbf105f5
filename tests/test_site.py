"""Which requests are answered, under which address, and who is believed about it."""

from __future__ import annotations

from typing import Any

import pytest

from llmrec.app.server.settings import load_settings
from llmrec.app.server.site import RequestRefused, Site

PUBLIC = ("https://rec.example.org", "https://films.example.org:8443")
PROXY, AWAY = ("127.0.0.1", 5), ("203.0.113.9", 5)


def scope(path: str = "/", client: tuple[str, int] | None = PROXY, **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": "GET", "path": path, "scheme": "http", "client": client, "headers": pairs}


def address(site: Site, **given: Any) -> str | int:
    """The address that a request is answered under, or the status of the refusal."""
    got = site.received(scope(**given))
    if isinstance(got, RequestRefused):
        return got.status
    hosts = [value.decode() for name, value in got["headers"] if name == b"host"]
    assert len(hosts) == 1
    return f"{got['scheme']}://{hosts[0]}"


LOCAL, BEHIND = Site.of(load_settings()), Site.of(load_settings(public_origins=PUBLIC))
EXPOSED = Site.of(load_settings(host="0.0.0.0", password="long enough"))
EXPOSED_BEHIND = Site.of(load_settings(host="0.0.0.0", password="long enough", public_origins=PUBLIC))


@pytest.mark.parametrize(
    ("site", "given", "expected"),
    [
        (LOCAL, {"host": "127.0.0.1:7860"}, "http://127.0.0.1:7860"),
        (LOCAL, {"host": "localhost:7860"}, "http://localhost:7860"),
        (LOCAL, {"host": "rec.example.org"}, 421),
        (LOCAL, {"host": "evil.example"}, 421),
        (LOCAL, {"host": "localhost.evil.example"}, 421),
        (LOCAL, {"host": ""}, 421),
        (LOCAL, {}, 421),
        (LOCAL, {"host": "localhost", "x_forwarded_host": "evil.example"}, "http://localhost"),
        (BEHIND, {"host": "127.0.0.1:7860"}, "http://127.0.0.1:7860"),
        (BEHIND, {"host": "rec.example.org"}, PUBLIC[0]),
        (BEHIND, {"host": "REC.example.org:443"}, PUBLIC[0]),
        (BEHIND, {"host": "films.example.org"}, PUBLIC[1]),
        (BEHIND, {"host": "films.example.org:8443"}, PUBLIC[1]),
        (BEHIND, {"host": "evil.example"}, 421),
        (BEHIND, {"host": "rec.example.org.evil.example"}, 421),
        (BEHIND, {"host": "127.0.0.1:7860", "x_forwarded_host": "rec.example.org"}, PUBLIC[0]),
        (BEHIND, {"host": "127.0.0.1:7860", "x_forwarded_host": "rec.example.org, inner"}, PUBLIC[0]),
        (BEHIND, {"host": "127.0.0.1:7860", "x_forwarded_host": "evil.example"}, 421),
        (BEHIND, {"host": "rec.example.org", "x_forwarded_host": "evil.example"}, PUBLIC[0]),
        (EXPOSED, {"host": "192.0.2.7:7860"}, "http://192.0.2.7:7860"),
        (EXPOSED, {"host": "a", "x_forwarded_host": "b", "x_forwarded_proto": "https"}, "http://a"),
        (EXPOSED_BEHIND, {"host": "192.0.2.7:7860"}, 421),
        (EXPOSED_BEHIND, {"host": "rec.example.org", "client": AWAY}, PUBLIC[0]),
        (
            EXPOSED_BEHIND,
            {"host": "127.0.0.1", "x_forwarded_host": "rec.example.org", "client": AWAY},
            "http://127.0.0.1",
        ),
        (EXPOSED_BEHIND, {"host": "evil.example", "x_forwarded_host": "rec.example.org", "client": AWAY}, 421),
        (EXPOSED_BEHIND, {"host": "evil.example", "x_forwarded_host": "rec.example.org", "client": None}, 421),
    ],
)
def test_the_address_is_the_visitors_and_never_a_strangers(
    site: Site, given: dict[str, Any], expected: str | int
) -> None:
    assert address(site, **given) == expected


@pytest.mark.parametrize(
    ("site", "host", "origin", "answered"),
    [
        (LOCAL, "127.0.0.1:7860", "http://127.0.0.1:7860", True),
        (LOCAL, "127.0.0.1:7860", "https://127.0.0.1:7860", True),
        (LOCAL, "127.0.0.1:7860", "http://localhost:7860", False),
        (LOCAL, "127.0.0.1:7860", "http://127.0.0.1:7861", False),
        (LOCAL, "127.0.0.1:7860", "http://evil.example", False),
        (LOCAL, "127.0.0.1:7860", "null", False),
        (LOCAL, "127.0.0.1:7860", PUBLIC[0], False),
        (BEHIND, "rec.example.org", PUBLIC[0], True),
        (BEHIND, "127.0.0.1:7860", PUBLIC[0], True),
        (BEHIND, "127.0.0.1:7860", "http://127.0.0.1:7860", True),
        (BEHIND, "films.example.org:8443", PUBLIC[1], True),
        (BEHIND, "rec.example.org", "http://rec.example.org", False),
        (BEHIND, "rec.example.org", "https://rec.example.org:8443", False),
        (BEHIND, "films.example.org:8443", "http://films.example.org:8443", False),
        (BEHIND, "rec.example.org", "https://x.rec.example.org", False),
        (BEHIND, "rec.example.org", "http://127.0.0.1:7860", False),
        (BEHIND, "rec.example.org", "null", False),
        (EXPOSED, "192.0.2.7:7860", "http://192.0.2.7:7860", True),
        (EXPOSED, "192.0.2.7:7860", "http://evil.example", False),
    ],
)
def test_pages_of_other_origins_are_refused(site: Site, host: str, origin: str, answered: bool) -> None:
    assert (
        address(site, host=host, origin=origin) != 403 if answered else address(site, host=host, origin=origin) == 403
    )


def test_nothing_that_a_proxy_says_goes_further() -> None:
    said = {
        name: "evil.example"
        for name in ("x_forwarded_host", "x_forwarded_proto", "x_forwarded_for", "x_forwarded_prefix", "forwarded",
                     "x_gradio_server", "x_real_ip", "x_original_host")
    }  # fmt: skip
    for site in (LOCAL, BEHIND, EXPOSED, EXPOSED_BEHIND):
        got = site.received(scope(host="rec.example.org" if site.origins else "127.0.0.1", cookie="kept", **said))
        assert not isinstance(got, RequestRefused)
        assert sorted(name for name, _ in got["headers"]) == [b"cookie", b"host"]


@pytest.mark.parametrize(("path", "status"), [("/films/", 0), ("/films/config", 0), ("/", 404), ("/filmstar/", 404)])
def test_everything_lies_below_the_root_path(path: str, status: int) -> None:
    site = Site.of(load_settings(public_origins=PUBLIC, root_path="/films"))
    got = site.received(scope(path, host="rec.example.org"))
    assert (got.status if isinstance(got, RequestRefused) else 0) == status
    if not isinstance(got, RequestRefused):
        assert (got["path"], got["root_path"]) == (path, "/films")
