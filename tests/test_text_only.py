"""A sentence from five films, typed by a visitor: what is written, what is left out, and a world where it must win."""

import numpy as np
import pytest
from conftest import HashEmbedder, make_catalog
from toy_recommender import make_recommender

from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.errors import DataError
from llmrec.eval.conversation import text_only
from llmrec.eval.conversation.text_only import KINDS, LOOKUP, MODEL, by_fields, by_titles, visitors


class Always:
    """A generator that always draws the first wording."""

    def choice(self, options):
        return options[0]


def rated(values):
    """One user who rates rows 0, 2, 4, ... in order with these values, and one who likes nothing."""
    rows = [2 * i for i in range(len(values))]
    users = ["u"] * len(values) + ["sour"] * 4
    return Interactions.build(users, [*rows, 1, 3, 5, 7], list(range(len(users))), [*values, 1, 1, 1, 1])


def test_the_sentence_names_the_films_or_their_fields():
    catalog = make_catalog()
    named = by_titles(catalog, (0, 2, 4), Always())
    assert named == "I loved Funny Tale 0 (1990), Funny Tale 2 (1992) and Funny Tale 4 (1994)."
    fields = by_fields(catalog, (0, 2, 3), Always())
    assert fields == "I like comedy and horror films from 1983 to 1992."
    assert "Tale" not in fields


def test_visitors_speak_of_what_they_rated_well_in_the_train_part():
    log = rated([5, 2, 4, 5, 5, 5])
    cases = visitors(make_catalog(), leave_one_out(log), None, 0)
    (one,) = cases  # nobody speaks for who liked nothing
    assert one.films == (0, 4, 6) and one.target == 10 and one.known.tolist() == [0, 2, 4, 6, 8]
    assert "Tale 8" not in one.sentences["titles"] and set(one.sentences) == set(KINDS)
    with pytest.raises(DataError, match="rated 4 or better"):
        visitors(make_catalog(), leave_one_out(rated([1, 2, 3])), None, 0)


def test_named_and_known_films_are_never_listed_and_are_understood():
    recommender = make_recommender()
    log = rated([5, 5, 4, 5, 5])
    (case,) = visitors(recommender.catalog, leave_one_out(log), None, 0)
    common = np.arange(12, dtype=np.float32)
    for filtered in (True, False):
        found = text_only._answers(recommender, common, case, "titles", filtered)
        out = set(case.known.tolist()) if filtered else set(case.films)
        for name, answer in found.items():
            listed = answer.rows[answer.rows >= 0].tolist()
            assert listed and not out & set(listed), (name, filtered)
        assert found[MODEL].named == 1.0
    looked = text_only._answers(recommender, common, case, "fields", True)[LOOKUP].rows
    vector = HashEmbedder().encode([case.sentences["fields"]])[0]
    free = [row for row in range(12) if row not in case.known]
    assert looked[0] == free[int(np.argmax(recommender.scorer.text[free] @ vector))]


def test_the_run_reports_every_row_with_intervals():
    recommender = make_recommender()
    object.__setattr__(recommender.interactions, "value", recommender.interactions.value * 5)
    rows, told = text_only.measure_text_only(recommender, limit=6, seed=1)
    assert set(rows) == {"words only", "text look-up", "popularity"}
    for metrics in rows.values():
        assert {"recall@10", "ndcg@10", "recall@10/seen not filtered", "recall@10/genres and years"} <= set(metrics)
        assert all(low <= value <= high for value, low, high in metrics.values())
    assert rows[MODEL]["titles_understood"][0] == 1.0
    assert "6 users" in told and "no id and no history" in told
    ratio = rows[MODEL]["recall@10"][0] / rows[LOOKUP]["recall@10"][0]
    assert rows[MODEL]["over_text_lookup"][0] == pytest.approx(ratio)
    again, _ = text_only.measure_text_only(recommender, limit=6, seed=1)
    assert again == rows
