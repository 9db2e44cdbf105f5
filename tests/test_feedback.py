"""Feedback: append-only, without words unless allowed, and worth something for training afterwards."""

from __future__ import annotations

import json
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest
from fakes import FakeRecommender, films

from llmrec.app.cli import main
from llmrec.app.server.feedback import FeedbackLog, Reaction, open_feedback, read_reactions
from llmrec.app.server.guard import Sessions
from llmrec.app.server.preferences import preference_pairs
from llmrec.app.server.services import Services
from llmrec.app.server.settings import load_settings
from llmrec.app.web.handlers import Handlers
from llmrec.dialogue.chat import Chat
from llmrec.errors import RequestError, UserError

SHOWN = ("f1", "f2", "f3", "f4")
SENTENCE = "my sister Magdalena adores musicals"


@pytest.fixture
def store(tmp_path: Path) -> FeedbackLog:
    return FeedbackLog(tmp_path / "deep" / "feedback.sqlite")


def everything(path: Path) -> bytes:
    return b"".join(one.read_bytes() for one in path.parent.iterdir())


def test_reactions_come_back_as_they_were(store: FeedbackLog) -> None:
    store.react("s1", "f2", "like", SHOWN)
    store.react("s1", "f1", "dislike", SHOWN)
    store.react("s2", "f9", "seen")
    found = list(read_reactions(store.path))
    assert [(one.item, one.reaction, one.shown, one.words) for one in found] == [
        ("f2", "like", SHOWN, None),
        ("f1", "dislike", SHOWN, None),
        ("f9", "seen", (), None),
    ]
    assert found[0].visitor == found[1].visitor != found[2].visitor
    assert sqlite3.connect(store.path).execute("SELECT count(*) FROM lists").fetchone() == (2,)
    with pytest.raises(RequestError, match="love"):
        store.react("s1", "f1", "love")


def test_the_file_is_only_ever_appended_to(store: FeedbackLog) -> None:
    store.react("s1", "f2", "like", SHOWN)
    db = sqlite3.connect(store.path, isolation_level=None)
    for table in ("lists", "reactions"):
        for statement in (f"UPDATE {table} SET visitor = 'x'", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                db.execute(statement)
    assert len(list(read_reactions(store.path))) == 1


def test_nothing_says_who_it_was_and_words_only_when_given(store: FeedbackLog) -> None:
    store.react("session-of-anna", "f2", "like", SHOWN)
    assert b"anna" not in everything(store.path)
    store.react("session-of-anna", "f3", "like", SHOWN, SENTENCE)
    assert [one.words for one in read_reactions(store.path)] == [None, SENTENCE]
    again = FeedbackLog(store.path)  # a new start of the server: the same visitor has another name
    again.react("session-of-anna", "f4", "like", SHOWN)
    assert len({one.visitor for one in read_reactions(store.path)}) == 2
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_many_threads_lose_nothing(store: FeedbackLog) -> None:
    def click(visitor: str) -> None:
        for n in range(25):
            store.react(visitor, f"f{n}", "like", (f"f{n}", visitor))

    threads = [threading.Thread(target=click, args=(f"v{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = list(read_reactions(store.path))
    assert (len(found), store.lost) == (150, 0)
    names = {one.shown[1]: one.visitor for one in found}
    assert len(set(names.values())) == 6
    assert all(one.shown == (one.item, one.shown[1]) and names[one.shown[1]] == one.visitor for one in found)


def test_a_full_disk_costs_the_reaction_and_not_the_conversation(
    store: FeedbackLog, caplog: pytest.LogCaptureFixture
) -> None:
    store.react("s1", "f1", "like", SHOWN)
    store._db.execute("PRAGMA max_page_count = 1")
    for n in range(300):
        store.react("s1", f"f{n}", "like", (SENTENCE, str(n)), SENTENCE)
    assert store.lost > 0
    assert "OperationalError" in caplog.text
    assert SENTENCE not in caplog.text
    kept = len(list(read_reactions(store.path)))
    assert kept == 301 - store.lost
    store._db.execute("PRAGMA max_page_count = 1000")
    store.react("s1", "f5", "seen", SHOWN)
    assert [one.reaction for one in read_reactions(store.path)][-1] == "seen"


def test_files_that_are_something_else_are_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database " * 100)
    other = tmp_path / "other"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE bills (id)")
    db.commit()
    before = text.read_bytes(), other.read_bytes()
    for path in (text, other):
        for action in (FeedbackLog, lambda path: list(read_reactions(path))):
            with pytest.raises(UserError) as caught:
                action(path)
            assert "\n" not in str(caught.value)
    assert (text.read_bytes(), other.read_bytes()) == before
    with pytest.raises(UserError, match="no feedback file"):
        list(read_reactions(tmp_path / "gone"))
    with pytest.raises(UserError, match="cannot keep feedback"):
        FeedbackLog(text / "below")


def test_settings_choose_the_file_or_none(tmp_path: Path) -> None:
    assert open_feedback(load_settings(feedback="off")) is None
    made = open_feedback(load_settings(feedback=str(tmp_path / "f.sqlite")))
    assert made is not None
    assert made.path == tmp_path / "f.sqlite"


def test_a_dialogue_leaves_no_sentence_anywhere_unless_the_visitor_allows_it(
    store: FeedbackLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    caplog.set_level(0)
    fake = FakeRecommender(films())
    made = Handlers(Services(Chat(fake), Sessions(10, 60), load_settings(feedback="off"), store))  # type: ignore[arg-type]
    visit = made.sessions.get("s1")
    list(made.say(visit, SENTENCE))
    row = visit.profile.rows[0]
    made.act(visit, f"like:{row}")
    assert [one.item for one in read_reactions(store.path)] == [fake.catalog[row].id]
    for word in ("Magdalena", "adores"):
        assert word.encode() not in everything(store.path)
        assert word not in caplog.text
    made.share(visit, True)
    made.act(visit, f"dislike:{visit.profile.rows[1]}")
    made.share(visit, False)
    made.act(visit, f"seen:{visit.profile.rows[0]}")
    assert [one.words for one in read_reactions(store.path)] == [None, SENTENCE, None]
    assert "Magdalena" not in caplog.text


# ---- preference pairs


def told(*steps: tuple[str, str], shown: tuple[str, ...] = SHOWN, words: str | None = None) -> list[Reaction]:
    return [Reaction("v", n, shown, item, reaction, words) for n, (item, reaction) in enumerate(steps)]


def short(found: list[Reaction]) -> set[tuple[str, str, str]]:
    return {(one.chosen_item, one.rejected_item, one.why) for one in preference_pairs(found)}


def test_liked_goes_before_disliked_and_before_what_was_passed_over_above() -> None:
    assert short(told(("f3", "like"), ("f4", "dislike"))) == {
        ("f3", "f4", "disliked"),
        ("f3", "f1", "skipped"),
        ("f3", "f2", "skipped"),
    }
    assert short(told(("f1", "like"))) == set()  # nothing stood above it
    assert short(told(("f2", "like"), ("f1", "seen"))) == set()  # it was known, which is no refusal


def test_opinions_taken_back_count_for_nothing() -> None:
    assert short(told(("f2", "like"), ("f2", "forget"))) == set()
    assert short(told(("f2", "like"), ("f1", "dislike"), ("f1", "forget"))) == set()
    assert short(told(("f2", "like"), ("f2", "dislike"), ("f1", "like"))) == {("f1", "f2", "disliked")}


def test_pairs_stay_within_one_list_and_one_visitor() -> None:
    first = told(("f2", "dislike"))
    second = told(("f9", "like"), shown=("f9",))
    assert short([*first, *second]) == set()
    other = [Reaction("w", 9, SHOWN, "f3", "dislike", None)]
    assert short([*told(("f1", "like")), *other]) == set()
    assert short(told(("f7", "like"), ("f1", "dislike"))) == set()  # liked from the search: it stood in no list


def test_prompts_say_what_was_known() -> None:
    catalog = films()
    found = told(("f1", "like"), ("f3", "like"), words="a musical")
    (pair,) = preference_pairs(found, catalog)
    assert pair.prompt == "I liked Toy Story (1995). a musical"
    assert (pair.chosen, pair.rejected, pair.why) == ("The Lion King (1994)", "Aladdin (1992)", "skipped")
    assert (pair.liked_items, pair.message) == (("f1",), "a musical")
    gone = told(("x2", "like"), shown=("x1", "x2"))
    assert [(one.chosen, one.prompt) for one in preference_pairs(gone, catalog)] == [
        ("x2", "What would you recommend?")
    ]


# ---- the command


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["llmrec", "feedback", *words])
    try:
        main.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return (code, *capsys.readouterr())


def test_the_command_exports_and_counts(
    store: FeedbackLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.react("s1", "f3", "like", SHOWN, SENTENCE)
    store.react("s1", "f4", "dislike", SHOWN)
    monkeypatch.setenv("LLMREC_FEEDBACK", str(store.path))
    out = tmp_path / "pairs.jsonl"
    code, said, _ = run(monkeypatch, capsys, "export", "--out", str(out))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert (code, len(rows), said) == (0, 3, f"3 preference pairs in {out}\n")
    assert {"prompt", "chosen", "rejected", "chosen_item", "rejected_item"} <= set(rows[0])
    assert rows[0]["prompt"] == SENTENCE
    code, said, _ = run(monkeypatch, capsys, "show", "--json")
    counts = json.loads(said)
    assert (counts["reactions"], counts["visitors"], counts["with_words"], counts["like"]) == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("steps", "shown", "why"),
    [
        ((), SHOWN, "holds no reactions yet"),
        ((("f1", "dislike"), ("f2", "seen")), SHOWN, "2 reactions (1 dislike, 1 seen) hold no like, and"),
        ((("f1", "like"), ("f1", "forget")), SHOWN, "(1 forget, 1 like) hold no like that was not taken back"),
        ((("f3", "like"),), (), "(1 like) hold likes of items that stood in no list"),
        ((("f7", "like"), ("f1", "dislike")), SHOWN, "stood in no list"),
        (
            (("f1", "like"), ("f2", "more")),
            SHOWN,
            "no like with a dislike in the same list, and none with an item",
        ),
    ],
)
def test_no_pairs_say_why(
    steps: tuple[tuple[str, str], ...],
    shown: tuple[str, ...],
    why: str,
    store: FeedbackLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for item, reaction in steps:
        store.react("s1", item, reaction, shown)
    monkeypatch.setenv("LLMREC_FEEDBACK", str(store.path))
    out = tmp_path / "pairs.jsonl"
    code, said, err = run(monkeypatch, capsys, "export", "--out", str(out))
    assert (code, err, out.read_text()) == (0, "", "")
    assert said.startswith(f"0 preference pairs in {out}: ") and said.endswith(f"(read from {store.path})\n")
    assert why in said and said.count("\n") == 1


def test_mistakes_of_the_command_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.jsonl"
    monkeypatch.setenv("LLMREC_FEEDBACK", "off")
    for words, named in ((["--file", str(tmp_path / "gone")], "no feedback file"), ([], "feedback is off")):
        code, _, err = run(monkeypatch, capsys, "export", "--out", str(out), *words)
        assert code == 2
        assert named in err
        assert len(err.splitlines()) == 1
        assert not out.exists()
