import io
import json
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from ranker_contract import toy_world
from rich.console import Console

from llmrec.data.interactions import Interactions, leave_one_out, split_by_time
from llmrec.errors import RequestError
from llmrec.eval.accuracy.measurement import conditions, evaluate, measure, print_accuracy, tabulate
from llmrec.eval.baselines.rankers import EncoderRanker, ItemKNN, Popularity, item_counts
from llmrec.eval.metrics import paired_ps
from llmrec.eval.ranked_lists import Condition, all_items, rank_each, target_users, unseen_items
from llmrec.eval.result_file import provenance, write_result
from llmrec.ranker import top_k, unseen

N = 60


def world(seed=0, users=50):
    """Users with 3 to 12 different items, popularity skewed to low rows."""
    rng = np.random.default_rng(seed)
    skew = 1.0 / (np.arange(N) + 2.0)
    ids, rows = [], []
    for user in range(users):
        own = rng.choice(N, rng.integers(3, 13), replace=False, p=skew / skew.sum())
        ids += [f"u{user}"] * len(own)
        rows += own.tolist()
    return leave_one_out(Interactions.build(ids, rows, list(range(len(rows))), [1.0] * len(rows)))


SPLIT = world()


class Scored:
    """Ranks by a fixed score line or by a function of the history."""

    def __init__(self, name, score):
        self.name, self.score = name, score

    def rank(self, histories, k, allowed=None):
        scores = np.stack([self.score(history) for history in histories]).astype(np.float32)
        return top_k(scores, k, allowed)


def oracle(split, part="test"):
    """Knows every answer by the history it is shown."""
    answers = {split.history(u, part).tobytes(): t for u, t in enumerate(getattr(split, part)) if t >= 0}
    return Scored("oracle", lambda history: np.arange(N) == answers[history.tobytes()])


def rankers():
    train = SPLIT.train
    return [Popularity(item_counts(train, N)), ItemKNN(train, N), oracle(SPLIT)]


def rank_all(ranker, split, part, n_items, k=50, seen_filtered=True, users=None, batch=64):
    """One ranker's lists over the whole catalogue."""
    condition = Condition(k, unseen_items if seen_filtered else all_items)
    return rank_each([ranker], split, part, n_items, {"": condition}, users, batch)[ranker.name][""]


def test_the_table_equals_a_loop_over_users():
    table = evaluate(rankers()[:2], SPLIT, N)
    counts = np.bincount(SPLIT.train.row, minlength=N)
    hits, gains = [], []
    for user in table.measured.users:
        history, target = SPLIT.history(int(user), "test"), SPLIT.test[user]
        rivals = [r for r in range(N) if r not in set(history.tolist()) and r != target]
        place = sum(counts[r] >= counts[target] for r in rivals)  # ties against the target
        hits.append(float(place < 10))
        gains.append(1 / np.log2(place + 2) if place < 10 else 0.0)
    assert table.measured.values["popularity"]["recall@10"].tolist() == hits
    assert table.measured.values["popularity"]["ndcg@10"].tolist() == pytest.approx(gains, abs=1e-12)
    assert table.mean("popularity", "ndcg@10") == pytest.approx(np.mean(gains))
    low, high = table.estimates["popularity"]["ndcg@10"].ci95
    assert low < np.mean(gains) < high


def test_an_oracle_is_perfect_and_significantly_so():
    table = evaluate(rankers(), SPLIT, N, reference="popularity")
    assert all(table.mean("oracle", f"{name}@{k}") == 1.0 for name in ("recall", "ndcg", "mrr") for k in (1, 50))
    assert table.p("ndcg@10")["oracle"] < 0.001 and "popularity" not in table.p("ndcg@10")
    assert table.ratio("oracle", "popularity", "ndcg@10") == pytest.approx(1 / table.mean("popularity", "ndcg@10"))


def test_a_collapsed_model_scores_nothing_even_when_rows_are_listed_by_popularity():
    flat = Scored("flat", lambda history: np.zeros(N))
    table = evaluate([flat], SPLIT, N)
    # Forty-odd items are left for each user: one group of equal scores, none of it evidence.
    assert table.mean("flat", "recall@10") == 0.0 and table.mean("flat", "ndcg@10") == 0.0
    lucky, _ = top_k(np.zeros((1, N)), 10)
    assert np.isin(SPLIT.test[table.measured.users], lucky).mean() > 10 / N  # what the order alone would have given


def test_seen_items_are_filtered_or_not():
    seen_first = Scored("seen-first", lambda history: np.isin(np.arange(N), history))
    users = target_users(SPLIT, "test")
    kept = rank_all(seen_first, SPLIT, "test", N, k=3, seen_filtered=False)
    gone = rank_all(seen_first, SPLIT, "test", N, k=3)
    for i, user in enumerate(users):
        history = SPLIT.history(int(user), "test")
        assert set(kept.rows[i]) <= set(history.tolist()) or len(history) < 3
        assert not set(gone.rows[i]) & set(history.tolist())


def test_validation_histories_stop_before_the_validation_target():
    seen = []
    spy = Scored("spy", lambda history: seen.append(history.tolist()) or np.arange(N))
    lists = rank_all(spy, SPLIT, "valid", N, k=2, batch=7)
    assert seen == [SPLIT.train.rows_of(int(u)).tolist() for u in lists.users]
    assert lists.targets.tolist() == SPLIT.valid[lists.users].tolist()


def test_repeated_targets_are_counted_as_misses():
    ids = ["a"] * 4 + ["b"] * 4
    split = leave_one_out(Interactions.build(ids, [0, 1, 2, 0, 3, 4, 5, 6], list(range(8)), [1.0] * 8))
    best = Scored("best", lambda history: np.isin(np.arange(N), [0, 6]))
    table = evaluate([best], split, N)
    assert table.measured.protocol["repeated_targets"] == 1
    assert table.measured.values["best"]["recall@10"].tolist() == [0.0, 1.0]
    assert table.measured.values["best"]["recall@10/seen_kept"].tolist() == [1.0, 1.0]


def test_batch_and_shards_change_nothing():
    knn = ItemKNN(SPLIT.train, N)
    whole = rank_all(knn, SPLIT, "test", N)
    for batch in (1, 7, 1000):
        other = rank_all(knn, SPLIT, "test", N, batch=batch)
        assert other.rows.tobytes() == whole.rows.tobytes() and other.scores.tobytes() == whole.scores.tobytes()
    users = target_users(SPLIT, "test")
    shards = [rank_all(knn, SPLIT, "test", N, users=users[i::3]) for i in range(3)]
    for i, shard in enumerate(shards):
        assert shard.rows.tobytes() == whole.rows[i::3].tobytes()


def test_limit_draws_the_same_users_by_seed():
    users = [evaluate(rankers()[:1], SPLIT, N, limit=9, seed=seed).measured.users.tolist() for seed in (0, 0, 1)]
    assert users[0] == users[1] != users[2] and len(users[0]) == 9 and users[0] == sorted(users[0])
    assert len(target_users(SPLIT, "test", limit=10_000)) == len(target_users(SPLIT, "test"))
    with pytest.raises(RequestError, match="limit is 0"):
        target_users(SPLIT, "test", limit=0)


def test_slices_hold_the_right_users():
    table = evaluate(rankers(), SPLIT, N)
    counts = np.bincount(SPLIT.train.row, minlength=N)
    assert table.measured.slices["cold"].tolist() == (counts[SPLIT.test[table.measured.users]] < 5).tolist()
    assert (table.measured.slices["short"] ^ table.measured.slices["long"]).all()
    for name, mask in table.measured.slices.items():
        if not mask.any():
            assert f"ndcg@10/{name}" not in table.estimates["item-knn"]
            continue
        value = table.measured.values["item-knn"]["ndcg@10"][mask].mean()
        assert table.mean("item-knn", f"ndcg@10/{name}") == pytest.approx(value)
        assert table.measured.protocol[f"users_{name}"] == mask.sum()


def test_an_empty_slice_is_left_out():
    everyone = [f"u{u}" for u in range(9) for _ in range(3)]
    split = leave_one_out(Interactions.build(everyone, [0, 1, 2] * 9, list(range(27)), [1.0] * 27))
    table = evaluate([Popularity(np.arange(N))], split, N)
    assert not table.measured.slices["long"].any() and "ndcg@10/long" not in table.estimates["popularity"]
    print_accuracy(table, Console(quiet=True))


def test_beyond_accuracy_metrics_are_in_the_table():
    vectors = np.eye(N, dtype=np.float32)
    table = evaluate(rankers(), SPLIT, N, vectors=vectors)
    assert table.mean("popularity", "coverage@10") < table.mean("item-knn", "coverage@10")
    assert table.mean("popularity", "gini@10") > table.mean("item-knn", "gini@10")
    assert table.mean("popularity", "novelty@10") < table.mean("item-knn", "novelty@10")
    assert table.mean("item-knn", "diversity@10") == pytest.approx(1.0)
    assert "popularity_lift@10" in table.estimates["item-knn"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda rows, scores: (rows[:, 1:], scores[:, 1:]), "was asked"),
        (lambda rows, scores: (rows + N, scores), "does not exist or is not allowed"),
        (lambda rows, scores: (rows[:, [0, 0, 2]], scores[:, [0, 0, 2]]), "same row twice"),
        (lambda rows, scores: (rows[:, ::-1], scores[:, ::-1]), "falling order"),
        (lambda rows, scores: (rows, scores * np.nan), "falling order"),
        (lambda rows, scores: (rows, np.full_like(scores, -np.inf)), "falling order"),
    ],
)
def test_lists_that_break_the_contract_are_refused(answer, says):
    class Broken:
        name = "broken"

        def rank(self, histories, k, allowed=None):
            line = np.random.default_rng(0).random(N)
            return answer(*top_k(np.tile(line, (len(histories), 1)), k, allowed))

    with pytest.raises(ValueError, match=f"broken returned.*{says}"):
        rank_all(Broken(), SPLIT, "test", N, k=3)


def test_a_ranker_that_ignores_allowed_is_caught():
    class Deaf:
        name = "deaf"

        def rank(self, histories, k, allowed=None):
            return top_k(np.stack([~unseen([h], N)[0] for h in histories]).astype(float), k)

    with pytest.raises(ValueError, match="not allowed"):
        rank_all(Deaf(), SPLIT, "test", N, k=3)


@pytest.mark.parametrize(("names", "reference"), [(["a", "a"], None), (["a", "b"], "c"), ([], None)])
def test_names_must_differ_and_hold_the_reference(names, reference):
    with pytest.raises(RequestError, match="names differ"):
        evaluate([Scored(name, lambda h: np.arange(N)) for name in names], SPLIT, N, reference=reference)


def test_nobody_to_measure_on_is_said():
    split = leave_one_out(Interactions.build(["a", "b"], [0, 1], [0, 1], [1.0, 1.0]))
    with pytest.raises(RequestError, match="no user has a test target"):
        evaluate([Popularity(np.arange(N))], split, N)


def test_the_table_becomes_a_checked_result_and_per_user_values(tmp_path):
    began = time.perf_counter()
    table = evaluate(rankers(), SPLIT, N)
    where = provenance(0, "llmrec eval", time.perf_counter() - began, len(table.measured.users))
    write_result(tmp_path / "accuracy-toy.json", "accuracy", "toy", table.measured.protocol, table.rows, [], where)
    value = json.loads((tmp_path / "accuracy-toy.json").read_text())
    assert [row["name"] for row in value["rows"]] == ["popularity", "item-knn", "oracle"]
    assert value["protocol"]["seen_filtered"] is True and value["protocol"]["ties"] == "count against the target"
    stored = pq.read_table(table.measured.save(tmp_path, "toy"))
    assert stored["user"].to_pylist() == table.measured.users.tolist()
    assert stored["item-knn ndcg@10"].to_pylist() == table.measured.values["item-knn"]["ndcg@10"].tolist()
    assert stored["slice cold"].to_pylist() == table.measured.slices["cold"].tolist()
    assert not any(str(cell) == "u1" for cell in stored["user"].to_pylist())


def test_the_printed_table_says_what_was_measured():
    table = evaluate([*rankers(), Scored("[red]odd[/red]", lambda h: np.arange(N))], SPLIT, N)
    console = Console(width=400, record=True, file=io.StringIO())
    print_accuracy(table, console)
    text = console.export_text()
    for part in (
        "popularity",
        "item-knn",
        "oracle",
        "[red]odd[/red]",
        "seen_filtered True",
        "1.0000 (1.0000-1.0000)",
    ):
        assert part in text


def test_all_rankers_rank_a_batch_before_the_next_one_comes():
    told = []
    evaluate(rankers()[:2], SPLIT, N, batch=20, progress=lambda *what: told.append(what))
    assert told == [(name, done, 50) for done in (20, 40, 50) for name in ("popularity", "item-knn")]


def test_what_may_be_chosen_from_is_said_by_the_name_of_the_metric():
    table = evaluate(rankers(), SPLIT, N)
    for name, own in table.measured.values.items():
        # with nothing filtered there are more rivals, among twenty fewer
        assert (own["ndcg@10/seen_kept"] <= own["ndcg@10"] + 1e-12).all(), name
        assert (own["recall@10/of20"] >= own["recall@10"]).all(), name
    assert table.mean("oracle", "recall@1/of20") == table.mean("oracle", "recall@10/seen_kept") == 1.0
    assert {"seen_kept", "of20"} <= set(table.measured.protocol)


def test_candidates_are_twenty_and_the_same_for_every_ranker_and_sample():
    asked = {}

    class Spy:
        def __init__(self, name):
            self.name = name

        def rank(self, histories, k, allowed=None):
            if k == 20:
                for history, mask in zip(histories, allowed, strict=True):
                    asked.setdefault((self.name, history.tobytes()), set()).add(tuple(np.flatnonzero(mask)))
            return top_k(np.tile(np.arange(float(N)), (len(histories), 1)), k, allowed)

    measured = measure([Spy("a"), Spy("b")], SPLIT, N, seed=3)
    measure([Spy("a")], SPLIT, N, seed=3, limit=7, batch=2)
    for user, history, target in zip(measured.users, measured.histories, measured.targets, strict=True):
        mine, theirs = (asked[name, history.tobytes()] for name in "ab")
        assert mine == theirs and len(mine) == 1, user
        (drawn,) = mine
        assert len(drawn) == 20 and int(target) in drawn and not set(drawn) & set(history.tolist())
    other = measure([Spy("a")], SPLIT, N, seed=4)
    assert any(len(asked["a", history.tobytes()]) > 1 for history in other.histories)


def test_chance_among_twenty_is_one_in_twenty():
    rng = np.random.default_rng(0)
    noise = Scored("noise", lambda history: rng.random(N))
    values = [measure([noise], SPLIT, N, seed=s).values["noise"]["recall@1/of20"].mean() for s in range(20)]
    assert 0.02 < np.mean(values) < 0.08


def test_every_pair_of_rows_is_tested():
    table = evaluate(rankers(), SPLIT, N, reference="item-knn")
    names = ["popularity", "item-knn", "oracle"]
    for metric in ("recall@10", "ndcg@10"):
        assert {one: set(others) for one, others in table.pairs[metric].items()} == {
            name: set(names) - {name} for name in names
        }
        assert table.pairs[metric]["oracle"]["popularity"] == table.pairs[metric]["popularity"]["oracle"]
    assert table.p("ndcg@10") == table.pairs["ndcg@10"]["item-knn"]


def test_values_come_first_and_the_table_follows_from_them():
    measured = measure(rankers(), SPLIT, N, limit=30, seed=1)
    table, again = tabulate(measured, "popularity", 1), evaluate(rankers(), SPLIT, N, limit=30, seed=1)
    assert table.estimates == again.estimates and table.pairs == again.pairs
    few = evaluate(rankers(), SPLIT, N, limit=10, seed=1)
    widths = [t.estimates["item-knn"]["novelty@10"].ci95 for t in (few, again)]
    assert np.diff(widths[0]) > np.diff(widths[1])  # fewer users, wider intervals


def test_a_row_of_some_users_is_averaged_and_compared_over_these():
    whole = measure(rankers(), SPLIT, N, seed=1)
    few = whole.users[::3]
    lists = rank_each(rankers()[1:2], SPLIT, "test", N, conditions(1), few)["item-knn"]
    only = tabulate(measure([rankers()[1]], SPLIT, N, seed=1), "item-knn", 1).measured.values["item-knn"]
    measured = measure([rankers()[0], rankers()[2]], SPLIT, N, seed=1, ranked={"item-knn": lists})
    table = tabulate(measured, "popularity", 1)
    at = np.searchsorted(whole.users, few)
    assert np.flatnonzero(measured.asked("item-knn")).tolist() == at.tolist() and measured.asked("oracle").all()
    for metric in ("recall@10", "ndcg@10/seen_kept", "recall@1/of20"):
        assert table.mean("item-knn", metric) == pytest.approx(only[metric][at].mean())
        assert np.isnan(np.delete(measured.values["item-knn"][metric], at)).all()
    assert table.mean("popularity", "ndcg@10/sampled") == pytest.approx(
        whole.values["popularity"]["ndcg@10"][at].mean()
    )
    assert table.mean("item-knn", "ndcg@10/sampled") == table.mean("item-knn", "ndcg@10")
    cold = whole.slices["cold"][at]
    assert table.mean("item-knn", "recall@10/cold") == pytest.approx(only["recall@10"][at][cold].mean())
    assert measured.protocol["users_sampled"] == len(few)
    assert "coverage@10" not in table.estimates["item-knn"] and "coverage@10" in table.estimates["oracle"]
    np.testing.assert_array_equal(measured.tops["item-knn"][at], whole.tops["item-knn"][at])
    assert (np.delete(measured.tops["item-knn"], at, axis=0) == -1).all()
    console = Console(width=400, record=True, file=io.StringIO())
    print_accuracy(table, console)
    assert f"item-knn ({len(few)} users)" in console.export_text()
    # pairs of whole rows are tested over all users, the others over the sample
    among = tabulate(measure([rankers()[0], rankers()[2]], SPLIT, N, seed=1), "popularity", 1)
    assert table.pairs["ndcg@10"]["popularity"]["oracle"] == among.pairs["ndcg@10"]["popularity"]["oracle"]
    gaps = np.stack([whole.values[name]["ndcg@10"][at] for name in ("popularity", "item-knn")], axis=1)
    assert table.pairs["ndcg@10"]["popularity"]["item-knn"] == pytest.approx(paired_ps(gaps, 1)[0, 1], abs=0.02)


def test_a_split_by_time_has_users_of_whom_nothing_is_known_and_items_never_seen():
    ids = ["a"] * 4 + ["b"] * 3 + ["c"] * 2
    times = [0, 1, 2, 9, 0, 5, 9, 8, 9]
    x = Interactions.build(ids, [0, 1, 2, 3, 1, 2, 50, 4, 5], times, [1.0] * 9)
    split = split_by_time(x, 5, 8)
    table = evaluate([Popularity(item_counts(split.train, N))], split, N)
    assert table.measured.users.tolist() == [0, 1, 2] and table.measured.targets.tolist() == [3, 50, 4]
    assert table.measured.slices["no_history"].tolist() == [False, False, True]
    assert table.measured.slices["never_trained"].tolist() == [True, True, True]
    assert table.measured.protocol["users_no_history"] == 1
    assert "ndcg@10/never_trained" in table.estimates["popularity"]


def test_a_row_that_is_not_there_has_no_ratio():
    table = evaluate(rankers(), SPLIT, N)
    assert table.ratio("hybrid", "popularity", "ndcg@10") is None
    assert table.ratio("oracle", "popularity", "ndcg@10/no_history") is None


def test_the_encoder_row_is_the_same_as_its_scorer():
    toy = toy_world()
    knn = ItemKNN(toy.train, 12)
    same = EncoderRanker(knn, name="same").rank([np.array([1, 2])], 5)
    assert same[0].tolist() == knn.rank([np.array([1, 2])], 5)[0].tolist()
