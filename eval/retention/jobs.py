"""Prepares the tasks of the retention suite for any model: reads files, draws samples, loads checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmrec.eval.retention import benchmarks, instruction_following
from llmrec.eval.retention.benchmarks import IFEVAL, TASKS, WIKITEXT, Benchmark, Source
from llmrec.eval.retention.continuations import continuations_of, score_continuations
from llmrec.eval.retention.generate import replies
from llmrec.eval.retention.instruction_following import Instruction
from llmrec.eval.retention.likelihood import SCORING, block_nll, read_text, text_blocks
from llmrec.eval.retention.store import Sample, Values
from llmrec.lm.model import RecModel
from llmrec.ranking.grounding import GroundingChecker

BLOCKS, LENGTH = 40, 512
IFEVAL_PROMPTS = 64  # of the 435 prompts that can be checked and fit
Told = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """One prepared task: its sample, and how to measure it.

    Attributes:
        sample: its description, without the model.
        numbers: numbers of the items in their file.
        main: the metric that counts as the task's accuracy, None for none.
        run: maps a model and a progress callback to the values of the items.
    """

    sample: Sample
    numbers: Sequence[int]
    main: str | None
    run: Callable[[RecModel, Told], Values]


def prepare_jobs(model: RecModel, folder: Path, titles: GroundingChecker, limit: int | None, seed: int) -> list[Job]:
    """Prepare all tasks with their samples drawn; nothing is measured yet."""
    return [
        _wikitext(model, folder, limit, seed),
        *(_questions(task, folder, limit, seed) for task in TASKS),
        _own(titles, limit, seed),
        _ifeval(folder, titles, limit, seed),
    ]


def _wikitext(model: RecModel, folder: Path, limit: int | None, seed: int) -> Job:
    (path,) = WIKITEXT.find(folder)
    blocks = text_blocks(model, read_text(path), BLOCKS if limit is None else limit, LENGTH, seed)
    sample = Sample("wikitext2", f"1.{SCORING}", _files(WIKITEXT, folder), seed, len(blocks), {"length": LENGTH}, ())

    def run(model: RecModel, told: Told) -> Values:
        return [{"nats_per_token": float(line.mean())} for line in block_nll(model, blocks, told)]

    return Job(sample, range(len(blocks)), None, run)


def _questions(task: Benchmark, folder: Path, limit: int | None, seed: int) -> Job:
    numbers, questions = benchmarks.load(task, folder, limit, seed)
    sample = Sample(task.name, f"{task.version}.{SCORING}", _files(task.source, folder), seed, len(questions), {}, ())

    def run(model: RecModel, told: Told) -> Values:
        found = score_continuations(model, [continuations_of(model, q.context, q.choices) for q in questions], told)
        return [dict(task.judge(question, one)) for question, one in zip(questions, found, strict=True)]

    return Job(sample, numbers, task.main, run)


def _own(titles: GroundingChecker, limit: int | None, seed: int) -> Job:
    version, instructions = instruction_following.own_instructions()
    sample = Sample("instructions", f"{version}.{SCORING}", (), seed, 0, {}, ())
    return _chat(sample, instructions, titles, limit, instruction_following.OWN_TOKENS)


def _ifeval(folder: Path, titles: GroundingChecker, limit: int | None, seed: int) -> Job:
    (path,) = IFEVAL.find(folder)
    instructions = instruction_following.read_ifeval(path)
    sample = Sample("ifeval", f"1.{SCORING}", _files(IFEVAL, folder), seed, 0, {}, ())
    return _chat(
        sample, instructions, titles, IFEVAL_PROMPTS if limit is None else limit, instruction_following.IFEVAL_TOKENS
    )


def _chat(
    sample: Sample, instructions: Sequence[Instruction], titles: GroundingChecker, limit: int | None, tokens: int
) -> Job:
    count = len(instructions) if limit is None else limit
    numbers = benchmarks.sample([""] * len(instructions), count, sample.seed)
    chosen = [instructions[number] for number in numbers]

    def run(model: RecModel, told: Told) -> Values:
        said = replies(model, [one.prompt for one in chosen], tokens, progress=told)
        pairs = zip(chosen, said, strict=True)
        return [instruction_following.judge(one, reply, model, titles) for one, reply in pairs]

    settings: dict[str, int | str] = {
        "tokens": tokens,
        "verifiable": len(instructions),
        "catalog": titles.catalog.fingerprint,
    }
    return Job(replace(sample, items=len(chosen), settings=settings), numbers, "acc", run)


def _files(source: Source, folder: Path) -> tuple[str, ...]:
    return tuple(benchmarks.fingerprint(source, folder))


def text_length(model: RecModel, folder: Path) -> tuple[int, int]:
    """Length of the running text in tokens and in words; a line end counts as a word, as defined for the data set."""
    text = read_text(WIKITEXT.find(folder)[0])
    return len(model.renderer.encode_text(text)), len(text.split()) + text.count("\n")
