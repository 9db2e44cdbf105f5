"""Instruction-following tasks in plain chat whose replies a program verifies.

Also measured for every reply: how much it repeats itself, whether the model ended it, and what leaks from the catalogue
into an unrelated conversation: item tokens, control tokens, titles, the form of a list entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from llmrec.errors import DataError
from llmrec.eval.retention.generate import Reply
from llmrec.eval.retention.instruction_checks import CHECKS, passes_check
from llmrec.eval.retention.likelihood import read_text
from llmrec.lm.model import RecModel
from llmrec.ranking.grounding import GroundingChecker

OWN_TOKENS, IFEVAL_TOKENS = 128, 256  # maximum reply lengths; IFEval's own 1,280 would take hours on a CPU
_ENTRY = re.compile(r"[^\W_][^.!?()\n]* \((?:1[89]|20)\d\d\)")  # `Title (1996)`
WORDS_A_TOKEN = 0.6  # assumed minimum number of words per token of a reply, including lists and markup


@dataclass(frozen=True)
class Instruction:
    """A prompt and the checks that its reply must pass, (kind, values) each."""

    prompt: str
    checks: tuple[tuple[str, Mapping[str, Any]], ...]


def own_instructions() -> tuple[int, list[Instruction]]:
    """Read version and instructions from `tasks/instructions.yaml`.

    Raises:
        DataError: a check that does not exist.
    """
    data = yaml.safe_load((files("llmrec.eval") / "tasks" / "instructions.yaml").read_text(encoding="utf-8"))
    out = []
    for entry in data["instructions"]:
        checks = tuple((one["kind"], {k: v for k, v in one.items() if k != "kind"}) for one in entry["checks"])
        unknown = [kind for kind, _ in checks if kind not in CHECKS]
        if unknown:
            raise DataError(f"instructions.yaml: no check {unknown[0]!r}; there are: {', '.join(CHECKS)}")
        out.append(Instruction(entry["prompt"], checks))
    return int(data["version"]), out


def read_ifeval(path: Path, max_tokens: int = IFEVAL_TOKENS) -> list[Instruction]:
    """Read the IFEval prompts whose instructions all have a check here and whose required length fits `max_tokens`.

    Raises:
        DataError: the file is not IFEval's `input_data.jsonl`.
    """
    out, text = [], read_text(path)
    try:
        for line in text.splitlines():
            row = json.loads(line)
            pairs = zip(row["instruction_id_list"], row["kwargs"], strict=True)
            checks = tuple(
                (str(kind), {k: v for k, v in (values or {}).items() if v is not None}) for kind, values in pairs
            )
            if all(kind in CHECKS for kind, _ in checks) and _words(checks) <= WORDS_A_TOKEN * max_tokens:
                out.append(Instruction(str(row["prompt"]), checks))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as IFEval's input_data.jsonl: {error!r}") from None
    return out


def _words(checks: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """The minimum number of words that the checks require."""
    asked = [v["num_words"] for kind, v in checks if kind.endswith(":number_words") and v["relation"] == "at least"]
    return max(asked, default=0)


def judge(instruction: Instruction, reply: Reply, model: RecModel, titles: GroundingChecker) -> dict[str, float | str]:
    """Compute the values of one reply.

    `acc`: passes all checks (IFEval's prompt-level strict accuracy); `check_acc`: the share of checks it passes;
    `distinct_1`, `distinct_2`: shares of distinct words and word pairs in the reply (Li et al., 2016, arXiv:1510.03055,
    within a reply); `titles`: number of catalogue titles named; `entry_form`: something has the form of a list entry,
    `Title (1996)`, whether it exists or not; `item_tokens`, `control_tokens`: numbers of ids that are not words.
    """
    passed = [passes_check(reply.text, kind, values) for kind, values in instruction.checks]
    base, control = model.vocab.base, model.renderer.control
    return {
        "acc": float(all(passed)),
        "check_acc": sum(passed) / len(passed),
        "distinct_1": _distinct(reply.text.split(), 1),
        "distinct_2": _distinct(reply.text.split(), 2),
        "ended": float(reply.ended),
        "tokens": float(len(reply.ids)),
        "entry_form": float(_ENTRY.search(reply.text) is not None),
        "titles": float(len(titles.titles_in(reply.text))),
        "item_tokens": float(sum(i >= base for i in reply.ids)),
        "control_tokens": float(sum(i in control for i in reply.ids)),
        "reply": reply.text,
    }


def _distinct(words: Sequence[str], n: int) -> float:
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0
