"""The retention suite: whether the tuned model keeps the base model's language ability.

The tuned model (LoRA on, item tokens not among the word logits) is compared with its own base on the same items:
perplexity of running text, five benchmarks of continuations, and instructions in plain chat. The base is measured first
with LoRA disabled, then LoRA is merged, so that one load suffices and neither side has extra operations. Sizes are
chosen so that everything takes about twenty minutes on two cores. A smaller limit costs precision, which the standard
errors show.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from llmrec.checkpoint.pretrained import MODEL_KIND, load_pretrained, read_settings
from llmrec.data.dataset import open_data
from llmrec.errors import ArtifactError, RequestError
from llmrec.eval.result_file import Row, Target, eval_command, provenance, write_result
from llmrec.eval.retention.benchmarks import IFEVAL, TASKS, WIKITEXT
from llmrec.eval.retention.comparison import WORSE, ComparedMetric, compare, perplexity, print_retention, targets
from llmrec.eval.retention.jobs import Job, prepare_jobs, text_length
from llmrec.eval.retention.likelihood import wikitext_nll
from llmrec.eval.retention.store import Measured, find_values, save_values
from llmrec.lm.model import RecModel
from llmrec.progress import progress_bar
from llmrec.ranking.grounding import GroundingChecker
from llmrec.recommender import SHIPPED
from llmrec.storage.artifacts import read_manifest

__all__ = ["Retention", "measure", "run_retention", "wikitext_nll"]


@dataclass(frozen=True)
class Retention:
    """The measured values.

    Attributes:
        compared: every metric of every task.
        ppl: word-level perplexity: base, tuned and ratio.
        seconds: time taken by side and task.
    """

    compared: Sequence[ComparedMetric]
    ppl: Row
    seconds: Mapping[str, float]

    @property
    def targets(self) -> list[Target]:
        """The numbers that the project is held to."""
        return targets(self.compared, self.ppl.metrics["ratio"].mean)


def run_retention(
    model: str | Path | None,
    data: str | Path | None,
    data_dir: Path | None,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
) -> Retention:
    """Measure a model directory against its base; writes `retention-<dataset>.json` to `out` and prints the table.

    Args:
        model: model directory, None for the shipped one.
        data: prepared data, None for the model's own.
        data_dir: directory of the benchmarks' files as published, compressed or not.
        out: directory of the results; values of all items go to `per_item` in it, from which an interrupted run
            resumes.
        limit: items per task (blocks of running text); None takes the default sizes.
        seed: random seed for the samples.

    Raises:
        UserError: a file is missing (says what to fetch), or the model cannot be loaded.
    """
    if data_dir is None:
        raise RequestError("--data-dir is missing: say where the files of the language benchmarks are")
    for source in (WIKITEXT, *(task.source for task in TASKS), IFEVAL):
        source.find(data_dir)
    if model is None and not SHIPPED.is_dir():
        raise ArtifactError("no model given, and the shipped one is not beside this installation: give its directory")
    path = SHIPPED if model is None else Path(model)
    source_name = str(read_settings(path)["data"] if data is None else data)
    catalog, _ = open_data(source_name)
    manifest = read_manifest(path, MODEL_KIND, verify=False)
    loaded = load_pretrained(path, catalog).model
    jobs = prepare_jobs(loaded, data_dir, GroundingChecker(catalog), limit, seed)
    name = Path(source_name).name
    prints = (manifest.fingerprints["base"], manifest.files["adapter.safetensors"][0])
    console = Console(stderr=True)
    result = measure(loaded, jobs, prints, out / "per_item", name, text_length(loaded, data_dir), console)
    _write(result, out, name, data_dir, limit, seed)
    print_retention(result.compared, result.ppl, {one.name: one.value for one in result.targets}, Console())
    return result


def measure(
    model: RecModel,
    jobs: Sequence[Job],
    prints: tuple[str, str],
    store: Path,
    dataset: str,
    length: tuple[int, int],
    console: Console | None = None,
) -> Retention:
    """Measure base, then tuned, on all jobs; the model is merged afterwards.

    Args:
        model: not merged.
        jobs: of `ready`; the first is running text.
        prints: fingerprints of the base and of the added weights.
        store: directory of the stored values.
        dataset: name of the data, for file names.
        length: tokens and words of the whole running text.
        console: for progress; None shows none.
    """
    sides: dict[str, dict[str, Measured]] = {}
    with progress_bar(console or Console(quiet=True)) as progress:
        for side in ("base", "tuned"):
            if side == "tuned":
                model.merge()
            with model.base_only() if side == "base" else nullcontext():
                sides[side] = {
                    job.sample.task: _side(model, job, side, prints, store, dataset, progress) for job in jobs
                }
    compared: list[ComparedMetric] = []
    for job in jobs:
        task = job.sample.task
        compared += compare(task, sides["base"][task].values, sides["tuned"][task].values, job.main)
    seconds = {f"{side} {task}": one.seconds for side, own in sides.items() for task, one in own.items()}
    return Retention(compared, perplexity(compared[0], *length), seconds)


def _side(
    model: RecModel, job: Job, side: str, prints: tuple[str, str], store: Path, dataset: str, progress: Progress
) -> Measured:
    """Return the values of one task on one side, loaded, or measured and saved."""
    sample = replace(job.sample, model=prints[:1] if side == "base" else prints)
    path = store / f"retention-{dataset}-{sample.task}-{side}.parquet"
    bar = progress.add_task(f"{side} {sample.task}", total=len(job.numbers))
    measured = find_values(path, sample)
    if measured is None:
        started = time.monotonic()
        values = job.run(model, lambda done: progress.update(bar, completed=done))
        measured = Measured(job.numbers, values, time.monotonic() - started)
        save_values(path, sample, measured)
        if not progress.console.is_terminal:  # progress bars appear only at the end, so report progress as text
            progress.console.print(f"{side} {sample.task}: {len(values)} items, {measured.seconds:.0f} s")
    progress.update(bar, completed=len(job.numbers))
    return measured


def _write(result: Retention, out: Path, dataset: str, data_dir: Path, limit: int | None, seed: int) -> None:
    mains = [one for one in result.compared if one.main]
    protocol = {
        "compared": "tuned (LoRA on) with its own base on the same items; word logits only, no examples in prompts",
        "main": {one.task: one.metric for one in mains},
        "items": {one.task: one.n for one in result.compared},
        "worse": [one.task for one in mains if one.worse],
        "better": [one.task for one in mains if one.better],
        "significance": f"paired difference beyond {WORSE:g} standard errors",
        "task_mean_ratio": "mean of the main accuracies over the tasks, tuned over base",
        "seconds": dict(result.seconds),
    }
    command = eval_command("retention", data_dir=data_dir, limit=limit)
    rows = [result.ppl, *(one.row for one in result.compared)]
    n = sum({one.task: one.n for one in result.compared}.values())
    where = provenance(seed, command, sum(result.seconds.values()), n)
    write_result(out / f"retention-{dataset}.json", "retention", dataset, protocol, rows, result.targets, where)
