"""Report section with failures and their inputs, from the per-user values that the suites save.

Cases are chosen by rule, never by hand: the first of each kind in the order that the rule defines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.eval.report.page import Case

EACH = 4  # cases shown per kind
LONG = 600  # maximum number of characters shown of a text
Line = Mapping[str, Any]


def failure_gallery(folder: Path, dataset: str, titles: Sequence[str] = (), prompts: Sequence[str] = ()) -> list[Case]:
    """Return failures of each suite, `EACH` per kind; none for suites without saved values.

    Args:
        folder: directory of the results.
        dataset: name of the data.
        titles: labels of the catalogue's rows, for lists saved as row numbers; without them, row numbers are shown.
        prompts: the suite's own instructions, by number.
    """
    return [
        *_missed(_read(folder / "per_user" / f"per-user-accuracy-lists-{dataset}.parquet")),
        *_ungrounded(_read(folder / "per_user" / f"per-user-grounding-replies-{dataset}.parquet")),
        *_flipped(_read(folder / "per_user" / f"per-user-stability-lists-{dataset}.parquet"), titles),
        *_forgotten(folder / "per_item", dataset, prompts),
    ]


def _read(path: Path) -> list[Line]:
    try:
        lines: list[Line] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException):
        return []
    return lines


def _missed(lines: Sequence[Line]) -> Iterator[Case]:
    """Targets that another row ranked in its top ten and the hybrid not even in its top fifty."""
    by_user: dict[int, dict[str, Line]] = {}
    for line in lines:
        by_user.setdefault(line["user"], {})[line["ranker"]] = line
    missed = []
    for own in by_user.values():
        others = [line for name, line in own.items() if name != "hybrid" and 0 <= line["place"] < 10]
        if "hybrid" in own and own["hybrid"]["place"] < 0 and others:
            missed.append((min(others, key=lambda line: int(line["place"])), own["hybrid"]))
    for other, ours in sorted(missed, key=lambda pair: (pair[0]["place"], pair[0]["user"]))[:EACH]:
        yield Case(
            f"accuracy: not among the hybrid's first fifty, place {other['place'] + 1} for {other['ranker']}",
            [
                (f"latest of {ours['length']} items taken", _short(ours["history"])),
                ("taken next", ours["target"]),
                ("hybrid", _short(ours["listed"])),
                (other["ranker"], _short(other["listed"])),
            ],
        )


def _ungrounded(lines: Sequence[Line]) -> Iterator[Case]:
    """Replies of the chat whose items violate a constraint, or whose text makes claims beyond the catalogue."""
    wrong = [line for line in lines if line["system"] == "chat" and line["wrong"]]
    for line in sorted(wrong, key=lambda one: (-len(one["wrong"].split("; ")), one["user"], one["level"]))[:EACH]:
        yield Case(
            f"grounding: {line['level']} constraints",
            [
                ("asked", _short(line["text"])),
                ("listed", _short(line["listed"])),
                ("said", _short(line["words"]) or "nothing"),
                ("wrong", _short(line["wrong"])),
            ],
        )


def _flipped(lines: Sequence[Line], titles: Sequence[str]) -> Iterator[Case]:
    """Requests whose top item changed with the wording, some from each group of changes."""
    own = [line for line in lines if line["system"] == "hybrid"]
    found: dict[str, list[Case]] = {}
    for _, request in groupby(own, key=lambda line: (line["kind"], line["user"])):
        first, *rest = request  # the unmodified request comes first
        for line in rest:
            before, after = first["rows"].split(), line["rows"].split()
            if before[:1] != after[:1]:
                inputs = [("as it stands", _short(first["text"])), ("changed", _short(line["text"]))]
                shown = [("list before", _named(before, titles)), ("list after", _named(after, titles))]
                case = Case(f"stability: another first place after {line['variant']} ({line['kind']})", inputs + shown)
                found.setdefault(line["group"], []).append(case)
    for group in found.values():
        yield from group[: max(1, EACH // 2)]


def _named(rows: Sequence[str], titles: Sequence[str]) -> str:
    shown = [titles[int(row)] if int(row) < len(titles) else f"row {row}" for row in rows[:5]]
    return "; ".join(shown) or "no list"


def _forgotten(folder: Path, dataset: str, prompts: Sequence[str]) -> Iterator[Case]:
    """Instructions that the base model follows but the tuned model does not."""
    sides = [
        {line["item"]: line for line in _read(folder / f"retention-{dataset}-instructions-{side}.parquet")}
        for side in ("base", "tuned")
    ]
    lost = [n for n in sorted(sides[0]) if n in sides[1] and sides[0][n]["acc"] > sides[1][n]["acc"]]
    for number in lost[:EACH]:
        prompt = prompts[number] if number < len(prompts) else f"instruction {number}"
        replies = [(name, _short(side[number]["reply"])) for name, side in zip(("base", "tuned"), sides, strict=True)]
        yield Case("retention: an instruction no longer followed", [("asked", prompt), *replies])


def _short(text: str) -> str:
    return text if len(text) <= LONG else text[: LONG - 1].rstrip() + "\u2026"
