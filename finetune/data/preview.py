"""Shows training examples as the model sees them: every token by name, and which tokens are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import open_data
from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.errors import RecipeError, RequestError
from llmrec.finetune.base_model_info import BaseModelInfo, find_base_model
from llmrec.finetune.data import traffic_dataset
from llmrec.finetune.data.context import Example
from llmrec.finetune.data.replay import sample_passages
from llmrec.finetune.data.tasks import TASKS
from llmrec.finetune.pipeline import fresh_model
from llmrec.finetune.plan import work_directory
from llmrec.finetune.plan.cost import decoder_shape
from llmrec.finetune.plan.preflight import check_base, check_data
from llmrec.finetune.recipe import Recipe, load_recipe
from llmrec.finetune.stages import Inputs
from llmrec.lm.base_models import load_base
from llmrec.lm.item_tokens import ItemVocab
from llmrec.lm.rendering import Rendered, Renderer
from llmrec.progress import silent

USER = "<user>"
TRAINED = "bold green"
OPEN, CLOSE = "⟦", "⟧"  # mark trained text: visible without colour, and in no prompt template


@dataclass(frozen=True, eq=False)
class Sample:
    """One rendered example.

    Attributes:
        task: name of the task.
        example: the example as the task made it.
        pieces: (text, trained) in order, with item tokens and user slots by name.
        rendered: ids int64[t], loss mask bool[t] and user vectors.
    """

    task: str
    example: Example
    pieces: tuple[tuple[str, bool], ...]
    rendered: Rendered

    def values(self) -> dict[str, Any]:
        """Return plain values: task, text with marks, ids, mask (1 is trained on) and the number of user vectors."""
        return {
            "task": self.task,
            "text": self.marked(),
            "ids": self.rendered.ids.tolist(),
            "loss": self.rendered.loss.astype(int).tolist(),
            "users": len(self.rendered.users),
        }

    def marked(self) -> str:
        """Return the text, with trained parts in brackets."""
        return "".join(f"{OPEN}{text}{CLOSE}" if trained else text for text, trained in self.pieces)


@dataclass(frozen=True, eq=False)
class TaskPreview:
    """Samples of a task ("" for several tasks), and a description of what is provisional in them ("" for nothing)."""

    task: str
    samples: tuple[Sample, ...]
    provisional: str


def preview_task(
    task: str,
    n: int = 3,
    data: str = "ml-100k",
    recipe: str | Path = "ml-100k",
    seed: int = 0,
    work: Path | None = None,
) -> TaskPreview:
    """Return samples of one task, made with the settings of a recipe.

    Semantic IDs and replay text come from `work` if its stages are finished.

    Raises:
        RequestError: there is no such task, `n` is less than 1, or `work` is not a directory.
        UserError: the data, recipe or base model cannot be used.
    """
    if task not in TASKS:
        raise RequestError(f"no task '{task}'; there are: {', '.join(TASKS)}")
    if n < 1:
        raise RequestError(f"-n is {n}; it must be at least 1")
    settings = load_recipe(recipe)
    _check_work(work)
    return task_samples(task, n, settings, *open_data(data), find_base_model(settings.base), seed, work)


def show_saved(
    directory: Path,
    split: str = "train",
    task: str | None = None,
    n: int = 3,
    data: str = "ml-100k",
    recipe: str | Path = "ml-100k",
    work: Path | None = None,
) -> TaskPreview:
    """Return the first samples of an exported traffic directory, rendered with the present item codes.

    Raises:
        RequestError: there is no such split or task, `n` is less than 1, or `work` is not a directory.
        UserError: the data, recipe or base model cannot be used, or the directory has rows that no task makes.
    """
    if task is not None and task not in TASKS:
        raise RequestError(f"no task '{task}'; there are: {', '.join(TASKS)}")
    if n < 1:
        raise RequestError(f"-n is {n}; it must be at least 1")
    settings = load_recipe(recipe)
    _check_work(work)
    view = _view(settings, *open_data(data), find_base_model(settings.base), work)
    rows = traffic_dataset.read(directory, split, view.inputs.catalog, view.renderer)
    chosen = islice(((name, one) for name, one in rows if task in (None, name)), n)
    return TaskPreview(task or "", tuple(view.sample(*one) for one in chosen), "; ".join(view.provisional))


def _check_work(work: Path | None) -> None:
    if work is not None and not work.is_dir():
        raise RequestError(f"no directory {str(work)!r}; --work is where the stages of a training run are")


def task_samples(
    task: str,
    n: int,
    recipe: Recipe,
    catalog: Catalog,
    interactions: Interactions,
    base: BaseModelInfo,
    seed: int,
    work: Path | None,
) -> TaskPreview:
    """Do what `preview_task` does, on loaded inputs."""
    view = _view(recipe, catalog, interactions, base, work)
    provisional, passages = list(view.provisional), view.passages
    if task == "replay" and passages is None:
        passages = _passages(n, view.inputs, base, seed)
        provisional.append(f"replay text was sampled just now, {len(passages)} passages instead of the run's own")
    context = work_directory.placeholder_task_context(view.inputs, recipe.encoder.dim, passages)
    examples = islice(TASKS[task](context, np.random.default_rng([seed, 0])), n)
    return TaskPreview(task, tuple(view.sample(task, one) for one in examples), "; ".join(provisional))


@dataclass(frozen=True, eq=False)
class _View:
    """Renders examples as tokens: a renderer, what is provisional about it, and the replay text of a run."""

    inputs: Inputs
    renderer: Renderer
    tokenizer: Any
    provisional: tuple[str, ...]
    passages: np.ndarray | None

    def sample(self, task: str, example: Example) -> Sample:
        """Return a task's example as a rendered sample."""
        rendered = example if isinstance(example, Rendered) else self.renderer.render(example)
        return Sample(task, example, tuple(_pieces(rendered, self.renderer, self.tokenizer)), rendered)


def _view(
    recipe: Recipe, catalog: Catalog, interactions: Interactions, base: BaseModelInfo, work: Path | None
) -> _View:
    """Build a view from the finished stages of a run at `work`, or with random item codes."""
    inputs = Inputs(catalog, leave_one_out(interactions), recipe, work or Path("."), silent)
    check_data(recipe, catalog, inputs.split)
    check_base(recipe, base.config, base.tokenizer)
    found = (
        work_directory.look_up_stages(inputs, base.files)
        if work is not None
        else work_directory.StageOutputs(None, None, None, ())
    )
    shape = recipe.semantic_ids
    ids, provisional = found.ids, []
    if ids is None:
        ids = work_directory.provisional_ids(len(catalog), shape.depth, shape.size, recipe.encoder.dim, recipe.seed)
        provisional.append("item codes are provisional (random, not trained)")
    if base.stand_in:
        provisional.append(f"the base is described by {base.stand_in}")
    vocab = ItemVocab(decoder_shape(base.config).words, ids)
    renderer = Renderer(base.tokenizer, vocab, recipe.model.user_slots, recipe.encoder.dim)
    return _View(inputs, renderer, base.tokenizer, tuple(provisional), found.passages)


def _passages(n: int, inputs: Inputs, base: BaseModelInfo, seed: int) -> np.ndarray:
    """Return int64[n, length], passages sampled from the base model as in the replay stage."""
    if base.files is None:
        raise RecipeError(f"replay text is sampled from {base.id}, which is not on this machine yet")
    shape, recipe = inputs.recipe.semantic_ids, inputs.recipe
    ids = work_directory.provisional_ids(len(inputs.catalog), shape.depth, shape.size, recipe.encoder.dim, recipe.seed)
    encoder = work_directory.untrained_encoder(len(inputs.catalog), recipe.encoder, recipe.seed)
    model = fresh_model(recipe, load_base(base.files), ids, encoder)
    return sample_passages(model, n, recipe.traffic.passage_tokens, seed)


def _pieces(rendered: Rendered, renderer: Renderer, tokenizer: Any) -> Iterator[tuple[str, bool]]:
    """Yield (text, trained) for each run of tokens that are all trained on or all not.

    Words are decoded together; item tokens and user slots are shown by name.
    """
    vocab, names = renderer.vocab, renderer.vocab.names()

    def text(ids: Sequence[int]) -> str:
        if ids[0] < vocab.base:
            return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return "".join(USER if one == renderer.user_slot else names[one - vocab.base] for one in ids)

    marks = zip(rendered.ids.tolist(), rendered.loss.tolist(), strict=True)
    for trained, marked in groupby(marks, key=lambda one: one[1]):
        ids = [one for one, _ in marked]
        yield "".join(text(list(run)) for _, run in groupby(ids, key=lambda one: one < vocab.base)), trained


def print_preview(shown: TaskPreview, console: Console | None = None) -> None:
    """Print samples with trained parts in brackets and colour; markup in the text is not interpreted."""
    out = console or Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    if shown.provisional:
        out.print(Text(f"note: {shown.provisional}", style="yellow"))
    out.print(f"{OPEN}trained on{CLOSE}, read only")
    for number, sample in enumerate(shown.samples, 1):
        one = sample.rendered
        out.print(
            f"\n{sample.task} {number}: {len(one.ids)} tokens, {int(one.loss.sum())} trained on, "
            f"{len(one.users)} user vectors"
        )
        line = Text()
        for text, trained in sample.pieces:
            line.append(f"{OPEN}{text}{CLOSE}" if trained else text, TRAINED if trained else "")
        out.print(line)
