"""The knowledge suite: matching and comparing facts, tags as requests, judging answers and lists, and a whole run."""

import csv
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import HashEmbedder, make_model
from fakes import FakeRecommender, films
from noted import noted_films

from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.dialogue.chat import Chat
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.errors import DataError, RequestError
from llmrec.eval.knowledge import constraint_requests, facts, questions, suite
from llmrec.eval.knowledge.tag_requests import tag_requests
from llmrec.eval.knowledge.wordings import wordings
from llmrec.eval.result_file import check_result
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.scorer import Scorer
from llmrec.recommender import Recommender
from llmrec.semantic_ids.trie import Trie

CATALOG = noted_films()
ROW = {item.title: row for row, item in enumerate(CATALOG.items)}
ALIEN, TOY, POSTMAN = ROW["Alien"], ROW["Toy Story"], ROW["Il Postino (The Postman)"]


def film_table(path, entries, gzipped=False):
    found = {
        str(n): {"name": name, "director": directors, "star": stars, "writer": writers}
        for n, (name, directors, stars, writers) in enumerate(entries)
    }
    raw = json.dumps(found).encode()
    (path / f"movie_info.json{'.gz' if gzipped else ''}").write_bytes(gzip.compress(raw) if gzipped else raw)
    return path


@pytest.mark.parametrize("gzipped", [False, True])
def test_facts_are_matched_by_title_and_year(tmp_path, gzipped):
    table = film_table(
        tmp_path,
        [
            ("Alien  (1979)", ["Ridley Scott"], ["Sigourney Weaver", "Tom Skerritt", "John Hurt"], []),
            ("Alien (2003)", ["Somebody Else"], ["Nobody"], []),
            ("Il Postino (1994)", ["Michael Radford"], ["Massimo Troisi"], []),
            ("No Year At All", ["X"], ["Y"], []),
        ],
        gzipped,
    )
    found = facts.matched(CATALOG, facts.read_facts(table))
    assert set(found) == {ALIEN, POSTMAN}
    assert found[ALIEN].directors == ("Ridley Scott",)


def test_agreement_forgives_spelling_and_counts_what_differs(tmp_path):
    table = film_table(
        tmp_path,
        [
            ("Alien (1979)", ["Ridly Scott"], ["Skerritt Tom", "Sigourney Weaver"], []),
            ("Toy Story (1995)", ["John Lasseter"], ["Tom Hanks", "Don Rickles"], []),
            ("The Lion King (1994)", ["Roger Allers"], ["Matthew Broderick"], []),
            ("Aliens (1986)", ["James Cameron"], ["A Writer"], ["A Writer", "Another"]),
        ],
    )
    found = facts.matched(CATALOG, facts.read_facts(table))
    directors, casts = facts.directors_agree(CATALOG, found), facts.casts_agree(CATALOG, found)
    assert sorted(directors.agreed) == [False, True, True, True]  # one of the Lion King's two directors is not given
    assert [row for row, *_ in directors.differing] == [ROW["The Lion King"]]
    # Toy Story's second actor is not among the stars; the stars of Aliens are its writers, so there is no cast
    assert sorted(casts.agreed) == [False, True] and casts.differing[0][0] == TOY


@pytest.mark.parametrize("raw", [b"[]", b'{"1": {}}', b"not json", b'{"1": {"name": 7}}'])
def test_a_damaged_film_table_is_one_clear_line(tmp_path, raw):
    (tmp_path / "movie_info.json").write_bytes(raw)
    with pytest.raises(DataError, match="not ReDial's film table"):
        facts.read_facts(tmp_path)
    with pytest.raises(DataError, match=r"movie_info\.json"):
        facts.read_facts(tmp_path / "nowhere")


def write_tags(path, movies, tags):
    for name, columns, rows in (("movies.csv", ("movieId", "title"), movies), ("tags.csv", ("movieId", "tag"), tags)):
        with (path / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(rows)
    return path


def test_tags_are_requests_unless_they_are_genres_or_titles(tmp_path):
    movies = [("1", "Alien (1979)"), ("2", "Toy Story (1995)"), ("3", "Unheard Of (1995)"), ("4", "Alien (2017)")]
    tags = [
        ("1", "Space  Horror"),
        ("2", "pixar"),
        ("1", "pixar"),
        ("1", "Horror"),
        ("2", "toy story"),
        ("3", "x"),
        ("4", "y"),
    ]
    found = tag_requests(write_tags(tmp_path, movies, tags), CATALOG)
    assert found == {"space horror": frozenset([ALIEN]), "pixar": frozenset([ALIEN, TOY])}


def test_tags_of_other_columns_are_refused(tmp_path):
    write_tags(tmp_path, [("1", "Alien (1979)")], [("1", "x")])
    (tmp_path / "tags.csv").write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(DataError, match="has the columns"):
        tag_requests(tmp_path, CATALOG)


def test_hits_are_divided_by_the_best_that_ten_places_allow():
    assert suite.hit_metrics([1, 2], frozenset([1, 2])) == {"recall@10": 1.0, "ndcg@10": pytest.approx(1.0)}
    many = frozenset(range(40))
    assert suite.hit_metrics(list(range(10)), many)["recall@10"] == 1.0
    half = suite.hit_metrics([9, 1], frozenset([1]))
    assert half["recall@10"] == 1.0 and half["ndcg@10"] == pytest.approx(1 / np.log2(3))
    assert suite.hit_metrics([], frozenset([1])) == {"recall@10": 0.0, "ndcg@10": 0.0}


def a_question(field, row=ALIEN, text="?"):
    return questions.Question(field, text, (ALIEN, TOY, POSTMAN, 0, 1), row, -1)


@pytest.mark.parametrize(
    ("field", "answer", "listed", "outcome"),
    [
        ("director", "Alien (1979) was directed by Ridley Scott.", False, "right"),
        ("director", "Alien (1979) was directed by John Lasseter.", False, "wrong"),
        ("director", "Alien (1979) is a film.", False, "missed"),
        ("director", "Here are ten films.", True, "missed"),
        ("director", "Toy Story (1995) was directed by John Lasseter.", False, "wrong"),
        ("fright", "Alien (1979) is very frightening.", False, "right"),
        ("fright", "Alien (1979) is not frightening.", False, "wrong"),
        ("violence", "Alien (1979): very strong violence.", False, "right"),
        ("premise", "The crew of a freighter is hunted by a creature that came aboard.", False, "right"),
        ("unknown", "The catalogue does not say where Alien (1979) can be watched.", False, "honest"),
        ("unknown", "Alien (1979) streams everywhere.", False, "missed"),
        ("language", "The catalogue does not give the language of Alien (1979).", False, "honest"),
    ],
)
def test_answers_are_judged_by_the_items_own_notes(field, answer, listed, outcome):
    assert questions.judge_answer(CATALOG, a_question(field), answer, listed) == outcome


def test_questions_cover_the_fields_evenly_and_name_an_item_on_display():
    drawn = questions.draw_questions(CATALOG, np.ones(len(CATALOG)), 60, 0)
    counts = {field: sum(one.field == field for one in drawn) for field in {one.field for one in drawn}}
    assert max(counts.values()) - min(counts.values()) <= 1 and "unknown" in counts
    assert all(one.row in one.shown and len(set(one.shown)) == questions.SHOWN for one in drawn)
    assert drawn == questions.draw_questions(CATALOG, np.ones(len(CATALOG)), 60, 0)
    assert all("{" not in one.text for one in drawn)


def test_a_question_is_put_below_a_list_that_stays():
    chat = Chat(FakeRecommender(CATALOG))
    question = a_question("director", text="who directed the first one?")
    answer, listed = questions.ask_question(chat, question)
    assert not listed and questions.judge_answer(CATALOG, question, answer, listed) == "right"


def test_requests_fill_every_slot_and_check_the_notes(monkeypatch):
    monkeypatch.setattr(constraint_requests, "LEAST", 1)
    drawn = constraint_requests.draw_requests(CATALOG, 0)
    assert {one.kind for one in drawn} <= set(wordings("knowledge-requests"))
    assert all("{" not in one.text for one in drawn)
    by_kind = {one.kind: one for one in drawn}
    assert by_kind["violence"].satisfied(CATALOG[TOY]) and not by_kind["violence"].satisfied(CATALOG[ALIEN])
    assert by_kind["audience_small"].satisfied(CATALOG[TOY]) and not by_kind["audience_small"].satisfied(CATALOG[ALIEN])
    bare = next(row for row, item in enumerate(CATALOG.items) if "violence" not in item.attributes)
    assert not by_kind["violence"].satisfied(CATALOG[bare])  # where safety is the point, not knowing is not enough


@pytest.fixture(scope="module")
def recommender():
    n = len(CATALOG)
    rng = np.random.default_rng(0)
    users = [f"u{user}" for user in range(20) for _ in range(5)]
    rows = np.concatenate([rng.choice(n, 5, replace=False) for _ in range(20)]).tolist()
    interactions = Interactions.build(users, rows, list(range(len(rows))), [1.0] * len(rows))
    model, embedder = make_model(n, depth=2, size=8), HashEmbedder()
    text = embedder.encode([CATALOG.describe(row) for row in range(n)])
    trie = Trie(model.vocab.ids.codes, model.vocab.ids.size, np.zeros(n))
    neighbours = fit_neighbours(interactions, n, NeighbourSettings())
    scorer = Scorer(model, trie, text, neighbours, embedder, "films", 6)
    fusion = Fusion({"encoder": 1.0, "llm": 0.5, "neighbours": 0.5})
    fusions = {"history": fusion, "words": replace(fusion, weights={**fusion.weights, "words": 0.5})}
    meta = {"train_fingerprint": leave_one_out(interactions).train.fingerprint}
    return Recommender(CATALOG, interactions, scorer, fusions, meta, "toy")


def test_the_suite_on_a_toy_world(recommender, monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "open_evaluated_model", lambda model, data: (recommender, None))
    monkeypatch.setattr(suite, "cache_home", lambda: tmp_path / "home")
    data = tmp_path / "data"
    (data / "redial").mkdir(parents=True)
    (data / "tags").mkdir()
    film_table(data / "redial", [("Alien (1979)", ["Ridley Scott"], ["Sigourney Weaver", "Tom Skerritt"], [])])
    write_tags(data / "tags", [("1", "Alien (1979)"), ("2", "Toy Story (1995)")], [("1", "creature"), ("2", "pixar")])
    suite.run_knowledge(None, None, data, tmp_path, limit=12)
    result = json.loads((tmp_path / "knowledge-toy.json").read_text("utf-8"))
    check_result(result)
    rows = {row["name"] for row in result["rows"]}
    assert {"notes", "facts", "questions", "requests", suite.WITH, suite.WITHOUT} <= rows
    targets = {one["name"]: one["value"] for one in result["targets"]}
    assert targets["director_agreement"] == targets["cast_agreement"] == 1.0
    noted = sum(bool(item.text) and "director" in item.attributes for item in CATALOG.items)
    assert targets["described_share"] == pytest.approx(noted / len(CATALOG))
    assert 0 <= targets["questions_wrong"] <= 1 and targets["second_pass_disagreement"] < 0.03


def test_without_other_data_those_targets_are_empty(recommender, monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "open_evaluated_model", lambda model, data: (recommender, None))
    suite.run_knowledge(None, None, None, tmp_path, limit=4)
    result = json.loads((tmp_path / "knowledge-toy.json").read_text("utf-8"))
    missing = {one["name"] for one in result["targets"] if one["value"] is None}
    assert missing == {"director_agreement", "cast_agreement", "tag_wish_recall10_over_before", "tag_wish_ndcg10"}


def test_a_catalogue_without_notes_is_refused(recommender, monkeypatch, tmp_path):
    plain = Recommender(
        films(), recommender.interactions, recommender.scorer, recommender.fusions, recommender.model_card, "plain"
    )
    monkeypatch.setattr(suite, "open_evaluated_model", lambda model, data: (plain, None))
    with pytest.raises(RequestError, match="has no notes"):
        suite.run_knowledge(None, None, None, tmp_path)
    assert not list(tmp_path.iterdir())
