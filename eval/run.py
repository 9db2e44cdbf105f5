"""The suites as the command line calls them: a model directory and data in, a result file out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llmrec.artifacts import write_bytes_atomic
from llmrec.errors import ArtifactError, RequestError
from llmrec.eval.accuracy import AccuracyTable, evaluate, print_table
from llmrec.eval.baselines import EncoderRanker, Popularity, Trial, tune_item_knn, tune_text_lookup
from llmrec.eval.lists import target_users
from llmrec.eval.protocol import Target, provenance, write_result
from llmrec.fusion import Fusion
from llmrec.interactions import Split, leave_one_out
from llmrec.neighbours import item_counts
from llmrec.rank import Ranker, top_k
from llmrec.recommend import Recommender
from llmrec.scoring import Scorer

SUITES = ("accuracy",)
BASELINES = ("popularity", "item-knn", "sasrec", "text-lookup")


class PartsRanker:
    """A row of the table made from the scorer's parts: one of them alone, or a fusion.

    Rows share `memory`, so that the language model reads each history once whatever the number of rows.
    """

    def __init__(self, name: str, scorer: Scorer, fusion: Fusion, memory: dict[bytes, dict[str, np.ndarray]]) -> None:
        self.name, self._scorer, self._fusion, self._memory = name, scorer, fusion, memory

    def rank(
        self, histories: Sequence[np.ndarray], k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `Ranker` protocol."""
        lines = [self._parts(history) for history in histories]
        scores = [self._fusion.combine({n: p[None] for n, p in line.items()})[0] for line in lines]
        return top_k(np.stack(scores) if scores else np.zeros((0, len(self._scorer.text)), np.float32), k, allowed)

    def _parts(self, history: np.ndarray) -> dict[str, np.ndarray]:
        key = np.asarray(history, np.int64).tobytes()
        if key not in self._memory:
            self._memory[key] = {name: part[0] for name, part in self._scorer.parts([history]).items()}
        return self._memory[key]


def run_accuracy(
    model: str | Path | None, data: str | Path | None, out: Path, limit: int | None = None, seed: int = 0
) -> AccuracyTable:
    """Measure the model beside tuned baselines on the held-out items; writes `accuracy-<dataset>.json` to `out`.

    Leave-one-out, full ranking, seen items filtered. The encoder row is the model's own encoder, trained on the train
    part and tuned on validation; validation items are never used to refit anything.

    Raises:
        UserError: a model that belongs to other data or was trained on another split.
    """
    started = time.monotonic()
    console = Console(stderr=True)
    recommender = Recommender.from_pretrained(model, data)
    split = leave_one_out(recommender.interactions)
    _same_split(recommender, split)
    n = len(recommender.catalog)
    console.print("tuning item-knn and text-lookup on validation")
    rankers, log = _rankers(recommender, split, n, seed)
    users = target_users(split, "test", limit, seed)
    with _bar(console) as progress:
        task = progress.add_task("ranking", total=len(users) * len(rankers))
        places = {ranker.name: place * len(users) for place, ranker in enumerate(rankers)}
        table = evaluate(
            rankers,
            split,
            n,
            limit=limit,
            seed=seed,
            reference="sasrec",
            vectors=recommender.scorer.text,
            batch=8,
            progress=lambda name, done, _all: progress.update(task, completed=places[name] + done),
        )
    print_table(table)
    _write(table, recommender, log, out, limit, seed, time.monotonic() - started)
    return table


def _same_split(recommender: Recommender, split: Split) -> None:
    trained = recommender.model_card.get("train_fingerprint")
    if trained != split.train.fingerprint:
        raise ArtifactError(
            f"the model was trained on the train part {str(trained)[:16]}, this data has "
            f"{split.train.fingerprint[:16]}: measuring it here would mix train and test"
        )


def _rankers(recommender: Recommender, split: Split, n: int, seed: int) -> tuple[list[Ranker], list[Trial]]:
    scorer = recommender.scorer
    knn, knn_log = tune_item_knn(split, n, seed=seed)
    text, text_log = tune_text_lookup(split, scorer.text, seed=seed)
    memory: dict[bytes, dict[str, np.ndarray]] = {}
    rankers: list[Ranker] = [
        Popularity(item_counts(split.train, n)),
        knn,
        EncoderRanker(scorer.model.encoder, "sasrec"),
        text,
        PartsRanker("llm", scorer, Fusion({"llm": 1.0}), memory),
        PartsRanker("hybrid", scorer, recommender.fusions["history"], memory),
    ]
    return rankers, [*knn_log, *text_log]


def _write(
    table: AccuracyTable,
    recommender: Recommender,
    log: Sequence[Trial],
    out: Path,
    limit: int | None,
    seed: int,
    seconds: float,
) -> None:
    name = Path(str(recommender.data_name)).name
    best = max(BASELINES, key=lambda row: table.mean(row, "ndcg@10"))
    targets = [
        Target("hybrid_over_sasrec_recall10", table.ratio("hybrid", "sasrec", "recall@10")),
        Target("hybrid_over_sasrec_ndcg10", table.ratio("hybrid", "sasrec", "ndcg@10")),
        Target("hybrid_over_best_baseline_ndcg10", table.ratio("hybrid", best, "ndcg@10")),
    ]
    protocol = {
        **table.protocol,
        "best_baseline": best,
        "refit_on_validation": False,
        "p_ndcg@10_vs_sasrec": {row: p["ndcg@10"] for row, p in table.p.items()},
        "p_recall@10_vs_sasrec": {row: p["recall@10"] for row, p in table.p.items()},
        "fusion": dict(recommender.fusions["history"].weights),
    }
    table.save_per_user(out, name)
    command = "llmrec eval --suite accuracy" + (f" --limit {limit}" if limit else "")
    path = out / f"accuracy-{name}.json"
    write_result(
        path, "accuracy", name, protocol, table.rows, targets, provenance(seed, command, seconds, len(table.users))
    )
    lines = [
        json.dumps({"dataset": name, "part": "valid", **vars(trial)}, sort_keys=True, default=str) for trial in log
    ]
    write_bytes_atomic(out / f"tuning-{name}.jsonl", ("\n".join(lines) + "\n").encode())


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )


def run(suite: str, model: str | Path | None, data: str | Path | None, out: Path, limit: int | None = None) -> None:
    """One suite by name.

    Raises:
        RequestError: for a suite that does not exist.
    """
    if suite not in SUITES:
        raise RequestError(f"no suite '{suite}'; there is: {', '.join(SUITES)}")
    run_accuracy(model, data, out, limit)
