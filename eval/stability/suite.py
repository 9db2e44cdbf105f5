"""The stability suite: whether a request gets the same answer in other words or with its items in another order.

Every request goes through the chat as typed text. The product is compared with its own base model, which gets the
candidates in the prompt and ranks them by letter and by title.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from llmrec.data.catalog import Catalog
from llmrec.eval.chat_client import ask_chat, open_base_model, open_evaluated_model
from llmrec.eval.console_tables import print_columns
from llmrec.eval.ranked_lists import target_users
from llmrec.eval.result_file import Estimate, Row, Target, eval_command, provenance, write_per_user, write_result
from llmrec.eval.stability import base_model, paraphrases
from llmrec.eval.stability.metrics import TOP, agreement, quarters, spread, spread_ci
from llmrec.eval.stability.request_variants import CANDIDATES, GROUPS, NAMED, Case, Variant, draw_cases, variants
from llmrec.progress import progress_bar
from llmrec.recommender import Recommender

USERS = 16  # takes some ten minutes on two cores with the settings below
BASE_USERS = 5  # the base model reads every candidate again for every variant
EQUALS = ("order", "paraphrase")  # groups of equivalent variants: all pairs are compared
DISTURBED = "noise+irrelevant"

AnswerVariant = Callable[[Case, Variant], Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True)
class RankedVariant:
    """One system's answer to one variant: rows best first, empty if it gave no list.

    `place` is the 0-based position of the held-out item, -1 if it is not in the list; `slot` is its position among the
    candidates as listed, -1 without candidates.
    """

    system: str
    kind: str
    user: int
    group: str
    variant: str
    text: str
    rows: tuple[int, ...]
    place: int
    slot: int

    @property
    def ndcg(self) -> float:
        """NDCG@10 of the held-out item."""
        return 1.0 / float(np.log2(self.place + 2)) if 0 <= self.place < TOP else 0.0


@dataclass(frozen=True)
class StabilityValue:
    """One measure of one request, averaged over the variants of a group."""

    system: str
    kind: str
    user: int
    metric: str
    value: float


def run_stability(
    model: str | Path | None, data: str | Path | None, out: Path, limit: int | None = None, seed: int = 0
) -> list[Row]:
    """Measure agreement and accuracy over all variants; writes `stability-<dataset>.json` to `out`.

    Args:
        model: model directory, None for the shipped one.
        data: its data, None for the data that the model names.
        out: directory of the result; per-request values go to Parquet in `per_user` below it.
        limit: number of users, drawn by seed.
        seed: random seed for users, candidates, orders, typos and bootstrap.

    Raises:
        UserError: a model that belongs to other data or was trained on another split.
    """
    started = time.monotonic()
    recommender, split = open_evaluated_model(model, data)
    users = target_users(split, "test", limit or USERS, seed)
    cases = draw_cases(recommender.catalog, split, users, seed)
    few = set(users[:BASE_USERS].tolist())
    base = [case for case in cases if case.user in few and case.kind in ("candidates", "named")]
    ranked = _collect(cases, hybrid(recommender), recommender.catalog, seed, "hybrid")
    bundle = open_base_model(model, recommender)
    ranked += _collect(base, _base(bundle, recommender.catalog), recommender.catalog, seed, "base model")
    name = Path(str(recommender.data_name)).name
    values = measure(ranked)
    _save(out, name, ranked, values)
    rows = estimates(ranked, values, seed)
    print_stability(rows)
    command = eval_command("stability", limit=limit)
    came = provenance(seed, command, time.monotonic() - started, len(users))
    write_result(
        out / f"stability-{name}.json", "stability", name, _protocol(len(users), ranked), rows, targets(rows), came
    )
    return rows


def hybrid(recommender: Recommender) -> AnswerVariant:
    """The product: sends the variant's text to the chat."""

    def answer(case: Case, variant: Variant) -> dict[str, tuple[int, ...]]:
        listed = variant.candidates if case.kind == "candidates" else None
        k = max(TOP, len(variant.candidates)) if case.kind == "candidates" else TOP
        return {"hybrid": ask_chat(recommender, variant.text, case.history, listed, k=k).rows}

    return answer


def _base(bundle: object, catalog: Catalog) -> AnswerVariant:
    return lambda case, variant: base_model.rank_listed_candidates(bundle, catalog, case, variant)  # type: ignore[arg-type]


def _collect(
    cases: Sequence[Case], answer: AnswerVariant, catalog: Catalog, seed: int, label: str
) -> list[RankedVariant]:
    """Run every variant of every case; of `named` cases the base model only gets the original and other orders."""
    jobs = [(case, variant) for case in cases for variant in variants(catalog, case, seed)]
    if label != "hybrid":
        originals = {case: variants(catalog, case, seed)[0] for case in cases}
        jobs = [
            (case, one)
            for case, one in jobs
            if case.kind == "candidates" or one.group == "order" or one == originals[case]
        ]
    out: list[RankedVariant] = []
    with progress_bar() as progress:
        for case, variant in progress.track(jobs, description=label):
            slot = variant.candidates.index(case.target) if variant.candidates else -1
            for system, rows in answer(case, variant).items():
                place = rows.index(case.target) if case.target in rows else -1
                out.append(
                    RankedVariant(
                        system, case.kind, case.user, variant.group, variant.name, variant.text, rows, place, slot
                    )
                )
    return out


def measure(ranked: Sequence[RankedVariant]) -> list[StabilityValue]:
    """Agreement, accuracy and share of answered requests for every request, by group of variants."""
    out: list[StabilityValue] = []
    for (system, kind, user), lines in _by(ranked, lambda one: (one.system, one.kind, one.user)).items():
        original, rest = lines[0], lines[1:]
        found: dict[str, list[RankedVariant]] = {group: [one for one in rest if one.group == group] for group in GROUPS}
        found[DISTURBED] = found["noise"] + found["irrelevant"]
        for group, some in found.items():
            if some:
                every = group in EQUALS
                values = agreement(original.rows, [one.rows for one in some], every)
                some = [original, *some] if every else some
                values |= {"ndcg@10": float(np.mean([one.ndcg for one in some]))}
                values |= {"answered": float(np.mean([bool(one.rows) for one in some]))}
                out += [StabilityValue(system, kind, user, f"{group}/{name}", value) for name, value in values.items()]
        if kind == "candidates":
            out += _by_slot(system, user, found["order"], len(original.rows))
    return out


def _by_slot(system: str, user: int, orders: Sequence[RankedVariant], n: int) -> list[StabilityValue]:
    """Mean NDCG@10 by the quarter of the list in which the target was listed."""
    out = []
    for quarter in range(4):
        inside = [one for one in orders if quarters(np.array([one.slot]), n)[0] == quarter]
        if inside:
            gain = float(np.mean([one.ndcg for one in inside]))
            out.append(
                StabilityValue(system, "candidates", user, f"position/ndcg@10_true_in_quarter_{quarter + 1}", gain)
            )
    return out


def estimates(ranked: Sequence[RankedVariant], values: Sequence[StabilityValue], seed: int) -> list[Row]:
    """One row per system and kind of request, and one for the product over all kinds (each user counts once)."""
    rows = []
    everything = [changed for one in values for changed in _pooled(one)]
    for (system, kind), lines in _by(everything, lambda one: (one.system, one.kind)).items():
        metrics = {}
        for metric, some in sorted(_by(lines, lambda one: one.metric).items()):
            by_user = [np.mean([one.value for one in own]) for own in _by(some, lambda one: one.user).values()]
            metrics[metric] = Estimate.over(np.asarray(by_user, np.float64), seed)
        if kind:
            metrics |= _spreads([one for one in ranked if (one.system, one.kind) == (system, kind)], seed)
        rows.append(Row(f"{system} {kind}".strip(), metrics))
    return sorted(rows, key=lambda row: (not row.name.startswith("hybrid"), row.name))


def _pooled(value: StabilityValue) -> Iterable[StabilityValue]:
    yield value
    if value.system == "hybrid" and not value.metric.startswith("position"):
        yield StabilityValue(value.system, "", value.user, value.metric, value.value)


def _spreads(ranked: Sequence[RankedVariant], seed: int) -> dict[str, Estimate]:
    """Standard deviation of mean NDCG@10 across the variants of a group, over requests that have all of them."""
    out = {}
    for group, lines in _by(ranked, lambda one: one.group).items():
        by_user = _by(lines, lambda one: one.user)
        names = sorted({one.variant for one in lines})
        table = [{one.variant: one.ndcg for one in own} for own in by_user.values()]
        matrix = np.array([[one[name] for name in names] for one in table if set(names) <= set(one)])
        if len(names) > 1 and len(matrix):
            out[f"{group}/ndcg@10_spread"] = Estimate(spread(matrix), spread_ci(matrix, seed))
    return out


def targets(rows: Sequence[Row]) -> list[Target]:
    """The numbers that the project is held to, over all kinds of requests."""
    metrics = next((row.metrics for row in rows if row.name == "hybrid"), {})

    def mean(name: str) -> float | None:
        return metrics[name].mean if name in metrics else None

    return [
        Target("order_kendall_tau", mean("order/kendall_tau")),
        Target("order_top1_flip", mean("order/top1_flip")),
        Target("paraphrase_overlap10", mean("paraphrase/overlap@10")),
        Target("paraphrase_top1_flip", mean("paraphrase/top1_flip")),
        Target("noise_overlap10", mean(f"{DISTURBED}/overlap@10")),
    ]


def _protocol(users: int, ranked: Sequence[RankedVariant]) -> dict[str, object]:
    counts = {f"{s} {k}": len(v) for (s, k), v in _by(ranked, lambda one: (one.system, one.kind)).items()}
    return {
        "requests": "typed into the chat of a test user with the history up to the held-out item; `named` is a new "
        f"visitor who names {NAMED} latest items",
        "users": users,
        "users_base_model": min(users, BASE_USERS),
        "candidates": f"{CANDIDATES}, the held-out item and unseen others drawn evenly",
        "phrasings": {kind: len(phrases) for kind, phrases in paraphrases.PHRASINGS.items()},
        "pairs": "order and paraphrase: all pairs of variants; noise and irrelevant: each with the original",
        "lists": f"the {TOP} shown, or all candidates; Kendall's tau-b over the union, absent items tied last",
        "no_list": "counts as no agreement and as a flip",
        "pooled": "`hybrid` takes the mean over kinds of request for each user first",
        "base_model": "candidates lettered in the prompt; letters: log-probability of the letter, titles: mean "
        "log-probability a token of the title",
        "answers": counts,
    }


def _save(out: Path, name: str, ranked: Sequence[RankedVariant], values: Sequence[StabilityValue]) -> None:
    columns = [asdict(one) for one in values]
    write_per_user(out, f"stability-{name}", {key: np.array([one[key] for one in columns]) for key in columns[0]})
    lines = [{**asdict(one), "rows": " ".join(map(str, one.rows))} for one in ranked]
    write_per_user(out, f"stability-lists-{name}", {key: np.array([one[key] for one in lines]) for key in lines[0]})


def _by(items: Iterable[object], key: Callable[..., object]) -> dict:  # type: ignore[type-arg]
    """Group items by key, in order of first appearance."""
    groups: dict[object, list[object]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


TABLE_METRICS = (("kendall_tau", "tau"), ("overlap@10", "overlap"), ("top1_flip", "flip"), ("ndcg@10", "ndcg"))


def print_stability(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print agreement and accuracy for every row and group of variants; intervals are in the result file."""
    out, shown = console or Console(), []
    for row in rows:
        groups = dict.fromkeys(name.partition("/")[0] for name in row.metrics if "top1_flip" in name)
        for group in groups:
            cells = [_cell(row, f"{group}/{name}") for name, _ in TABLE_METRICS]
            shown.append([row.name, group, *cells, _cell(row, f"{group}/ndcg@10_spread")])
    print_columns(["", "variants", *(label for _, label in TABLE_METRICS), "ndcg spread"], shown, console, labels=2)
    for row in rows:
        places = [f"{e.mean:.3f}" for name, e in sorted(row.metrics.items()) if name.startswith("position/ndcg")]
        if places:
            told = f"{row.name}: ndcg@10 with the true item in each quarter of the list:\n{', '.join(places)}"
            out.print(told, markup=False)


def _cell(row: Row, name: str) -> str:
    return f"{row.metrics[name].mean:.3f}" if name in row.metrics else ""
