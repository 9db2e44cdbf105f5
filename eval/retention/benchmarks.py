"""Language benchmarks: parses their published files into questions and judges the scores.

A task is one reader function and one line of `TASKS`. Prompts and metrics are those of lm-evaluation-harness 0.4: no
examples in the prompt, `acc` takes the most likely choice, `acc_norm` the most likely one per character. On 60 items of
each task the verdicts are the same as in the harness, and log-probabilities agree to 1e-5. The exception is BLiMP,
whose sentences have no leading space here, as at the start of a document.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.errors import DataError
from llmrec.eval.retention.continuations import ContinuationScores
from llmrec.eval.retention.likelihood import read_text
from llmrec.storage.artifacts import sha256_file

GITHUB = "https://github.com/"


@dataclass(frozen=True)
class Question:
    """A context and its possible continuations.

    Attributes:
        context: may be empty.
        choices: continuations, including their leading space.
        gold: index of the correct one.
        lengths: number of characters of each choice, for `acc_norm`.
        group: samples are drawn evenly over groups.
    """

    context: str
    choices: tuple[str, ...]
    gold: int = 0
    lengths: tuple[int, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Source:
    """Files of a benchmark under the data directory, and where they are published."""

    files: tuple[str, ...]
    url: str

    def find(self, folder: Path) -> list[Path]:
        """The files, compressed (.gz, .bz2) or plain.

        Raises:
            DataError: a file is missing; says what to fetch and from where.
        """
        return [self._one(folder, name) for name in self.files]

    def _one(self, folder: Path, name: str) -> Path:
        for suffix in ("", ".gz", ".bz2"):
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
        raise DataError(f"no file {folder / name} (nor with .gz, .bz2); fetch it from {self.url}")


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of questions.

    Attributes:
        name: as lm-evaluation-harness calls it.
        version: incremented whenever prompts or metrics change, so that old values are not mistaken for new ones.
        source: its files.
        read: maps files to questions.
        judge: maps a question and its scores to values of the metrics.
        main: the metric that represents the task.
        size: number of questions drawn by default, limited to save time.
    """

    name: str
    version: int
    source: Source
    read: Callable[[Sequence[Path]], list[Question]]
    judge: Callable[[Question, ContinuationScores], dict[str, float]]
    main: str
    size: int


def load(task: Benchmark, folder: Path, limit: int | None, seed: int) -> tuple[list[int], list[Question]]:
    """Load questions and their numbers in the file, in file order; `limit` of them or the default number.

    Raises:
        DataError: a file is missing, or its content does not match its name.
    """
    paths = task.source.find(folder)
    try:
        questions = task.read(paths)
    except DataError:
        raise
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{paths[0]} cannot be read as {task.name}: {error!r}; see {task.source.url}") from None
    kept = sample([question.group for question in questions], task.size if limit is None else limit, seed)
    return kept, [questions[number] for number in kept]


def sample(groups: Sequence[str], count: int, seed: int) -> list[int]:
    """Draw `count` sorted numbers without replacement, equally many from every group up to one."""
    rng = np.random.default_rng(seed)
    ranks = np.empty(len(groups), np.int64)  # rank of every member in a random order of its group
    names = np.asarray(groups)
    for name in sorted(set(groups)):
        own = np.flatnonzero(names == name)
        ranks[own] = rng.permutation(len(own))
    order = np.lexsort((rng.permutation(len(groups)), ranks))
    return sorted(int(number) for number in order[:count])


def fingerprint(source: Source, folder: Path) -> list[str]:
    """sha256 of the files."""
    return [sha256_file(path) for path in source.find(folder)]


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in read_text(path).splitlines():
        if line.strip():
            yield json.loads(line)


def read_lambada(paths: Sequence[Path]) -> list[Question]:
    """Read LAMBADA in OpenAI's form: the last word of a passage, given all the words before it."""
    passages = [str(row["text"]).rpartition(" ") for row in _lines(paths[0])]
    return [Question(context, (f" {word}",)) for context, _, word in passages]


def read_blimp(paths: Sequence[Path]) -> list[Question]:
    """Read BLiMP: an acceptable sentence paired with one that differs from it in a point of grammar."""
    return [
        Question("", (str(row["sentence_good"]), str(row["sentence_bad"])), group=str(row["UID"]))
        for row in _lines(paths[0])
    ]


def read_piqa(paths: Sequence[Path]) -> list[Question]:
    """Read PIQA: which of two ways reaches the goal."""
    labels = [int(label) for label in read_text(paths[1]).split()]
    rows = list(_lines(paths[0]))
    return [
        _choice(f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), gold)
        for row, gold in zip(rows, labels, strict=True)
    ]


def read_arc(paths: Sequence[Path]) -> list[Question]:
    """Read ARC as published by llm-foundry: the query already begins with `Question: `, always four choices."""
    return [_choice(f"{row['query']}\nAnswer:", row["choices"], row["gold"]) for row in _lines(paths[0])]


def read_hellaswag(paths: Sequence[Path]) -> list[Question]:
    """Read HellaSwag as plain text: context, number of the correct ending and four endings, one per line."""
    lines = read_text(paths[0]).split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    if len(lines) % 6:
        raise ValueError(f"{len(lines)} lines are not six a question")
    return [_choice(lines[i], lines[i + 2 : i + 6], int(lines[i + 1])) for i in range(0, len(lines), 6)]


def _choice(context: str, choices: Sequence[str], gold: int) -> Question:
    if not 0 <= gold < len(choices):
        raise ValueError(f"choice {gold} of {len(choices)} is called right")
    return Question(context, tuple(f" {one}" for one in choices), gold, tuple(map(len, choices)))


def judge_greedy(question: Question, scored: ContinuationScores) -> dict[str, float]:
    """Correct if every token of the word is the most likely one; `nll` is that of the word, in nats."""
    return {"acc": float(scored.greedy[0]), "nll": float(scored.nll[0])}


def judge_choice(question: Question, scored: ContinuationScores) -> dict[str, float]:
    """Correct if the gold choice is the most likely, in total (`acc`), per character (`acc_norm`); first on ties."""
    out = {"acc": float(int(np.argmin(scored.nll)) == question.gold)}
    if question.lengths:
        per_character = scored.nll / np.maximum(question.lengths, 1)
        out["acc_norm"] = float(int(np.argmin(per_character)) == question.gold)
    return out


def judge_pair(question: Question, scored: ContinuationScores) -> dict[str, float]:
    """Correct if the acceptable sentence, the first, is more likely than the other; a tie is wrong."""
    return {"acc": float(scored.nll[0] < scored.nll[1])}


TASKS: tuple[Benchmark, ...] = (
    Benchmark(
        "lambada_openai", 1, Source(("lambada/lambada_test.jsonl",), GITHUB + "cybertronai/bflm"),
        read_lambada, judge_greedy, "acc", 600,
    ),
    Benchmark(
        "blimp", 1, Source(("blimp/blimp.jsonl",), GITHUB + "alexwarstadt/blimp"),
        read_blimp, judge_pair, "acc", 1340,
    ),
    Benchmark(
        "piqa", 1, Source(("piqa/valid.jsonl", "piqa/valid-labels.lst"), GITHUB + "ybisk/ybisk.github.io"),
        read_piqa, judge_choice, "acc_norm", 500,
    ),
    Benchmark(
        "arc_easy", 1, Source(("arc/arc_easy_test.llmfoundry.jsonl",), GITHUB + "mosaicml/llm-foundry"),
        read_arc, judge_choice, "acc_norm", 600,
    ),
    Benchmark(
        "hellaswag", 1, Source(("hellaswag/hellaswag_val_full.txt",), GITHUB + "klosax/hellaswag_text_data"),
        read_hellaswag, judge_choice, "acc_norm", 300,
    ),
)  # fmt: skip

WIKITEXT = Source(("wikitext2/test.txt",), GITHUB + "pytorch/examples (word_language_model/data/wikitext-2)")
IFEVAL = Source(("ifeval/input_data.jsonl",), GITHUB + "google-research/google-research (instruction_following_eval)")
