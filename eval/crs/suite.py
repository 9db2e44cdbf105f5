"""Evaluates recommendation in published dialogues: finds every film that the recommender names from what was said.

Settings and fusion weights are chosen on the latest part of the train pool. Then all components are refitted on the
whole pool with those weights, and the test part is answered once.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.encoders.text import Embedder, MiniLM
from llmrec.errors import DataError, RequestError
from llmrec.eval.console_tables import print_columns
from llmrec.eval.crs.components import (
    ALL,
    NEIGHBOURS,
    NEW,
    component_scores,
    fit_components,
    log_popularity,
    mention_log,
    text_lookup,
)
from llmrec.eval.crs.data import Corpus, CrsQuestions, Dialogue, allowed_items, questions_of, split_latest
from llmrec.eval.crs.embeddings import CONTEXT_TURNS, CorpusVectors, embed_corpus
from llmrec.eval.crs.two_tower import TwoTowerSettings
from llmrec.eval.metrics import per_user, target_ranks
from llmrec.eval.result_file import Estimate, Row, Target, eval_command, provenance, write_per_user, write_result
from llmrec.ranker import Rows, Scores
from llmrec.ranking.fusion import Fusion, fit
from llmrec.ranking.scorer import fixed_threads
from llmrec.storage.registry import cache_home

KS = (1, 10, 50)
MODEL = "fusion"
VALIDATION = 0.15  # latest share of the train pool used for validation
GRID = {"alpha": (0.5, 0.7, 0.85, 1.0), "decay": (0.0, 0.5, 1.0), "shrink": (2.0, 10.0)}
ANSWERED = 512  # questions scored per batch
# Three evaluation views: metric prefix, questions, and whether films named before may be answered.
VIEWS = {"novel_": (False, False), "": (True, True), "novel_unfiltered_": (False, True)}


@dataclass(frozen=True, eq=False)
class ValidationChoice:
    """The choices made on the validation split.

    Attributes:
        fusions: weights, keyed by whether films named before may be answered.
        knn: settings of the item-knn row.
    """

    fusions: Mapping[bool, Fusion]
    knn: NeighbourSettings


def run_crs(
    name: str,
    data_dir: Path | None,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
    settings: TwoTowerSettings = TwoTowerSettings(),  # noqa: B008
) -> list[Row]:
    """Evaluate on one benchmark; writes the rank of every target and then `conversation-<name>.json` to `out`.

    Args:
        name: "redial" or "inspired".
        data_dir: directory of its files.
        out: directory of the results.
        limit: answer only this many test dialogues, drawn by seed.
        seed: random seed for the networks and the bootstrap.
        settings: settings of the networks.

    Raises:
        RequestError: no directory was given.
        DataError: the files are missing or malformed.
    """
    started = time.monotonic()
    if data_dir is None:
        raise RequestError(f"the {name} suite needs its data set: say with --data-dir where it is")
    if not data_dir.is_dir():
        raise RequestError(f"no directory {str(data_dir)!r}; --data-dir is where the {name} data set lies")
    corpus = _limited(READERS[name](data_dir), limit, seed)
    with fixed_threads():
        rows, ranks, chosen = measure(
            corpus, MiniLM.load(), cache_home() / "cache", settings, seed, Console(stderr=True)
        )
    cases = questions_of(corpus.test)
    places = {"dialogue": cases.dialogue, "turn": cases.turn, "repeated": cases.repeated}
    write_per_user(out, f"conversation-{name}", {**places, **ranks})
    print_crs(rows)
    command = eval_command(name, data_dir=name, limit=limit)
    came = provenance(seed, command, time.monotonic() - started, len(cases))
    write_result(out / f"conversation-{name}.json", "conversation", name, _protocol(corpus, cases, chosen, settings),
                 rows, targets(rows), came)  # fmt: skip
    return rows


def _limited(corpus: Corpus, limit: int | None, seed: int) -> Corpus:
    if limit is None or limit >= len(corpus.test):
        return corpus
    chosen = np.sort(np.random.default_rng(seed).choice(len(corpus.test), limit, replace=False))
    return replace(corpus, test=tuple(corpus.test[place] for place in chosen))


def measure(
    corpus: Corpus, embedder: Embedder, cache: Path, settings: TwoTowerSettings, seed: int, console: Console
) -> tuple[list[Row], dict[str, Rows], ValidationChoice]:
    """Choose settings on validation, fit on the whole pool, and answer the test part.

    Returns:
        The rows; the rank of every target by "row/view", int64[q], -1 where it was not an allowed answer; the choices.

    Raises:
        DataError: too few dialogues for validation or for the test.
    """
    earlier, later = split_latest(corpus.train, VALIDATION)
    valid, test = questions_of(later), questions_of(corpus.test)
    if not len(valid) or not len(test) or not earlier:
        raise DataError(f"{corpus.name}: too few dialogues: {len(corpus.train)} to learn from, {len(corpus.test)} test")
    console.print("embedding what is said")
    vectors = embed_corpus(corpus, (valid, test), embedder, cache)
    console.print(f"choosing on {len(valid)} targets of the latest {len(later)} training dialogues")
    chosen = choose_settings(corpus, earlier, valid, vectors, settings, seed)
    console.print(f"learning from {len(corpus.train)} dialogues, answering {len(test)} targets")
    ranks = _answers(corpus, test, vectors, chosen, settings, seed)
    return estimates(test, ranks, seed), ranks, chosen


def choose_settings(
    corpus: Corpus,
    earlier: Sequence[Dialogue],
    valid: CrsQuestions,
    vectors: CorpusVectors,
    settings: TwoTowerSettings,
    seed: int,
) -> ValidationChoice:
    """Fit the fusion weights and pick the settings of item-knn on validation targets."""
    n = len(corpus.catalog)
    parts = component_scores(fit_components(earlier, corpus.catalog, vectors, settings, seed), valid, vectors)
    fusions = {}
    for again, names in ((False, NEW), (True, ALL)):
        use = np.ones(len(valid), np.bool_) if again else ~valid.repeated
        prior = {name: 1.0 if name == "network" else 0.1 for name in names}
        some = {name: parts[name][use] for name in names}
        fusions[again] = fit(some, valid.target[use], allowed_items(valid, n, again)[use], prior)
    return ValidationChoice(fusions, _tune_knn(earlier, valid, n))


def _tune_knn(earlier: Sequence[Dialogue], valid: CrsQuestions, n: int) -> NeighbourSettings:
    """Choose the settings with the best recall@10 on validation targets that were not named before."""
    new = valid.where(~valid.repeated)
    free, histories, said = allowed_items(new, n, False), new.histories(), mention_log(earlier)

    def settings(values: tuple[Any, ...]) -> NeighbourSettings:
        return replace(NEIGHBOURS, **dict(zip(GRID, values, strict=True)))

    def recall(values: tuple[Any, ...]) -> float:
        knn = fit_neighbours(said, n, settings(values))
        return float(per_user(target_ranks(knn.scores(histories), new.target, free), ks=[10])["recall@10"].mean())

    best = max(itertools.product(*GRID.values()), key=recall)
    return settings(best)


def _answers(
    corpus: Corpus,
    test: CrsQuestions,
    vectors: CorpusVectors,
    chosen: ValidationChoice,
    settings: TwoTowerSettings,
    seed: int,
) -> dict[str, Rows]:
    """Return the rank of every target by "row/view": int64[q]."""
    n = len(corpus.catalog)
    learnt = fit_components(corpus.train, corpus.catalog, vectors, settings, seed)
    knn = fit_neighbours(mention_log(corpus.train), n, chosen.knn)
    common = log_popularity(questions_of(corpus.train).target, n)
    found: dict[str, list[Rows]] = {}
    for some in _blocks(test):
        parts = component_scores(learnt, some, vectors)
        free = {again: allowed_items(some, n, again) for again in (False, True)}
        fused = {again: fusion.combine(parts) for again, fusion in chosen.fusions.items()}
        # without and with films named before
        scores: dict[str, tuple[Scores, Scores]] = {
            "popularity": (np.tile(common, (len(some), 1)),) * 2,
            "text-lookup": (text_lookup(some, vectors),) * 2,
            "item-knn": (knn.scores(some.histories()),) * 2,
            "network": (parts["network"],) * 2,
            MODEL: (fused[False], fused[True]),
        }
        for name, pair in scores.items():
            for again, values in zip((False, True), pair, strict=True):
                key = f"{name}/{'all' if again else 'new'}"
                found.setdefault(key, []).append(target_ranks(values, some.target, free[again]))
    return {key: np.concatenate(ranks) for key, ranks in found.items()}


def _blocks(cases: CrsQuestions) -> list[CrsQuestions]:
    places = np.arange(len(cases))
    return [cases.where(places // ANSWERED == block) for block in range(-(-len(cases) // ANSWERED))]


def estimates(cases: CrsQuestions, ranks: Mapping[str, Rows], seed: int) -> list[Row]:
    """One result row per name, with intervals over dialogues, since targets of one dialogue are not independent."""
    rows = []
    for name in dict.fromkeys(key.rpartition("/")[0] for key in ranks):
        found = {}
        for prefix, (repeated_too, again) in VIEWS.items():
            use = np.ones(len(cases), np.bool_) if repeated_too else ~cases.repeated
            values = per_user(ranks[f"{name}/{'all' if again else 'new'}"][use], ks=KS)
            for metric in (*(f"recall@{k}" for k in KS), "ndcg@10", "mrr@10"):
                found[f"{prefix}{metric}"] = over_dialogues(values[metric], cases.dialogue[use], seed)
        rows.append(Row(name, found))
    return rows


def over_dialogues(values: np.ndarray, dialogue: Rows, seed: int, n: int = 1000) -> Estimate:
    """Mean of float64[q] and its 95 % bootstrap interval, resampling whole dialogues (int64[q])."""
    _, group = np.unique(dialogue, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    for i in range(n):
        drawn = rng.integers(0, len(sums), len(sums))
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), (float(low), float(high)))


def targets(rows: Sequence[Row]) -> list[Target]:
    """The numbers that the project is held to, for films not named before, with earlier films excluded."""
    ours = next(row for row in rows if row.name == MODEL)
    return [Target(f"novel_recall{k}", ours.metrics[f"novel_recall@{k}"].mean) for k in KS]


def _protocol(
    corpus: Corpus, cases: CrsQuestions, chosen: ValidationChoice, settings: TwoTowerSettings
) -> dict[str, object]:
    return {
        "available": corpus.available,
        "question": "every film that the recommender names in a turn, given all turns before; a turn is what one "
        "person says until the other speaks, a film named twice in it counts once",
        "candidates": f"all {len(corpus.catalog)} films",
        "targets": len(cases),
        "targets_novel": int((~cases.repeated).sum()),
        "novel_recall": "targets not named before; films named before are left out of every row's ranking",
        "novel_unfiltered_recall": "the same targets, nothing left out: comparable with published numbers",
        "recall": "all targets, nothing left out",
        "ties": "count against the target",
        "intervals": "bootstrap over dialogues",
        "chosen_on": f"the latest {VALIDATION:.0%} of the train pool: fusion weights, settings of item-knn and network",
        "refit_on_validation": "neighbours, popularity and networks are learnt again from the whole pool; the weights "
        "stay",
        "language_model": "not asked: neither its scores nor its words are part of these rows",
        "fusion_novel": dict(chosen.fusions[False].weights),
        "fusion_all": dict(chosen.fusions[True].weights),
        "item-knn": {name: getattr(chosen.knn, name) for name in GRID},
        "text-lookup": f"likeness of a film's text to the latest {CONTEXT_TURNS} turns with their titles",
        "network": vars(settings),
        "marks_of_the_test_dialogues_read": "none: whether a film was liked is told after the dialogue",
    }


def print_crs(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print recall of every row under every view."""
    shown = [f"{prefix}recall@{k}" for prefix in VIEWS for k in KS]
    print_columns(
        ["", *shown], [[row.name, *(f"{row.metrics[name].mean:.3f}" for name in shown)] for row in rows], console
    )


def _redial(directory: Path) -> Corpus:
    from llmrec.eval.crs.redial import read_redial

    return read_redial(directory)


def _inspired(directory: Path) -> Corpus:
    from llmrec.eval.crs.inspired import read_inspired

    return read_inspired(directory)


READERS: Mapping[str, Callable[[Path], Corpus]] = {"redial": _redial, "inspired": _inspired}
