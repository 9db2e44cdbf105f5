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
from served import events, running
from toy_recommender import make_recommender

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
        assert events(url, "anna", named["recommend"], [["i1"], "", SENTENCE, 5])[-1]["success"]
        for dependency in dependencies:
            if len(dependency["inputs"]) == 1:
                events(url, "anna", dependency, [SENTENCE])
    assert NETWORK[tried:] == []
    written = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
    for word in ("zqMagdalenazq", "adores"):
        assert word not in caplog.text
        assert word.encode() not in written
    record_property("cases", 4 + len(dependencies))
