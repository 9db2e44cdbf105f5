"""The accuracy suite from the command line: a model directory and data in, values of every user and a result out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from llmrec import ease
from llmrec.catalog import Catalog
from llmrec.errors import RequestError
from llmrec.eval import baselines_factors
from llmrec.eval.accuracy import MAIN, AccuracyTable, Measured, measure, tabulate
from llmrec.eval.accuracy_ablation import without_each
from llmrec.eval.accuracy_pool import Asking, Found, Opener, kept, rank_rows
from llmrec.eval.accuracy_subject import BESIDE, Subject, open_model, open_subject
from llmrec.eval.accuracy_table import print_table
from llmrec.eval.baselines import EncoderRanker, Popularity
from llmrec.eval.baselines_encoders import tune_encoder
from llmrec.eval.baselines_factors import tune_als, tune_bpr
from llmrec.eval.baselines_tuning import TuningLog, tune_ease, tune_item_knn, tune_recent_popularity, tune_text_lookup
from llmrec.eval.lists import sample, target_users
from llmrec.eval.metrics import holm
from llmrec.eval.protocol import Target, eval_command, provenance, write_per_user, write_result
from llmrec.eval.requests import progress_bar, remembering
from llmrec.fusion import Fusion
from llmrec.neighbours import item_counts
from llmrec.packed import Products
from llmrec.rank import Ranker, Rows

SPLITS = ("loo", "time")
OURS = ("llm", "hybrid")
BLIND = "llm, no user vector"
SHOWN = 8  # latest items of a history in the list of answers


def run_accuracy(
    model: str | Path | None,
    data: str | Path | None,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
    split: str = "loo",
    workers: int = 1,
    products: Products = "float32",
    ablations: int | None = None,
) -> AccuracyTable:
    """Measure the model beside tuned baselines on the held-out items; prints the table.

    Full ranking over the catalogue. Writes `accuracy-<dataset>.json` (`accuracy-time-<dataset>.json` for the split by
    time) to `out`, before it the values of every user to `per_user` below it, and what tuning tried to
    `tuning-<dataset>.jsonl`, from where it is taken the next time. What the model ranked stays in `work`: a
    run that was ended goes on. Validation items choose settings and stop training; nothing is refitted on them.

    Args:
        model: model directory, None for the shipped one.
        data: its data, None for what the model names.
        out: directory of the results.
        limit: measure this many users, drawn by seed.
        seed: of users, candidates, baselines, bootstrap and tests.
        split: "loo" holds out the last items of every user, "time" cuts everybody at the same two moments.
        workers: processes that rank with the model, each with one of its own.
        products: number format of the language model's matrix products.
        ablations: rank the rows that only say what a part earns for this many of the users, drawn by seed: those beside
            the hybrid that ask the language model. They take most of the time; what is compared with them is compared
            on these users, the slice `sampled`.

    Raises:
        UserError: a model that belongs to other data or, for "loo", was trained on another train part.
    """
    if split not in SPLITS:
        raise RequestError(f"no split '{split}'; there are: {', '.join(SPLITS)}")
    if ablations is not None and ablations < 1:
        raise RequestError(f"ablations are of {ablations} users; take at least 1, or leave it out for all")
    started = time.monotonic()
    console = Console(stderr=True)
    subject = open_subject(model, data, split, products)
    stem = f"{'accuracy' if split == 'loo' else 'accuracy-time'}-{subject.name}"
    log = TuningLog(out / f"{stem.replace('accuracy', 'tuning')}.jsonl", subject.name)
    rankers, skipped = _baselines(subject, seed, log, out / "work", console)
    users = target_users(subject.split, "test", limit, seed)
    few = None if ablations is None else sample(users, ablations, seed)
    ours = _ours(
        subject, seed, users, few, out / "work", workers, partial(open_model, model, data, split, products), console
    )
    with progress_bar(console) as progress:
        task = progress.add_task("ranking", total=None)
        measured = measure(
            rankers,
            subject.split,
            len(subject.catalog),
            limit=limit,
            seed=seed,
            vectors=subject.text,
            progress=lambda _name, done, everyone: progress.update(task, completed=done, total=everyone),
            ranked=ours,
        )
    measured.save(out, stem.removeprefix("accuracy-"))
    _save_lists(measured, subject.catalog, out, stem)
    table = tabulate(measured, subject.reference, seed)
    print_table(table)
    command = eval_command(
        "accuracy", split=split, model=model, data=data, limit=limit, products=products, ablations=ablations
    )
    came = provenance(seed, command, time.monotonic() - started, len(measured.users))
    protocol = _protocol(table, subject, skipped)
    write_result(out / f"{stem}.json", stem.removesuffix(f"-{subject.name}"), subject.name, protocol, table.rows,
                 targets(table), came)  # fmt: skip
    return table


def _baselines(
    subject: Subject, seed: int, log: TuningLog, work: Path, console: Console
) -> tuple[list[Ranker], dict[str, str]]:
    """The rows beside the model's own, and why others cannot be had here."""
    split, n = subject.split, len(subject.catalog)
    console.print("choosing settings of the baselines on validation")
    rows: list[Ranker] = [
        Popularity(item_counts(split.train, n)),
        tune_recent_popularity(split, n, seed=seed, log=log)[0],
        tune_text_lookup(split, subject.text, seed=seed, log=log)[0],
        tune_item_knn(split, n, seed=seed, log=log)[0],
    ]
    skipped: dict[str, str] = {}
    if why := ease.lacking(n):
        skipped["ease"] = f"not measured: {why}"
    else:
        rows.append(tune_ease(split, n, seed=seed, log=log)[0])
    if baselines_factors.installed():
        rows += [tune_als(split, n, seed=seed, log=log)[0], tune_bpr(split, n, seed=seed, log=log)[0]]
    else:
        skipped |= dict.fromkeys(("als", "bpr"), baselines_factors.ABSENT)
    rows += _encoders(subject, seed, log, work, console)
    if not subject.recommender:
        skipped |= dict.fromkeys(OURS, subject.missing)
    for name, reason in skipped.items():
        console.print(f"{name}: {reason}", highlight=False, markup=False)
    return rows, skipped


def _ours(
    subject: Subject,
    seed: int,
    users: Rows,
    few: Rows | None,
    work: Path,
    workers: int,
    opener: Opener,
    console: Console,
) -> Found:
    """Lists of the model's own rows: alone, fused, and fused without each of its parts."""
    if subject.recommender is None:
        return {}
    recommender = remembering(subject.recommender)  # all these rows read a history once
    alone = Fusion({"llm": 1.0})
    fusions = {"llm": alone, BLIND: alone, "hybrid": recommender.fusions["history"]}
    console.print("fitting the fusion again without each of its parts")
    fusions |= {one.name: one.fusion for one in without_each(recommender, subject.split, seed)}
    costly = tuple(name for name, fusion in fusions.items() if fusion.weights.get("llm") and name != "hybrid")
    asked = Asking(fusions, users, seed, recommender.model.products, (BLIND,), few, costly)
    with kept(asked, subject.path, work, subject.split) as folder, progress_bar(console) as progress:
        task = progress.add_task("ranking with the model", total=None)
        return rank_rows(
            asked, recommender.scorer, subject.split, folder, workers, opener,
            lambda _name, done, everyone: progress.update(task, completed=done, total=everyone),
        )  # fmt: skip


def _encoders(subject: Subject, seed: int, log: TuningLog, work: Path, console: Console) -> Iterator[Ranker]:
    """SASRec and HSTU, tuned; the model's own encoder stands for its kind."""
    for kind in dict.fromkeys((subject.reference, *BESIDE)):
        if subject.encoder is not None and kind == subject.reference:
            yield EncoderRanker(subject.encoder, kind)
        else:
            n, say = len(subject.catalog), console.print
            yield tune_encoder(kind, subject.split, n, seed=seed, log=log, work=work, say=say)[0]


def best_baseline(table: AccuracyTable) -> str:
    """The row with the best NDCG@10 that is not ours."""
    others = [name for name in table.estimates if name.split(",")[0] not in OURS]
    return max(others, key=lambda name: table.mean(name, MAIN[1]))


def targets(table: AccuracyTable) -> list[Target]:
    """The numbers that the project is held to, for any data; None where the hybrid or a slice is not there.

    The table's reference is the model's own encoder.
    """
    best, there = best_baseline(table), "hybrid" in table.estimates
    return [
        Target("hybrid_over_sasrec_recall10", table.ratio("hybrid", "sasrec", "recall@10")),
        Target("hybrid_over_sasrec_ndcg10", table.ratio("hybrid", "sasrec", "ndcg@10")),
        Target("hybrid_over_best_baseline_ndcg10", table.ratio("hybrid", best, "ndcg@10")),
        Target("hybrid_recall10", table.mean("hybrid", "recall@10") if there else None),
        Target("hybrid_ndcg10", table.mean("hybrid", "ndcg@10") if there else None),
        Target("hybrid_vs_encoder_p", table.p("ndcg@10")["hybrid"] if there else None),
        Target("hybrid_over_encoder_ndcg10", table.ratio("hybrid", table.reference, "ndcg@10")),
        Target("cold_recall10_over_encoder", table.ratio("hybrid", table.reference, "recall@10/cold")),
    ]


def _protocol(table: AccuracyTable, subject: Subject, skipped: Mapping[str, str]) -> dict[str, object]:
    fused = {} if subject.recommender is None else dict(subject.recommender.fusions["history"].weights)
    return {
        **table.measured.protocol,
        "best_baseline": best_baseline(table),
        "encoder": table.reference,
        "refit_on_validation": False,
        "rows_left_out": dict(skipped),
        "rows_of_the_sample": [name for name in table.estimates if not table.measured.asked(name).all()],
        "fusion": fused,
        "products": "" if subject.recommender is None else subject.recommender.model.products,
        "p": "two-sided, paired over users, 10,000 sign flips; not corrected unless said",
        **{f"p_{metric}_vs_{table.reference}": table.p(metric) for metric in MAIN},
        **{f"p_{metric}_vs_{table.reference}_holm": holm(table.p(metric)) for metric in MAIN},
        **{f"p_{metric}_between_rows": table.pairs[metric] for metric in MAIN},
    }


def _save_lists(measured: Measured, catalog: Catalog, out: Path, stem: str) -> None:
    """Every row's first ten of every user in words, with what was known and what was wanted."""
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
