"""Path traversal: no path that a client can write leads to a file that is not the page's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeRecommender, films
from served import raw, running

from llmrec.app.server.guard import Sessions
from llmrec.checkpoint import hub
from llmrec.errors import RequestError, UserError

SECRET = "zqsecretzq"
ROUTES = ("static", "assets", "gradio_api/file=", "gradio_api/file", "gradio_api/heartbeat", "gradio_api/call/chat", "")


def climbs(target: Path) -> Iterator[str]:
    """Ways to write a path to `target` behind a route."""
    plain = str(target).lstrip("/")
    for up in (
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..\\",
        "..%5c",
        "....//",
        "..;/",
        "%252e%252e%252f",
        "..%c0%af",
    ):
        yield up * 12 + plain
    yield str(target)
    yield "/" + str(target)
    yield str(target) + "%00.css"
    yield "file://" + str(target)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(FakeRecommender(films())) as address:
        yield address


@pytest.mark.parametrize("route", ROUTES)
def test_no_written_path_leaves_the_page(url: str, route: str, tmp_path: Path, record_property: Any) -> None:
    secret = tmp_path / "secret.css"
    secret.write_text(SECRET)
    tried = 0
    for path in (*climbs(secret), *climbs(Path("/etc/passwd"))):
        joint = "" if route.endswith("=") or not route else "/"
        head = f"GET /{route}{joint}{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
        answer = raw(url, head.encode())
        assert SECRET.encode() not in answer, path
        assert b"root:" not in answer, path
        assert answer.split()[1] in {b"400", b"403", b"404", b"405", b"421", b"422"}, (path, answer[:100])
        tried += 1
    record_property("cases", tried)


def test_names_of_sessions_and_revisions_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    (tmp_path / "secret").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for name in ("../secret", "..", "a/../../secret", "/etc", "main/../..", "main\\..", "~root", "", ".git", "a//b"):
        with pytest.raises(RequestError):
            Sessions(3, 60).get(name)
        with pytest.raises(UserError) as caught:
            hub.resolve_model("org/name", name)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
