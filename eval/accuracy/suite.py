"""The accuracy suite: evaluates a model directory against tuned baselines; writes per-user values and a result file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.encoders import ease
from llmrec.encoders.config import EncoderKind
from llmrec.encoders.item_knn import item_counts
from llmrec.errors import RequestError
from llmrec.eval.accuracy.ablation import leave_one_component_out
from llmrec.eval.accuracy.measurement import MAIN, AccuracyTable, UserMetrics, measure, print_accuracy, tabulate
from llmrec.eval.accuracy.parallel_ranking import ListsByRow, RankingJob, ScorerOpener, list_cache, rank_in_processes
from llmrec.eval.accuracy.setup import BESIDE, EvaluationSetup, open_model, open_setup
from llmrec.eval.baselines import factorisation
from llmrec.eval.baselines.encoders import tune_encoder
from llmrec.eval.baselines.factorisation import tune_als, tune_bpr
from llmrec.eval.baselines.rankers import EncoderRanker, Popularity
from llmrec.eval.baselines.tuning import (
    USERS,
    TuningLog,
    tune_ease,
    tune_item_knn,
    tune_recent_popularity,
    tune_text_lookup,
)
from llmrec.eval.chat_client import with_caching_scorer
from llmrec.eval.metrics import holm
from llmrec.eval.ranked_lists import Progress, sample_users, target_users
from llmrec.eval.result_file import Target, eval_command, provenance, write_per_user, write_result
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.progress import Counter, Say, Screen
from llmrec.ranker import Ranker, Rows
from llmrec.ranking.fusion import Fusion

SPLITS = ("loo", "time")
MODEL_ROWS = ("llm", "hybrid")
BASELINES = ("popularity", "recent-popularity", "text-lookup", "item-knn", "ease", "als", "bpr", *BESIDE)
NO_BASELINE = "none"
BLIND = "llm, no user vector"
SHOWN = 8  # latest history items shown in the file of lists


def run_accuracy(
    model: str | Path | None,
    data: str | Path | None,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
    split: str = "loo",
    workers: int = 1,
    matmul_dtype: MatmulDtype = "float32",
    ablations: int | None = None,
    baselines: str | None = None,
) -> AccuracyTable:
    """Measure the model and tuned baselines on the held-out items, and print the table.

    Full ranking over the catalogue. Writes `accuracy-<dataset>.json` (`accuracy-time-<dataset>.json` for the split by
    time) to `out`. Before that it writes the values of every user to `per_user` in `out`, and the tuning trials to
    `tuning-<dataset>.jsonl`, which later runs reuse. Lists ranked with the model are kept in `work`, so that an
    interrupted run resumes. Validation items are used to choose settings and to stop training; nothing is refitted on
    them.

    Args:
        model: model directory, None for the shipped one.
        data: its data, None for the data that the model names.
        out: directory of the results.
        limit: measure this many users, drawn by seed, and choose the baselines' settings on the same number of users.
        seed: random seed for users, candidates, baselines, bootstrap and tests.
        split: "loo" holds out the last items of every user, "time" cuts all users at the same two moments.
        workers: number of processes that rank with the model; each loads its own copy.
        matmul_dtype: number format of the language model's matrix products.
        ablations: number of users, drawn by seed, for whom the ablation rows are ranked: the rows other than the hybrid
            that use the language model. They take most of the time. Comparisons with them are made on these users, the
            slice `sampled`.
        baselines: comma-separated names of `BASELINES`, "none", or None for all that are available here. The model's
            own encoder is always measured, as the reference of the table.

    Raises:
        RequestError: the split or baseline does not exist, or there is nothing to measure.
        UserError: a model that belongs to other data or, for "loo", was trained on another train part.
    """
    if split not in SPLITS:
        raise RequestError(f"no split '{split}'; there are: {', '.join(SPLITS)}")
    if ablations is not None and ablations < 1:
        raise RequestError(f"ablations are of {ablations} users; take at least 1, or leave it out for all")
    wanted = chosen_baselines(baselines)
    started = time.monotonic()
    with Screen() as say:
        say("loading the model")
        subject = open_setup(model, data, split, matmul_dtype)
        stem = f"{'accuracy' if split == 'loo' else 'accuracy-time'}-{subject.name}"
        tuned_on = _tuned_on(subject, limit)
        log = TuningLog(out / f"{stem.replace('accuracy', 'tuning')}{_few(subject, tuned_on)}.jsonl", subject.name)
        rankers, skipped = _baselines(subject, seed, log, out / "work", say, wanted, tuned_on)
        users = target_users(subject.split, "test", limit, seed)
        few = None if ablations is None else sample_users(users, ablations, seed)
        opener = partial(open_model, model, data, split, matmul_dtype)
        ours = _ours(subject, seed, users, few, out / "work", workers, opener, say)
        say(f"ranking for {len(users)} users")
        measured = measure(
            rankers,
            subject.split,
            len(subject.catalog),
            limit=limit,
            seed=seed,
            vectors=subject.text,
            progress=_told(say, "ranking"),
            ranked=ours,
        )
        say("comparing the rows")
    measured.save(out, stem.removeprefix("accuracy-"))
    _save_lists(measured, subject.catalog, out, stem)
    table = tabulate(measured, _reference(subject, rankers), seed)
    print_accuracy(table)
    command = eval_command(
        "accuracy", split=split, model=model, data=data, limit=limit, products=matmul_dtype, ablations=ablations,
        baselines=baselines,
    )  # fmt: skip
    came = provenance(seed, command, time.monotonic() - started, len(measured.users))
    protocol = {**_protocol(table, subject, skipped), "validation_users": tuned_on}
    write_result(out / f"{stem}.json", stem.removesuffix(f"-{subject.name}"), subject.name, protocol, table.rows,
                 targets(table, all_baselines=wanted is None), came)  # fmt: skip
    return table


def _baselines(
    subject: EvaluationSetup,
    seed: int,
    log: TuningLog,
    work: Path,
    say: Say,
    wanted: tuple[str, ...] | None,
    users: int,
) -> tuple[list[Ranker], dict[str, str]]:
    """Return the baseline rows, and the reasons why other baselines are not available here.

    Raises:
        RequestError: a baseline was requested by name but is not available here, or there is nothing to measure.
    """
    split, n = subject.split, len(subject.catalog)
    how: dict[str, Any] = {"seed": seed, "users": users, "log": log, "say": say}
    encoders = dict.fromkeys((subject.reference, *BESIDE))
    makers: dict[str, Callable[[], Ranker]] = {
        "popularity": lambda: Popularity(item_counts(split.train, n)),
        "recent-popularity": lambda: tune_recent_popularity(split, n, **how)[0],
        "text-lookup": lambda: tune_text_lookup(split, subject.text, **how)[0],
        "item-knn": lambda: tune_item_knn(split, n, **how)[0],
        "ease": lambda: tune_ease(split, n, **how)[0],
        "als": lambda: tune_als(split, n, **how)[0],
        "bpr": lambda: tune_bpr(split, n, **how)[0],
        **{kind: partial(_encoder, kind, subject, work, how) for kind in encoders},
    }
    skipped = _lacking(n)
    for name in wanted or ():
        if name in skipped:
            raise RequestError(f"--baselines names {name}, which cannot be measured here: {skipped[name]}")
    own = () if subject.encoder is None else (subject.reference,)
    names = [name for name in makers if name in own or ((wanted is None or name in wanted) and name not in skipped)]
    if not names:
        raise RequestError(f"--baselines none leaves nothing to measure: {subject.missing}")
    _announce(say, names, own, users)
    if wanted is None:
        for name, why in skipped.items():
            say(f"{name}: {why}")
    else:
        skipped = {name: "not asked for" for name in BASELINES if name not in names}
    skipped |= {} if subject.recommender else dict.fromkeys(MODEL_ROWS, subject.missing)
    return [makers[name]() for name in names], skipped


def chosen_baselines(words: str | None) -> tuple[str, ...] | None:
    """Parse `--baselines` into names of `BASELINES`; an empty tuple for "none", None for None.

    Raises:
        RequestError: a name that is not in `BASELINES`.
    """
    if words is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in words.split(",")))
    if names == (NO_BASELINE,):
        return ()
    for name in names:
        if name not in BASELINES:
            known = f"{', '.join(BASELINES)}, or {NO_BASELINE} alone"
            close = get_close_matches(name, BASELINES, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise RequestError(f"--baselines: no baseline {name[:60]!r}{hint}; there are: {known}")
    return names


def _lacking(n_items: int) -> dict[str, str]:
    """Baselines that are not available here, with the reasons."""
    found = {} if factorisation.installed() else dict.fromkeys(("als", "bpr"), factorisation.ABSENT)
    if why := ease.why_too_large(n_items):
        found["ease"] = f"not measured: {why}"
    return found


def _announce(say: Say, names: Sequence[str], own: Sequence[str], users: int) -> None:
    """Announce the slow steps before they start."""
    tuned = [name for name in names if name not in (*own, "popularity")]
    if not tuned:
        return
    encoders = [name for name in tuned if name in BESIDE]
    say(f"choosing settings of {', '.join(tuned)} on {users:,} validation users")
    if encoders:
        say(
            f"{' and '.join(encoders)}: encoders are trained on the whole train part for each setting, whatever "
            "--limit says; --baselines chooses fewer rows, or none"
        )


def _tuned_on(subject: EvaluationSetup, limit: int | None) -> int:
    """The number of validation users on which the baselines' settings are chosen."""
    there = min(int((subject.split.valid >= 0).sum()), USERS)
    return there if limit is None else min(there, limit)


def _few(subject: EvaluationSetup, users: int) -> str:
    """The suffix of the log's name, so that a quick run does not replace the trials on all validation users."""
    return "" if users == _tuned_on(subject, None) else f"-of-{users}"


def _reference(subject: EvaluationSetup, rankers: Sequence[Ranker]) -> str:
    """The row that others are compared with: the default reference, or else the last requested row."""
    names = [ranker.name for ranker in rankers]
    return subject.reference if subject.reference in names else names[-1]


def _ours(
    subject: EvaluationSetup,
    seed: int,
    users: Rows,
    few: Rows | None,
    work: Path,
    workers: int,
    opener: ScorerOpener,
    say: Say,
) -> ListsByRow:
    """Lists of the model's own rows: single components, fusions, and the fusion without each of its components."""
    if subject.recommender is None:
        return {}
    recommender = with_caching_scorer(subject.recommender)  # all these rows share one reading of each history
    alone = Fusion({"llm": 1.0})
    fusions = {"llm": alone, BLIND: alone, "hybrid": recommender.fusions["history"]}
    say("fitting the fusion again without each of its parts")
    fusions |= {one.name: one.fusion for one in leave_one_component_out(recommender, subject.split, seed, say)}
    costly = tuple(name for name, fusion in fusions.items() if fusion.weights.get("llm") and name != "hybrid")
    asked = RankingJob(fusions, users, seed, recommender.model.matmul_dtype, (BLIND,), few, costly)
    with list_cache(asked, subject.path, work, subject.split) as folder:
        say(f"ranking with the model for {len(users)} users")
        told = _told(say, "ranking with the model")
        return rank_in_processes(asked, recommender.scorer, subject.split, folder, workers, opener, told)


def _encoder(kind: EncoderKind, subject: EvaluationSetup, work: Path, how: Mapping[str, Any]) -> Ranker:
    """Return an encoder as a row: the model's own encoder for its kind, a tuned one for others."""
    if subject.encoder is not None and kind == subject.reference:
        return EncoderRanker(subject.encoder, kind)
    return tune_encoder(kind, subject.split, len(subject.catalog), work=work, **how)[0]


def _told(say: Say, what: str) -> Progress:
    """A progress counter over users, created when the first of them are done."""
    counters: list[Counter] = []

    def tell(_name: str, done: int, everyone: int) -> None:
        if not counters:
            counters.append(Counter(say, what, everyone, unit="users"))
        counters[0].at(done)

    return tell


def best_baseline(table: AccuracyTable) -> str:
    """The row with the best NDCG@10 that does not belong to the model."""
    others = [name for name in table.estimates if name.split(",")[0] not in MODEL_ROWS]
    return max(others, key=lambda name: table.mean(name, MAIN[1]))


def targets(table: AccuracyTable, all_baselines: bool = True) -> list[Target]:
    """The numbers that the project is held to, for any data; None where the hybrid or a slice is missing.

    The table's reference is the model's own encoder. The comparison with the best baseline is omitted when only some
    baselines were run.
    """
    best, there = best_baseline(table), "hybrid" in table.estimates
    over_best = table.ratio("hybrid", best, "ndcg@10") if all_baselines else None
    return [
        Target("hybrid_over_sasrec_recall10", table.ratio("hybrid", "sasrec", "recall@10")),
        Target("hybrid_over_sasrec_ndcg10", table.ratio("hybrid", "sasrec", "ndcg@10")),
        Target("hybrid_over_best_baseline_ndcg10", over_best),
        Target("hybrid_recall10", table.mean("hybrid", "recall@10") if there else None),
        Target("hybrid_ndcg10", table.mean("hybrid", "ndcg@10") if there else None),
        Target("hybrid_vs_encoder_p", table.p("ndcg@10")["hybrid"] if there else None),
        Target("hybrid_over_encoder_ndcg10", table.ratio("hybrid", table.reference, "ndcg@10")),
        Target("cold_recall10_over_encoder", table.ratio("hybrid", table.reference, "recall@10/cold")),
    ]


def _protocol(table: AccuracyTable, subject: EvaluationSetup, skipped: Mapping[str, str]) -> dict[str, object]:
    fused = {} if subject.recommender is None else dict(subject.recommender.fusions["history"].weights)
    return {
        **table.measured.protocol,
        "best_baseline": best_baseline(table),
        "encoder": table.reference,
        "refit_on_validation": False,
        "rows_left_out": dict(skipped),
        "rows_of_the_sample": [name for name in table.estimates if not table.measured.asked(name).all()],
        "fusion": fused,
        "products": "" if subject.recommender is None else subject.recommender.model.matmul_dtype,
        "p": "two-sided, paired over users, 10,000 sign flips; not corrected unless said",
        **{f"p_{metric}_vs_{table.reference}": table.p(metric) for metric in MAIN},
        **{f"p_{metric}_vs_{table.reference}_holm": holm(table.p(metric)) for metric in MAIN},
        **{f"p_{metric}_between_rows": table.pairs[metric] for metric in MAIN},
    }


def _save_lists(measured: UserMetrics, catalog: Catalog, out: Path, stem: str) -> None:
    """Write the top ten of every row and user as item labels, with the user's history and target."""
    lines = [(name, int(i)) for name in measured.tops for i in np.flatnonzero(measured.asked(name))]
    known = ["; ".join(catalog.label(int(row)) for row in past[-SHOWN:]) for past in measured.histories]
    columns: dict[str, Sequence[object]] = {
        "user": [measured.users[i] for _, i in lines],
        "ranker": [name for name, _ in lines],
        "history": [known[i] for _, i in lines],
        "length": [len(measured.histories[i]) for _, i in lines],
        "target": [catalog.label(int(measured.targets[i])) for _, i in lines],
        "place": [measured.ranks[name][i] for name, i in lines],
        "listed": ["; ".join(catalog.label(int(r)) for r in measured.tops[name][i] if r >= 0) for name, i in lines],
    }
    write_per_user(out, stem.replace("accuracy", "accuracy-lists", 1), {n: np.asarray(c) for n, c in columns.items()})
