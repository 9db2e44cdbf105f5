"""Promises 20 and 21: at rest nothing leaves the machine, and what visitors say is in no log.

The guard stands in tests/conftest.py, over the whole suite: an audit hook that refuses every connection and every
look-up of a name beyond this machine, and counts them; a test during which there was one fails.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import NETWORK, NetworkRefused
from fakes import FakeRecommender, films
from served import events, running
from toy_recommender import make_recommender

from llmrec.recommender import Recommendation, Request

SENTENCE = "my sister zqMagdalenazq adores funny tales"


def test_the_guard_of_the_whole_suite_refuses_and_counts() -> None:
    tried = len(NETWORK)
    attempts = (
        lambda: socket.create_connection(("192.0.2.1", 80), 0.1),
        lambda: socket.create_connection(("example.org", 443), 0.1),
        lambda: socket.getaddrinfo("huggingface.co", 443),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
        lambda: httpx.get("http://192.0.2.1/"),
    )
    for attempt in attempts:
        with pytest.raises((NetworkRefused, httpx.HTTPError)):
            attempt()
    assert len(NETWORK) >= tried + len(attempts)
    del NETWORK[tried:]  # these were on purpose
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        here.listen()
        socket.create_connection(here.getsockname(), 1).close()
    assert len(NETWORK) == tried


def test_a_served_conversation_reaches_for_nothing_and_logs_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    """The page, a conversation with the toy model, a list, and a refused message, at the most talkative log level."""
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    caplog.set_level(logging.DEBUG)
    tried = len(NETWORK)
    store = tmp_path / "feedback.sqlite"
    with running(make_recommender(), feedback=str(store), reply_tokens=4) as url:
        page = httpx.get(url)
        assert page.status_code == 200
        dependencies = httpx.get(f"{url}/config").json()["dependencies"]
        named = {one["api_name"]: one for one in dependencies if one.get("api_visibility") == "public"}
        for message in (SENTENCE, "no horror", SENTENCE * 100):
            events(url, "anna", named["chat"], [message, ""])
        assert events(url, "anna", named["recommend"], [["i1"], "", SENTENCE, 5, None])[-1]["success"]
        for dependency in dependencies:
            if len(dependency["inputs"]) == 1:
                events(url, "anna", dependency, [SENTENCE])
    assert NETWORK[tried:] == []
    written = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
    for word in ("zqMagdalenazq", "adores"):
        assert word not in caplog.text
        assert word.encode() not in written
    record_property("cases", 4 + len(dependencies))


MARK = "zqsecretzq I am Jane Doe"
HOSTILE: tuple[Any, ...] = (
    MARK,
    [MARK],
    {"keep": True, "sealed": MARK},
    {"__type__": "update", "value": MARK},
    f'import:{{"llmrec": 1, "sealed": "{MARK}"}}',
    f"\ud800{MARK}",
    None,
    1e308,
)
EDITS: tuple[Any, ...] = (
    None,
    MARK,
    [MARK],
    {MARK: MARK},
    {"index": MARK, "previous_value": MARK, "value": MARK},
    {"index": [], "previous_value": MARK, "value": MARK},
    {"index": {"a": 1}, "previous_value": MARK, "value": {"x": MARK}},
    {"index": 10**30, "previous_value": MARK, "value": MARK},
)


def test_whatever_is_posted_to_an_event_is_in_no_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    record_property: Any,
) -> None:
    """Every event, buttons that end another one included: refused or answered, without a word of it and without a
    traceback, in which libraries repeat the values that they choke on.
    """
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    (tmp_path / "in.jsonl").write_text('{"history": ["i1"]}\n', encoding="utf-8")
    caplog.set_level(logging.DEBUG)
    cases = 0
    with running(make_recommender(), reply_tokens=4, batch_dir=str(tmp_path)) as url:
        dependencies = httpx.get(f"{url}/config").json()["dependencies"]
        for dependency in dependencies:
            edit = any(name == "edit" for _, name in dependency["targets"])
            sent = [[value] * len(dependency["inputs"]) for value in HOSTILE] if dependency["inputs"] else [[MARK]]
            for data, more in [*((one, {}) for one in sent), *(([], {"event_data": one}) for one in EDITS if edit)]:
                last = events(url, "jane", dependency, data, **more)[-1]
                assert last["msg"] == "process_completed"
                cases += 1
        assert events(url, "jane", dependencies[-1], ["I loved Funny Tale 2", ""])[-1]["success"]
    said = capfd.readouterr()
    for text in (said.out, said.err, caplog.text):
        assert "zqsecretzq" not in text
        assert "Traceback" not in text
    record_property("cases", cases)


class Broken(FakeRecommender):
    """Fails over what it was asked, and repeats it."""

    def recommend(self, request: Request) -> list[Recommendation]:
        raise KeyError(request.message)


def test_a_failure_is_told_by_its_kind_and_place_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path))
    with running(Broken(films())) as url:
        dependencies = httpx.get(f"{url}/config").json()["dependencies"]
        recommend = next(one for one in dependencies if one.get("api_name") == "recommend")
        last = events(url, "jane", recommend, [[], "", MARK, 5, None])[-1]
    assert not last["success"]
    assert last["output"]["error"].startswith("that did not work")
    assert "an event failed: KeyError < attacks/test_network.py:" in caplog.text
    said = capfd.readouterr()
    assert "zqsecretzq" not in caplog.text + said.out + said.err
    assert "Traceback" not in said.err
