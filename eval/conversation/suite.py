"""The conversation suite: plays simulated dialogues of several turns against the chat and judges them by program.

The dialogues are generated from the catalogue with a seed, in the suite's own wordings. Each step carries its meaning,
and answers are judged against it by the suite's own rules. Latency is measured as a person experiences it: one visitor,
and no caching between requests except the product's own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmrec.data.interactions import leave_one_out
from llmrec.eval.conversation.dialogues import write_dialogues
from llmrec.eval.conversation.judge import Verdict, judge_turn
from llmrec.eval.conversation.simulation import PlayedTurn, play_dialogue
from llmrec.eval.conversation.writer import Dialogue
from llmrec.eval.grounding.text import TextCheck
from llmrec.eval.metrics import bootstrap_ci
from llmrec.eval.result_file import eval_command, publish, write_per_user
from llmrec.progress import progress_bar
from llmrec.recommender import Recommender

DIALOGUES = 240
ASIDE_PART = 4  # a quarter as many further dialogues use held-out wordings
WARM = 2  # dialogues played first as a warm-up; their latency is not counted
APPLIES = ("satisfied", "references_resolved", "clarifying_asked", "titles_understood", "relaxed_said", "unknown_said")
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class JudgedTurn:
    """One turn of one dialogue with its verdicts."""

    dialogue: Dialogue
    place: int
    turn: PlayedTurn
    verdicts: tuple[Verdict, ...]

    def value(self, metric: str) -> float | None:
        """The value of one measure, None when it does not apply to this turn."""
        return next((one.value for one in self.verdicts if one.metric == metric), None)


def run_conversation(
    model: str | Path | None, data: str | Path | None, out: Path, limit: int | None = None, seed: int = 0
) -> None:
    """Play the dialogues and judge them; writes `conversation-<dataset>.json` to `out`.

    Args:
        model: model directory, None for the shipped one.
        data: its data, None for the data that the model names.
        out: directory of the result; turns with their texts and verdicts go to Parquet in `per_user` below it.
        limit: number of dialogues to play instead of 240.
        seed: random seed for dialogues and bootstrap.

    Raises:
        UserError: a model that belongs to other data.
    """
    started = time.monotonic()
    recommender = Recommender.from_pretrained(model, data)
    count = limit or DIALOGUES
    split = leave_one_out(recommender.interactions)
    dialogues = write_dialogues(recommender.catalog, split, count, seed)
    others = write_dialogues(recommender.catalog, split, max(1, count // ASIDE_PART), seed + 1, aside=True)
    played = play_dialogues(recommender, dialogues, seed)
    aside = play_dialogues(recommender, others, seed, numbered=count)
    name = Path(str(recommender.data_name)).name
    rows = table(played, aside, seed)
    text_only, why_not = _words_only(recommender, limit, seed)
    rows |= text_only
    _save(out, name, [*played, *aside])
    publish(
        out / f"conversation-{name}.json",
        name,
        {**protocol(played, seed), "words_only": why_not},
        rows,
        targets(played, text_only),
        seed,
        eval_command("conversation", limit=limit),
        time.monotonic() - started,
        len(dialogues) + len(others),
        suite="conversation",
    )


def play_dialogues(
    recommender: Recommender, dialogues: Sequence[Dialogue], seed: int, numbered: int = 0
) -> list[JudgedTurn]:
    """Play all dialogues, numbered from `numbered`; in each, the model generates text at one step drawn by seed."""
    check = TextCheck(recommender.catalog)
    found: list[JudgedTurn] = []
    with progress_bar() as progress:
        for dialogue in progress.track(dialogues, description="dialogues"):
            rng = np.random.default_rng([seed, dialogue.number, 2])
            turns = play_dialogue(recommender, dialogue, int(rng.integers(len(dialogue.steps))))
            dialogue = replace(dialogue, number=dialogue.number + numbered)
            found += [
                JudgedTurn(dialogue, place, turn, tuple(judge_turn(check, turn))) for place, turn in enumerate(turns)
            ]
    return found


def targets(played: Sequence[JudgedTurn], text_only: Mapping[str, Mapping[str, Interval]]) -> dict[str, float | None]:
    """The numbers that the project is held to, by name; the protocol explains each of them."""
    seconds = [t for one in played[_warm(played) :] if (t := one.turn.answer.seconds.get("items")) is not None]
    ratio = text_only.get("words only", {}).get("over_text_lookup")
    return {
        "dialogue_constraints": _mean(list(_dialogues(played, "satisfied").values())),
        "excluded_shown_again": _sum(played, "excluded_shown_again"),
        "references_resolved": _share(played, "references_resolved"),
        "clarifying_asked": _share(played, "clarifying_asked"),
        "off_list_titles": _sum(played, "off_list_titles"),
        "words_only_over_text_lookup": None if ratio is None else ratio[0],
        "p95_items_seconds": float(np.percentile(seconds, 95)) if seconds else None,
    }


def table(played: Sequence[JudgedTurn], aside: Sequence[JudgedTurn], seed: int) -> dict[str, dict[str, Interval]]:
    """Measures over all turns and dialogues, for ordinary and held-out wordings; per act; and latencies."""
    rows: dict[str, dict[str, Interval]] = {}
    for words, some in (("", played), (" in words put aside", aside)):
        rows[f"turns{words}"] = _measures(some, seed)
        whole = list(_dialogues(some, "satisfied").values())
        right = list(_right(some).values())
        rows[f"dialogues{words}"] = {"every_list_as_asked": _span(whole, seed), "nothing_wrong": _span(right, seed)}
    for act in sorted({one.turn.step.act for one in played}):
        rows[f"act {act}"] = _measures([one for one in played if one.turn.step.act == act], seed)
    rows |= _clock(played)
    return {name: metrics for name, metrics in rows.items() if metrics}


def _measures(played: Sequence[JudgedTurn], seed: int) -> dict[str, Interval]:
    """Each measure's mean over the turns that it applies to; the interval resamples dialogues."""
    by: dict[str, dict[int, list[float]]] = {}
    for one in played:
        for verdict in one.verdicts:
            by.setdefault(verdict.metric, {}).setdefault(one.dialogue.number, []).append(verdict.value)
    return {metric: _span([float(np.mean(own)) for own in values.values()], seed) for metric, values in by.items()}


def _span(values: Sequence[float], seed: int) -> Interval:
    column = np.asarray(values, np.float64)
    low, high = bootstrap_ci(column, seed)
    return float(column.mean()), low, high


def _dialogues(played: Sequence[JudgedTurn], metric: str) -> dict[int, float]:
    """By dialogue: 1 when every expected list came and every list satisfies all constraints requested so far."""
    found: dict[int, float] = {}
    for one in played:
        values = [one.value(name) for name in (metric, "listed")]
        fine = all(value in (None, 1.0) for value in values) and not one.value("crashed")
        found[one.dialogue.number] = min(found.get(one.dialogue.number, 1.0), float(fine))
    return found


def _right(played: Sequence[JudgedTurn]) -> Mapping[int, float]:
    found: dict[int, float] = {}
    for one in played:
        fine = not any(verdict.wrong for verdict in one.verdicts)
        found[one.dialogue.number] = min(found.get(one.dialogue.number, 1.0), float(fine))
    return found


def _clock(played: Sequence[JudgedTurn]) -> dict[str, dict[str, Interval]]:
    """Median and 95th percentile of the seconds to the list, the first text, the first word and the end of a reply."""
    rows: dict[str, dict[str, Interval]] = {}
    counted = played[_warm(played) :]
    for name, stage, spoken in (
        ("first item list", "items", None),
        ("first text", "text", None),
        ("first word of the language model", "word", True),
        ("full reply with words", "reply", True),
        ("full reply without words", "reply", False),
    ):
        seconds = [
            one.turn.answer.seconds[stage]
            for one in counted
            if stage in one.turn.answer.seconds
            and (spoken is None or (one.turn.answer.spoken and bool(one.turn.answer.words)) == spoken)
        ]
        if seconds:
            p50, p95 = (float(np.percentile(seconds, q)) for q in (50, 95))
            rows[name] = {"p50_seconds": (p50, p50, p50), "p95_seconds": (p95, p95, p95)}
    return rows


def _warm(played: Sequence[JudgedTurn]) -> int:
    """Number of turns in the warm-up dialogues; 0 when there are no other dialogues."""
    first = sum(one.dialogue.number < WARM for one in played)
    return first if first < len(played) else 0


def _share(played: Sequence[JudgedTurn], metric: str) -> float | None:
    return _mean([value for one in played if (value := one.value(metric)) is not None])


def _sum(played: Sequence[JudgedTurn], metric: str) -> float:
    return float(sum(one.value(metric) or 0.0 for one in played))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _words_only(recommender: Recommender, limit: int | None, seed: int) -> tuple[dict[str, dict[str, Interval]], str]:
    """Rows of recommendation from one sentence, if that part is available, and their description for the protocol."""
    try:
        from llmrec.eval.conversation import text_only
    except ImportError:
        return {}, "not measured: this version has no such part"
    rows, told = text_only.measure_text_only(recommender, limit, seed)
    return rows, told


def protocol(played: Sequence[JudgedTurn], seed: int) -> dict[str, object]:
    """How the suite was run, for the result file."""
    lengths = [len(one.dialogue.steps) for one in played if one.place == 0]
    applies = {name: sum(one.value(name) is not None for one in played) for name in APPLIES}
    return {
        "dialogues": f"{len(lengths)} of {min(lengths)} to {max(lengths)} turns, written from the catalogue by seed "
        f"{seed} in words that are no training templates; what is asked for is true of at least one item",
        "visitors": "new ones without any history; every fourth is a user of the log",
        "turns": len(played),
        "turns_by_measure": applies,
        "dialogue_constraints": "share of dialogues in which every list due came and every item of every list meets "
        "all constraints that hold at that turn; turns at which no item that may be shown meets them are apart "
        "(relaxed_said)",
        "excluded_shown_again": "count of items listed although disliked, liked, known, or passed over before",
        "references_resolved": "share of turns that point at the list (`the second one`, `newer than #3`, two at "
        "once) or answer `which one?`, after which exactly the meant items hold the opinion, or are spoken of",
        "clarifying_asked": "share of empty requests and of titles shared by two items answered with one question",
        "off_list_titles": "titles in texts, reasons and remarks that are not on the list, nor the visitor's own; the "
        "language model's words may name the list only; what a question offers (`do you mean ...?`) is no claim",
        "filters_as_meant": "share of turns after which the active filters let exactly the items pass that were meant",
        "in words put aside": "a quarter as many dialogues more, in wordings written after the reader of messages, "
        "which was not changed for them; targets are of the others",
        "manner": "a quarter in lower case, some in capitals, politely, without marks; three in ten long titles "
        "misspelt",
        "clock": f"one visitor, one process, nothing remembered by the suite; the first {WARM} dialogues are not "
        "counted; the language model speaks at one step of each dialogue",
    }


def _save(out: Path, name: str, played: Sequence[JudgedTurn]) -> None:
    """Write one row per turn with its texts, and one row per verdict."""
    turns = [
        {
            "dialogue": one.dialogue.number,
            "place": one.place,
            "act": one.turn.step.act,
            "wording": one.turn.step.wording,
            "text": one.turn.step.text,
            "listed": "; ".join(map(str, one.turn.answer.rows or ())),
            "facts": one.turn.answer.facts,
            "words": one.turn.answer.words,
            "notices": " ".join(one.turn.answer.notices),
            "wrong": "; ".join(f"{v.metric}: {v.wrong}" for v in one.verdicts if v.wrong),
            "items_seconds": one.turn.answer.seconds.get("items", float("nan")),
        }
        for one in played
    ]
    values = [
        {
            "dialogue": one.dialogue.number,
            "place": one.place,
            "act": one.turn.step.act,
            "metric": v.metric,
            "value": v.value,
        }
        for one in played
        for v in one.verdicts
    ]
    for stem, records in (("conversation-turns", turns), ("conversation", values)):
        write_per_user(out, f"{stem}-{name}", {key: np.array([row[key] for row in records]) for key in records[0]})
