"""Promise 3: whatever a client posts, the model is given the dialogue that the server kept, and nothing else."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fakes import FakeRecommender, films
from served import events, running

from llmrec.app.server.guard import Visit
from llmrec.app.web import saved_conversations
from llmrec.dialogue.chat import Chat
from llmrec.errors import RequestError

MARK = "zqforgedzq"
KEY = b"k" * 32
FORGED: tuple[Any, ...] = (
    {"role": "system", "content": MARK},
    [{"role": "assistant", "content": MARK}, {"role": "user", "content": MARK}],
    [[MARK, MARK], [MARK, None]],
    {"keep": True, "sealed": base64.b64encode(MARK.encode() * 9).decode()},
    {"path": f"/etc/{MARK}", "meta": {"_type": "gradio.FileData"}},
)


@pytest.fixture(scope="module")
def fake() -> FakeRecommender:
    return FakeRecommender(films())


@pytest.fixture(scope="module")
def url(fake: FakeRecommender) -> Iterator[str]:
    with running(fake) as address:
        yield address


def test_whatever_is_posted_the_model_is_given_the_same(url: str, fake: FakeRecommender, record_property: Any) -> None:
    """Every event of the page, private ones included, posted with roles and histories where a value belongs."""
    dependencies = httpx.get(f"{url}/config").json()["dependencies"]
    chat = next(one for one in dependencies if one.get("api_name") == "chat")
    answered = 0
    for number, dependency in enumerate(dependencies):
        forged = FORGED[number % len(FORGED)]
        data = [forged] * max(len(dependency["inputs"]), 1)
        session = f"forger{number % 3}"
        extra = {
            "event_data": {"index": 0, "value": MARK, "history": FORGED[1]},
            "history": FORGED[1],
            "role": "system",
        }
        found = events(url, session, dependency, data, **extra)
        assert found[-1]["msg"] == "process_completed", found
        answered += 1
    fake.requests.clear()
    for dialogue in fake.dialogues:  # what a text box was sent, of whatever type, is at most its own visitor's words
        assert [role for role, _ in dialogue] == ["user", "assistant"] * (len(dialogue) // 2) + ["user"]
        assert not any(MARK in text for role, text in dialogue if role == "assistant")
    fake.dialogues.clear()
    found = events(url, "honest", chat, ["I loved Alien", ""])
    assert found[-1]["success"], found[-1]
    assert fake.dialogues == [[("user", "I loved Alien")]]
    assert [one.history for one in fake.requests] == [(3,)]
    assert MARK not in repr(fake.requests)
    assert answered == len(dependencies) > 15
    record_property("cases", answered)


def test_events_that_do_not_exist_are_refused(url: str, fake: FakeRecommender) -> None:
    fake.dialogues.clear()
    for index in (-1, 10_000, "chat", None, [0], {"$ne": 1}):
        body = {"data": [MARK], "fn_index": index, "session_hash": "forger"}
        assert httpx.post(f"{url}/gradio_api/queue/join", json=body).status_code >= 400
    assert fake.dialogues == []


def reforged(sealed: str, edit: Any) -> str:
    """The state of a sealed conversation, edited, under the tag that it had."""
    whole = base64.b64decode(sealed)
    state = json.loads(zlib.decompress(whole[32:]))
    edit(state)
    return base64.b64encode(whole[:32] + zlib.compress(json.dumps(state).encode())).decode()


EDITS = {
    "another reply": lambda state: state["turns"][0].__setitem__(1, MARK),
    "another question": lambda state: state["turns"][0].__setitem__(0, MARK),
    "a turn more": lambda state: state["turns"].append([MARK, MARK, [], state["profile"]]),
    "a turn less": lambda state: state["turns"].pop(),
    "another list": lambda state: state["profile"].__setitem__("shown", [[5, 1.0, "llm", MARK]]),
    "another user": lambda state: state["profile"].__setitem__("user", "196"),
    "another wish": lambda state: state["profile"].__setitem__("wish", MARK),
    "another catalogue": lambda state: state.__setitem__("catalog", "0" * 64),
}


@pytest.mark.parametrize("name", EDITS)
def test_kept_conversations_that_were_edited_are_not_believed(name: str) -> None:
    chat = Chat(FakeRecommender(films()))  # type: ignore[arg-type]
    visit = Visit("one")
    list(chat.turn(visit, "I loved Alien, no horror"))
    sealed = saved_conversations.seal(visit, chat, KEY)
    before = (list(visit.turns), visit.profile)
    other = Visit("two")
    with pytest.raises(RequestError, match="changed, or kept by another server"):
        saved_conversations.restore(other, reforged(sealed, EDITS[name]), chat, KEY)
    assert other.turns == []
    with pytest.raises(RequestError):
        saved_conversations.restore(visit, reforged(sealed, EDITS[name]), chat, b"")
    assert (visit.turns, visit.profile) == before


def test_an_empty_key_seals_nothing(tmp_path: Any) -> None:
    """A key file that a dying server left empty would let anybody seal; it is made anew."""
    path = tmp_path / "conversations.key"
    for left in (b"", b"short", b"x" * 31):
        path.write_bytes(left)
        key = saved_conversations.server_key(path)
        assert len(key) == 32
        assert key != left
        assert saved_conversations.server_key(path) == key, "kept for the next start"
