"""Published dialogues: readers, questions, and a toy world: the words tell the taste, the next film is certain."""

import csv
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import HashEmbedder
from rich.console import Console

from llmrec.errors import DataError, RequestError
from llmrec.eval.crs.components import NEW, component_scores, fit_components
from llmrec.eval.crs.data import (
    RECOMMENDER,
    SEEKER,
    Dialogue,
    Turn,
    allowed_items,
    merge_turns,
    questions_of,
    split_latest,
    tastes,
)
from llmrec.eval.crs.embeddings import context_text, embed_corpus
from llmrec.eval.crs.inspired import read_inspired
from llmrec.eval.crs.redial import read_redial
from llmrec.eval.crs.suite import MODEL, estimates, measure, over_dialogues, run_crs, targets
from llmrec.eval.crs.two_tower import TwoTowerSettings, train_two_tower
from llmrec.eval.result_file import check_result

FILMS = {str(100 + i): {"name": f"{'Funny' if i % 2 == 0 else 'Scary'} Tale {i} ({1980 + i})",
                        "genre": ["comedy" if i % 2 == 0 else "horror"], "plot": f"Story {i}",
                        "director": [f"Director {i % 2}"], "star": [f"Star {i % 4}"]} for i in range(20)}  # fmt: skip
SMALL = TwoTowerSettings(dim=8, dropout=0.1, epochs=12, rate=0.03, batch=32, word_count=2, seeds=1)
QUIET = Console(quiet=True)


def record(number, rng):
    """The seeker asks for a taste and names a film; the recommender names the next two of that taste."""
    taste = number % 2
    own = [str(100 + i) for i in range(taste, 20, 2)]
    start = int(rng.integers(len(own)))
    first, second, third = (own[(start + step) % len(own)] for step in range(3))
    word = ("funny", "scary")[taste]
    said = [(1, f"Hi, I want something {word} like @{first}"), (2, f"Try @{second} &amp; enjoy"), (1, "Another one?"),
            (2, "Surely"), (2, f"@{third}, or @{second} again")]  # fmt: skip
    names = {film: FILMS[film]["name"] for film in (first, second, third)}
    messages = [{"text": text, "senderWorkerId": who} for who, text in said]
    return {"conversationId": str(number), "messages": messages, "movieMentions": names,
            "initiatorWorkerId": 1, "respondentWorkerId": 2}  # fmt: skip


def write_redial(directory, train=120, test=30):
    directory.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    with gzip.open(directory / "movie_info.json.gz", "wt") as handle:
        json.dump(FILMS, handle)
    for name, numbers in (("train_pool_partial.jsonl", range(train)), ("test.jsonl", range(1000, 1000 + test))):
        lines = [json.dumps(record(number, rng)) for number in numbers]
        (directory / name).write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return read_redial(write_redial(tmp_path_factory.mktemp("redial") / "data"))


@pytest.fixture(scope="module")
def vectors(corpus, tmp_path_factory):
    cases = (questions_of(corpus.train), questions_of(corpus.test))
    return embed_corpus(corpus, cases, HashEmbedder(), tmp_path_factory.mktemp("cache"))


def test_redial_is_read_into_turns(corpus):
    one = corpus.test[0]
    assert [turn.speaker for turn in one.turns] == [SEEKER, RECOMMENDER, SEEKER, RECOMMENDER]
    assert one.turns[0].words == "Hi, I want something funny like"
    assert one.turns[1].text == f"Try {corpus.catalog.label(one.turns[1].rows[0])} & enjoy"
    assert one.turns[3].text.startswith("Surely Funny Tale") and len(one.turns[3].rows) == 2
    assert corpus.catalog[one.turns[0].rows[0]].attributes["genre"] == ("comedy",)
    assert "120 of the 10006" in corpus.available


def test_questions_are_what_the_recommender_names(corpus):
    cases = questions_of(corpus.test[:1])
    rows = [turn.rows for turn in corpus.test[0].turns]
    assert cases.target.tolist() == [rows[1][0], *rows[3]]
    assert cases.turn.tolist() == [1, 3, 3] and cases.repeated.tolist() == [False, False, True]
    before = [[*rows[0], *rows[1]]] * 2
    assert [history.tolist() for history in cases.histories()] == [list(rows[0]), *before]
    free = allowed_items(cases, 20, named_too=False)
    assert free.sum(axis=1).tolist() == [19, 18, 18] and allowed_items(cases, 20, named_too=True).all()
    assert len(questions_of(corpus.test[:1], (RECOMMENDER, SEEKER))) == 4


def test_dislikes_leave_the_taste():
    turns = (Turn(SEEKER, "", "", (4, 5), (5,)), Turn(RECOMMENDER, "", "", (6, 4)))
    liked, disliked = tastes(turns)
    assert (liked.tolist(), disliked.tolist()) == ([6, 4], [5])


def test_a_dislike_is_read_from_the_words(tmp_path):
    directory = write_redial(tmp_path / "data", 3, 1)
    one = record(0, np.random.default_rng(0))
    one["messages"][0]["text"] = "I loved @100 but I hated @101."
    one["movieMentions"] = {name: FILMS[name]["name"] for name in FILMS}
    (directory / "test.jsonl").write_text(json.dumps(one) + "\n")
    read = read_redial(directory)
    assert read.test[0].turns[0].disliked == (read.catalog.row("101"),)


def test_messages_of_one_person_are_one_turn():
    parts = [Turn(SEEKER, "a", "a A", (1,)), Turn(SEEKER, "b", "b", (2, 1)), Turn(RECOMMENDER, "c", "c", ())]
    assert merge_turns(parts) == (Turn(SEEKER, "a b", "a A b", (1, 2)), parts[2])


def test_the_latest_dialogues_are_cut_off(corpus):
    earlier, later = split_latest(corpus.train[::-1], 0.25)
    assert (len(earlier), len(later)) == (90, 30)
    assert max(one.when for one in earlier) < min(one.when for one in later)


@pytest.mark.kernels
def test_nothing_from_the_asked_turn_on_is_looked_at(corpus, vectors, tmp_path):
    cases = questions_of(corpus.test[:6])
    changed = []
    for dialogue in corpus.test[:6]:
        turns = [replace(t, words="different words", text="other", rows=t.rows) for t in dialogue.turns[3:]]
        changed.append(Dialogue(dialogue.id, dialogue.when, (*dialogue.turns[:3], *turns)))
    asked = cases.where(cases.turn <= 3)
    other = replace(asked, dialogues=tuple(changed))
    learnt = fit_components(corpus.train, corpus.catalog, vectors, replace(SMALL, epochs=1), 0)
    one, two = component_scores(learnt, asked, vectors), component_scores(learnt, other, vectors)
    assert set(one) >= set(NEW) and all(np.array_equal(one[name], two[name]) for name in one)
    assert [context_text(context) for context in asked.contexts()] == [context_text(c) for c in other.contexts()]


def test_parts_are_log_probabilities_and_features_follow_the_named(corpus, vectors):
    learnt = fit_components(corpus.train, corpus.catalog, vectors, replace(SMALL, epochs=1), 0)
    cases = questions_of(corpus.test)
    parts = component_scores(learnt, cases, vectors)
    for name in NEW:
        assert parts[name].shape == (len(cases), 20)
        np.testing.assert_allclose(np.exp(parts[name].astype(np.float64)).sum(axis=1), 1, rtol=1e-4, err_msg=name)
    taste = np.array([turn.rows[0] % 2 for turn in (d.turns[0] for d in corpus.test)])[cases.dialogue]
    same = (np.arange(20)[None] % 2) == taste[:, None]
    assert (np.where(same, parts["genre"], -np.inf).max(1) > np.where(~same, parts["genre"], -np.inf).max(1)).all()
    assert set(np.unique(parts["named"])) == {0.0, 1.0}


def test_the_networks_answer_the_same_alone_and_together(corpus, vectors):
    trained = train_two_tower(corpus.train, corpus.catalog, vectors, replace(SMALL, epochs=1), 0)
    cases = questions_of(corpus.test)
    some = cases.where(np.arange(len(cases)) % 7 == 3)
    whole = trained.log_probability(cases, vectors)[np.arange(len(cases)) % 7 == 3]
    np.testing.assert_allclose(trained.log_probability(some, vectors), whole, atol=1e-5)
    again = train_two_tower(corpus.train, corpus.catalog, vectors, replace(SMALL, epochs=1), 0)
    np.testing.assert_allclose(again.log_probability(some, vectors), trained.log_probability(some, vectors), atol=1e-3)


def test_ours_finds_the_next_film_where_popularity_cannot(corpus, tmp_path):
    rows, ranks, chosen = measure(corpus, HashEmbedder(), tmp_path, SMALL, 0, QUIET)
    found = {row.name: {name: one.mean for name, one in row.metrics.items()} for row in rows}
    assert found[MODEL]["novel_recall@1"] > 0.8 > 0.4 > found["popularity"]["novel_recall@1"]
    assert found["item-knn"]["novel_recall@10"] > found["popularity"]["novel_recall@10"]
    assert found[MODEL]["novel_unfiltered_recall@10"] <= found[MODEL]["novel_recall@10"]
    assert chosen.fusions[True].weights.keys() > chosen.fusions[False].weights.keys()
    assert {name.partition("/")[0] for name in ranks} == set(found)
    assert [one.name for one in targets(rows)] == ["novel_recall1", "novel_recall10", "novel_recall50"]


def test_an_interval_draws_whole_dialogues():
    values, dialogue = np.repeat([0.0, 1.0], 50), np.repeat([3, 8], 50)
    one = over_dialogues(values, dialogue, 0)
    assert one.mean == 0.5 and one.ci95 == (0.0, 1.0)  # two dialogues: either may be drawn twice
    many = over_dialogues(values, np.arange(100), 0)
    assert 0.35 < many.ci95[0] < 0.5 < many.ci95[1] < 0.65


def test_repeated_targets_are_apart(corpus):
    cases = questions_of(corpus.test)
    ranks = {f"x/{view}": np.where(cases.repeated, 0, 5) for view in ("new", "all")}
    metrics = estimates(cases, ranks, 0)[0].metrics
    assert metrics["novel_recall@1"].mean == 0 and metrics["novel_recall@10"].mean == 1
    assert metrics["recall@1"].mean == pytest.approx(cases.repeated.mean())


def test_the_command_writes_a_checked_result(tmp_path, monkeypatch):
    monkeypatch.setattr("llmrec.eval.crs.suite.MiniLM.load", staticmethod(HashEmbedder))
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    data = write_redial(tmp_path / "redial")
    run_crs("redial", data, tmp_path / "out", limit=20, settings=replace(SMALL, epochs=1))
    value = json.loads((tmp_path / "out" / "conversation-redial.json").read_text())
    check_result(value, "conversation-redial")
    assert value["provenance"]["command"] == "llmrec eval --suite redial --data-dir redial --limit 20"
    assert value["protocol"]["targets"] == value["provenance"]["n"] == 60
    assert str(tmp_path) not in json.dumps(value)
    assert (tmp_path / "out" / "per_user" / "per-user-conversation-redial.parquet").is_file()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("test.jsonl", "{}\n", r"test\.jsonl, line 1: not a dialogue"),
        ("test.jsonl", '{"conversationId": 1, "messages": [3]}\n', "line 1: not a dialogue"),
        ("test.jsonl", "\xff", "line 1"),
        ("train_pool_partial.jsonl", "[]\n", r"train_pool_partial\.jsonl, line 1"),
        ("movie_info.json", "[1]", "not a table of films"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, says):
    directory = write_redial(tmp_path / "data", 3, 2)
    (directory / f"{name}.gz").unlink(missing_ok=True)
    (directory / name).write_bytes(content.encode("latin1"))
    with pytest.raises(DataError, match=says) as caught:
        read_redial(directory)
    assert "\n" not in str(caught.value)


def test_a_missing_directory_or_file_is_said(tmp_path):
    with pytest.raises(RequestError, match="--data-dir"):
        run_crs("redial", None, tmp_path)
    with pytest.raises(RequestError, match="no directory"):
        run_crs("inspired", tmp_path / "nowhere", tmp_path)
    with pytest.raises(DataError, match=r"movie_info\.json"):
        read_redial(tmp_path)


HEADER = "dialog_id\tutt_id\tspeaker\tturn_id\ttext\tmovies\n"


def write_inspired(directory):
    directory.mkdir()
    said = [("RECOMMENDER", 'Hi "there"', ""), ("SEEKER", "I loved Funny Tale 2", "Funny Tale 2 (1982)"),
            ("RECOMMENDER", "Then Funny Tale 4", "Funny Tale 4 (1984); Scary Tale 3 (1983)")]  # fmt: skip
    for name in ("dev", "test"):
        lines = [f"{name}-1\t{i}\t{who}\t1\t{text}\t{films}\n" for i, (who, text, films) in enumerate(said)]
        (directory / f"{name}.tsv").write_text(HEADER + "".join(lines))
    first = "\nSystem: Hello\nUser: I liked Scary Tale 3.\nSystem: "
    rows = [(first, "['Funny Tale 2', 'Other Tale']"), (f"{first}See Funny Tale 2.\nUser: More?\nSystem: ", "['Lone']"),
            ("\nUser: Hi\nSystem: ", "['Lone']")]  # fmt: skip
    with (directory / "instructlf_train_contexts.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerows([("", "full_situation", "movies"), *((i, *row) for i, row in enumerate(rows))])
    return directory


def test_inspired_is_read_from_growing_contexts(tmp_path):
    corpus = read_inspired(write_inspired(tmp_path / "data"))
    labels = [corpus.catalog.label(row) for row in range(len(corpus.catalog))]
    assert sorted(labels) == ["Funny Tale 2 (1982)", "Funny Tale 4 (1984)", "Lone", "Other Tale", "Scary Tale 3 (1983)"]
    first, second, dev = corpus.train
    assert [turn.speaker for turn in first.turns] == [RECOMMENDER, SEEKER] * 2 + [RECOMMENDER]
    named = [[labels[row] for row in turn.rows] for turn in first.turns]
    assert named == [[], ["Scary Tale 3 (1983)"], ["Funny Tale 2 (1982)", "Other Tale"], [], ["Lone"]]
    assert first.turns[1].words == "I liked ." and len(second.turns) == 2
    assert dev.when > second.when and corpus.test[0].when > dev.when
    assert dev.turns[0].words == 'Hi "there"' and len(dev.turns[2].rows) == 2
    assert "2 of the 801" in corpus.available


def test_inspired_films_get_descriptions_where_they_are_known(tmp_path):
    directory = write_inspired(tmp_path / "data")
    (directory / "movie_info.json").write_text(json.dumps(FILMS))
    catalog = read_inspired(directory).catalog
    item = catalog[catalog.find("Funny Tale 2")]
    assert item.text == "Story 2" and item.attributes["genre"] == ("comedy",)
    assert len(catalog) == 5


def test_a_broken_table_of_inspired_is_said(tmp_path):
    directory = write_inspired(tmp_path / "data")
    (directory / "test.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match=r"test\.tsv, row 1"):
        read_inspired(directory)
