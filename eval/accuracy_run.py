"""The accuracy suite from the command line: a model directory and data in, values of every user and a result out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from llmrec import datasets
from llmrec.artifacts import read_manifest
from llmrec.catalog import Catalog
from llmrec.ease import LIMIT as EASE_LIMIT
from llmrec.embed import MiniLM
from llmrec.errors import ArtifactError, DataError, RequestError
from llmrec.eval import baselines_factors
from llmrec.eval.accuracy import MAIN, AccuracyTable, Measured, measure, tabulate
from llmrec.eval.accuracy_ablation import without_each
from llmrec.eval.accuracy_parts import PartsRanker
from llmrec.eval.accuracy_table import print_table
from llmrec.eval.baselines import EncoderRanker, Popularity
from llmrec.eval.baselines_encoders import tune_encoder
from llmrec.eval.baselines_factors import tune_als, tune_bpr
from llmrec.eval.baselines_tuning import TuningLog, tune_ease, tune_item_knn, tune_recent_popularity, tune_text_lookup
from llmrec.eval.metrics import holm
from llmrec.eval.protocol import Target, provenance, write_per_user, write_result
from llmrec.eval.requests import progress_bar, remembering
from llmrec.fusion import Fusion
from llmrec.interactions import Interactions, Split, by_time, leave_one_out
from llmrec.neighbours import item_counts
from llmrec.pretrained import KIND, read_settings
from llmrec.rank import Ranker, Scores
from llmrec.recommend import SHIPPED, Recommender
from llmrec.resources import home
from llmrec.sequence import Kind, SequenceEncoder
from llmrec.textcache import text_vectors

SPLITS = ("loo", "time")
OURS = ("llm", "hybrid")
BESIDE: tuple[Kind, ...] = ("sasrec", "hstu")  # encoders that every table has
BATCH = 8  # users; the language model reads one history at a time anyhow, and the bar should move
SHOWN = 8  # latest items of a history in the list of answers


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured: the data, how it is cut, and the model where it was trained on this very train part.

    Attributes:
        name: of the data, for file names.
        catalog: the items.
        split: train part, validation and test targets.
        text: float32[n, d], vectors of the items' texts.
        recommender: the model, or None.
        missing: why there is none, for the result file.
    """

    name: str
    catalog: Catalog
    split: Split
    text: Scores
    recommender: Recommender | None
    missing: str = ""

    @property
    def encoder(self) -> SequenceEncoder | None:
        """The model's own, if there is a model."""
        return None if self.recommender is None else self.recommender.model.encoder

    @property
    def reference(self) -> Kind:
        """The row that others are compared with: the model's own encoder, else the first that every table has."""
        return BESIDE[0] if self.encoder is None else self.encoder.net.config.kind


def run_accuracy(
    model: str | Path | None,
    data: str | Path | None,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
    split: str = "loo",
) -> AccuracyTable:
    """Measure the model beside tuned baselines on the held-out items; prints the table.

    Full ranking over the catalogue. Writes `accuracy-<dataset>.json` (`accuracy-time-<dataset>.json` for the split by
    time) to `out`, before it the values of every user to `per_user` below it, and what tuning tried to
    `tuning-<dataset>.jsonl`, from where it is taken the next time. Validation items choose settings and stop training;
    nothing is refitted on them.

    Args:
        model: model directory, None for the shipped one.
        data: its data, None for what the model names.
        out: directory of the results.
        limit: measure this many users, drawn by seed.
        seed: of users, candidates, baselines, bootstrap and tests.
        split: "loo" holds out the last items of every user, "time" cuts everybody at the same two moments.

    Raises:
        UserError: a model that belongs to other data or, for "loo", was trained on another train part.
    """
    if split not in SPLITS:
        raise RequestError(f"no split '{split}'; there are: {', '.join(SPLITS)}")
    started = time.monotonic()
    console = Console(stderr=True)
    subject = open_subject(model, data, split)
    stem = f"{'accuracy' if split == 'loo' else 'accuracy-time'}-{subject.name}"
    log = TuningLog(out / f"{stem.replace('accuracy', 'tuning')}.jsonl", subject.name)
    rankers, skipped = _rankers(subject, seed, log, out / "work", console)
    with progress_bar(console) as progress:
        task = progress.add_task("ranking", total=None)
        measured = measure(
            rankers,
            subject.split,
            len(subject.catalog),
            limit=limit,
            seed=seed,
            vectors=subject.text,
            batch=BATCH,
            progress=lambda _name, done, everyone: progress.update(task, completed=done, total=everyone),
        )
    measured.save(out, stem.removeprefix("accuracy-"))
    _save_lists(measured, subject.catalog, out, stem)
    table = tabulate(measured, subject.reference, seed)
    print_table(table)
    command = _command(model, data, limit, split)
    came = provenance(seed, command, time.monotonic() - started, len(measured.users))
    protocol = _protocol(table, subject, skipped)
    write_result(out / f"{stem}.json", stem.removesuffix(f"-{subject.name}"), subject.name, protocol, table.rows,
                 targets(table), came)  # fmt: skip
    return table


def open_subject(model: str | Path | None, data: str | Path | None, split: str) -> Subject:
    """Load the data, cut it, and load the model where it may be measured on this cut."""
    if split == "loo":
        return _whole(Recommender.from_pretrained(model, data), split)
    path = SHIPPED if model is None else Path(model)
    source = str(read_settings(path)["data"] if data is None else data)
    catalog, interactions = datasets.open_data(source)
    cut = global_time(interactions)
    trained = str(read_manifest(path, KIND, verify=False).meta.get("train_fingerprint"))
    if trained == cut.train.fingerprint:
        return _whole(Recommender.from_pretrained(model, data), split)
    missing = (
        f"not measured: the model was trained on the train part {trained[:16]}, this split has "
        f"{cut.train.fingerprint[:16]}; train one on this split to measure it here"
    )
    text = text_vectors(catalog, MiniLM.load(), home() / "cache")
    return Subject(Path(source).name, catalog, cut, text, None, missing)


def _whole(recommender: Recommender, split: str) -> Subject:
    x = recommender.interactions
    cut = leave_one_out(x) if split == "loo" else global_time(x)
    trained = recommender.model_card.get("train_fingerprint")
    if trained != cut.train.fingerprint:
        raise ArtifactError(
            f"the model was trained on the train part {str(trained)[:16]}, this data has "
            f"{cut.train.fingerprint[:16]}: measuring it here would mix train and test"
        )
    name = Path(str(recommender.data_name)).name
    return Subject(name, recommender.catalog, cut, recommender.scorer.text, recommender)


def global_time(x: Interactions, valid: float = 0.8, test: float = 0.9) -> Split:
    """Cut everybody where these shares of all interactions lie behind: `by_time` at quantiles of the log.

    Raises:
        DataError: so many interactions at one moment that the two cuts fall together.
    """
    times = np.sort(x.time)
    if not len(times):
        raise DataError("a log without interactions cannot be cut by time")
    cuts = [int(times[min(int(len(times) * share), len(times) - 1)]) for share in (valid, test)]
    return by_time(x, *cuts)


def _rankers(
    subject: Subject, seed: int, log: TuningLog, work: Path, console: Console
) -> tuple[list[Ranker], dict[str, str]]:
    """All rows that can be had here, and why the others cannot."""
    split, n = subject.split, len(subject.catalog)
    console.print("choosing settings of the baselines on validation")
    rows: list[Ranker] = [
        Popularity(item_counts(split.train, n)),
        tune_recent_popularity(split, n, seed=seed, log=log)[0],
        tune_text_lookup(split, subject.text, seed=seed, log=log)[0],
        tune_item_knn(split, n, seed=seed, log=log)[0],
        *([tune_ease(split, n, seed=seed, log=log)[0]] if n <= EASE_LIMIT else []),
    ]
    skipped = {} if baselines_factors.installed() else dict.fromkeys(("als", "bpr"), baselines_factors.ABSENT)
    if not skipped:
        rows += [tune_als(split, n, seed=seed, log=log)[0], tune_bpr(split, n, seed=seed, log=log)[0]]
    rows += _encoders(subject, seed, log, work, console)
    if subject.recommender is None:
        return rows, skipped | dict.fromkeys(OURS, subject.missing)
    recommender = remembering(subject.recommender)  # all these rows read a history once
    scorer, fusion = recommender.scorer, recommender.fusions["history"]
    rows += [PartsRanker("llm", scorer, Fusion({"llm": 1.0})), PartsRanker("hybrid", scorer, fusion)]
    console.print("fitting the fusion again without each of its parts")
    return [*rows, *without_each(recommender, split, seed)], skipped


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
        "fusion": fused,
        "p": "two-sided, paired over users, 10,000 sign flips; not corrected unless said",
        **{f"p_{metric}_vs_{table.reference}": table.p(metric) for metric in MAIN},
        **{f"p_{metric}_vs_{table.reference}_holm": holm(table.p(metric)) for metric in MAIN},
        **{f"p_{metric}_between_rows": table.pairs[metric] for metric in MAIN},
    }


def _save_lists(measured: Measured, catalog: Catalog, out: Path, stem: str) -> None:
    """Every row's first ten of every user in words, with what was known and what was wanted."""
    names, users = list(measured.tops), len(measured.users)
    known = ["; ".join(catalog.label(int(row)) for row in past[-SHOWN:]) for past in measured.histories]
    shown = [[catalog.label(int(r)) for r in line if r >= 0] for name in names for line in measured.tops[name]]
    columns: dict[str, Sequence[object]] = {
        "user": np.tile(measured.users, len(names)),
        "ranker": [name for name in names for _ in range(users)],
        "history": known * len(names),
        "length": [len(past) for past in measured.histories] * len(names),
        "target": [catalog.label(int(row)) for row in measured.targets] * len(names),
        "place": np.concatenate([measured.ranks[name] for name in names]),
        "listed": ["; ".join(line) for line in shown],
    }
    write_per_user(out, stem.replace("accuracy", "accuracy-lists", 1), {n: np.asarray(c) for n, c in columns.items()})


def _command(model: str | Path | None, data: str | Path | None, limit: int | None, split: str) -> str:
    """As a person would type it; directories by their last name, since where they lie is nobody's business."""
    words = ["llmrec eval --suite accuracy", f"--split {split}" if split != SPLITS[0] else ""]
    words += [f"--{name} {Path(value).name}" for name, value in (("model", model), ("data", data)) if value is not None]
    return " ".join(word for word in [*words, f"--limit {limit}" if limit else ""] if word)
