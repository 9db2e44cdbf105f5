"""Promise 16: what is too large is refused at once, by the endpoints as by the page; what never comes ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fakes import FakeRecommender, films
from served import raw, running
from toy_recommender import make_recommender

from llmrec.app.api.endpoints import Api
from llmrec.app.server import guard
from llmrec.app.server.guard import Sessions, Visit
from llmrec.app.server.services import Services
from llmrec.app.server.settings import load_settings
from llmrec.app.web.handlers import Handlers
from llmrec.dialogue.chat import Chat, Limits
from llmrec.errors import RequestError
from llmrec.nlu.state import Turn

AT_ONCE = 0.05


@pytest.fixture
def services(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path))
    return Services(Chat(make_recommender(), Limits()), Sessions(10, 60), load_settings())


def full(visit: Visit) -> Visit:
    visit.turns.extend(Turn("x", "y", (), visit.profile) for _ in range(40))
    return visit


def doors(services: Services) -> dict[str, Callable[[], Any]]:
    """Every way in, with something that exceeds a bound."""
    api, page = Api(services), Handlers(services)
    long, visit = "x" * 2_001, services.sessions.get("one")
    return {
        "endpoint, message": lambda: api.recommend([], "", long, 5),
        "endpoint, k": lambda: api.recommend(["i1"], "", "", 101),
        "endpoint, a very large k": lambda: api.recommend(["i1"], "", "", 10**400),
        "endpoint, items": lambda: api.recommend(["i1"] * 1_001, "", "", 5),
        "endpoint, one very long item": lambda: api.recommend(["x" * 60_000], "", "", 5),
        "endpoint, a very long user": lambda: api.recommend([], "x" * 60_000, "", 5),
        "chat, message": lambda: api.chat(visit, long),
        "chat, turns": lambda: api.chat(full(Visit("two")), "hello"),
        "page, message": lambda: list(page.say(visit, long)),
        "page, turns": lambda: list(page.say(full(Visit("three")), "hello")),
        "page, button": lambda: page.act(visit, "like:" + "9" * 59_000),
        "page, import": lambda: page.act(visit, "import:" + "[" * 59_000),
        "page, longer than any button": lambda: page.act(visit, "import:" + "x" * 60_000),
    }


def test_what_is_too_large_is_refused_in_fifty_milliseconds(services: Services, record_property: Any) -> None:
    found = doors(services)
    for name, act in found.items():
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            with pytest.raises(RequestError) as caught:
                act()
            seconds.append(time.perf_counter() - started)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 500, name
        assert min(seconds) < AT_ONCE, f"{name}: {min(seconds):.3f} s"
    record_property("cases", len(found))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(FakeRecommender(films())) as address:
        httpx.get(address)
        yield address


def test_a_body_that_does_not_come_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that promises a body and sends a byte now and then is let go; others are answered meanwhile."""
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.4)
    head = (
        b"POST /gradio_api/queue/join HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 900\r\nconnection: close\r\n\r\n"
    )
    started = time.perf_counter()
    answer = raw(url, head + b'{"data', seconds=8)
    assert answer.startswith(b"HTTP/1.1 408"), answer[:80]
    assert time.perf_counter() - started < 6
    assert httpx.get(f"{url}/config").status_code == 200


HEADS = {
    "a negative length": b"content-length: -1\r\n",
    "a length in words": b"content-length: many\r\n",
    "two lengths": b"content-length: 5\r\ncontent-length: 900\r\n",
    "a length and chunks": b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
    "a length beyond the bound": b"content-length: 99999999999\r\n",
    "digits of another script": "content-length: \u0661\u0662\r\n".encode(),
    "a header of a megabyte": b"x-long: " + b"a" * 1_000_000 + b"\r\n",
    "ten thousand headers": b"".join(b"x-%d: y\r\n" % n for n in range(10_000)),
}


@pytest.mark.parametrize("name", HEADS)
def test_odd_heads_are_refused_and_the_server_goes_on(url: str, name: str) -> None:
    request = (
        b"POST /gradio_api/queue/join HTTP/1.1\r\nhost: 127.0.0.1\r\n" + HEADS[name] + b"connection: close\r\n\r\n12345"
    )
    try:
        answer = raw(url, request, seconds=3)
    except (BrokenPipeError, ConnectionResetError):
        answer = b""  # closed while we were still sending: refused as well
    assert not answer or answer.split()[1][:1] in {b"4", b"3"} or b"error" in answer, answer[:200]
    assert httpx.get(f"{url}/config").status_code == 200


@pytest.mark.parametrize("depth", [100, 20_000])
def test_deeply_nested_json_is_refused_and_the_server_goes_on(url: str, depth: int) -> None:
    body = b'{"data": ' + b"[" * depth + b"]" * depth + b', "fn_index": 0, "session_hash": "x"}'
    answer = httpx.post(f"{url}/gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {200, 400, 404, 422, 500}
    assert "Traceback" not in answer.text
    assert json.loads(httpx.get(f"{url}/config").text)["dependencies"]
