"""Preflight checks: finds mistakes in recipe, data, base model and directories before training starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open

from llmrec.checkpoint.pretrained import MODEL_KIND
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Split
from llmrec.encoders import ease
from llmrec.errors import ArtifactError, DataError, RecipeError
from llmrec.finetune.base_model_info import check_architecture
from llmrec.finetune.plan.cost import added_parameters, decoder_shape
from llmrec.finetune.plan.work_directory import provisional_ids
from llmrec.finetune.recipe import Recipe
from llmrec.finetune.stages import settings_hash
from llmrec.finetune.train.engine import check_engine
from llmrec.lm.item_tokens import ItemVocab
from llmrec.lm.rendering import Renderer
from llmrec.storage.artifacts import check_replaceable, expect_fingerprint, read_manifest

TEXT_DIM = 384  # dimension of the sentence encoder, used only for the size of its artifact
_PROMPT = 64  # tokens of a prompt in addition to the items: role markers and phrasing
_MARGIN = 1.2


def check_run(
    recipe: Recipe, catalog: Catalog, split: Split, config: Any, tokenizer: Any, out: Path, work: Path
) -> None:
    """Run all checks of this module; `config` and `tokenizer` are those of the base model.

    Raises:
        UserError: the first problem found that would stop the run later.
    """
    check_engine(recipe.engine)
    check_neighbours(recipe, catalog)
    check_data(recipe, catalog, split)
    check_base(recipe, config, tokenizer)
    check_directories(recipe, catalog, out, work)
    check_space(space_needed(recipe, config, len(catalog), len(split.valid)), out, work)


def check_neighbours(recipe: Recipe, catalog: Catalog) -> None:
    """Refuse neighbours that this machine cannot compute.

    Raises:
        RecipeError: ridge regression is set and there are more items than fit into memory.
    """
    if recipe.neighbours.ridge:
        ease.check_size(len(catalog))


def check_data(recipe: Recipe, catalog: Catalog, split: Split) -> None:
    """Refuse data from which the recipe's training examples cannot be made.

    Raises:
        DataError: there are too many items for the codebook, an interaction names an unknown item row, or no user has
            two train interactions to learn from.
        RecipeError: the replay task has a share but there are no passages.
    """
    shape, traffic = recipe.semantic_ids, recipe.traffic
    room = shape.size**shape.depth
    if room < len(catalog):
        raise DataError(
            f"{shape.depth} levels of {shape.size} codes hold {room} items; the catalogue has {len(catalog)}: "
            "raise semantic_ids.size or depth"
        )
    rows = split.train.row
    if len(rows) and int(rows.max()) >= len(catalog):
        raise DataError(f"the interactions name row {int(rows.max())}; the catalogue has {len(catalog)} items")
    lengths = split.train.offsets[1:] - split.train.offsets[:-1]
    if not (lengths >= 2).any():
        raise DataError("no user has two interactions in the train part: there is no next item to learn")
    if "replay" in traffic.shares and not traffic.passages:
        raise RecipeError("traffic.passages is 0, but the task replay has a share: give at least 1 or drop the task")


def check_base(recipe: Recipe, config: Any, tokenizer: Any) -> None:
    """Refuse a base model that cannot be fine-tuned with this recipe.

    Raises:
        WeightsError: the architecture lacks the linear layers that LoRA is applied to, or the chat markers are unknown.
        RecipeError: prompts may become longer than the model's context.
    """
    check_architecture(config)
    body = decoder_shape(config)
    shape, slots = recipe.semantic_ids, recipe.model.user_slots
    vocab = ItemVocab(body.words, provisional_ids(1, shape.depth, shape.size, 1, recipe.seed))
    Renderer(tokenizer, vocab, slots, recipe.encoder.dim)  # reads the chat markers
    longest = (recipe.traffic.window + 1) * (shape.depth + slots) + _PROMPT
    if longest > body.context:
        raise RecipeError(
            f"traffic.window {recipe.traffic.window} makes prompts of up to {longest} tokens; "
            f"the base model reads {body.context}: lower the window"
        )


def check_directories(recipe: Recipe, catalog: Catalog, out: Path, work: Path) -> None:
    """Refuse an `out` that may not be replaced, and directories that belong to another catalogue.

    A model's semantic IDs refer to rows of one catalogue, so two catalogues must not be mixed. Changed interactions or
    settings are no error: the stages that they affect are made again, with a message.

    Raises:
        ArtifactError: `out` holds something else, or a directory belongs to another catalogue; the message names the
            fingerprints, the numbers of items, or what `out` holds.
    """
    check_replaceable(out, MODEL_KIND)
    if (out / "config.json").is_file():
        expect_fingerprint(read_manifest(out, MODEL_KIND, verify=False), "catalog", catalog.fingerprint, "catalogue")
    advice = f"give another --work, or remove {work}"
    found, wanted = _inputs_of(work / "text"), settings_hash(catalog=catalog.fingerprint, embedder=recipe.embedder)
    if found not in ("", wanted):
        raise ArtifactError(
            f"the stages in {work} belong to another catalogue or embedder: inputs {found[:16]}, "
            f"this data has {wanted[:16]}; {advice}"
        )
    codes = work / "semantic_ids" / "arrays.safetensors"
    if codes.is_file():
        with safe_open(codes, "numpy") as file:
            held = file.get_slice("codes").get_shape()[0]
        if held != len(catalog):
            raise ArtifactError(
                f"the semantic IDs in {work} are those of {held} items, the catalogue has {len(catalog)}; {advice}"
            )


def _inputs_of(stage: Path) -> str:
    """Return the fingerprint of a stage's inputs, or "" if the stage is missing or damaged and will be made again."""
    try:
        manifest = read_manifest(stage, f"stage-{stage.name}", verify=False)
    except ArtifactError:
        return ""
    return manifest.fingerprints.get("inputs", "")


def space_needed(recipe: Recipe, config: Any, items: int, users: int) -> dict[str, int]:
    """Return the largest number of bytes that a run writes to "work" and to "out".

    The work directory holds three checkpoints (two kept, one being written) of the trained weights with two moments,
    two copies of the best weights, the stages, and the scores of the fusion users over the whole catalogue.
    """
    shape, traffic = recipe.semantic_ids, recipe.traffic
    added = added_parameters(decoder_shape(config), recipe.model, shape.depth, shape.size, recipe.encoder.dim).total * 4
    encoder = 4 * (items + recipe.encoder.max_len) * (recipe.encoder.dim + 1)
    stages = encoder + 4 * items * TEXT_DIM + 8 * traffic.passages * traffic.passage_tokens
    scores = 2 * 4 * (users // 2) * items
    return {"work": 11 * added + stages + scores, "out": 2 * (added + encoder)}


def check_space(needed: dict[str, int], out: Path, work: Path) -> None:
    """Refuse a disk with too little free space.

    Raises:
        RecipeError: the space is not enough; the message names the directory, the space needed and the space free.
    """
    there = {"out": _existing(out), "work": _existing(work)}
    for name, path in (("work", work), ("out", out)):
        device = os.stat(there[name]).st_dev
        need = sum(needed[one] for one in needed if os.stat(there[one]).st_dev == device) * _MARGIN
        free = shutil.disk_usage(there[name]).free
        if free < need:
            raise RecipeError(
                f"the disk of --{name} {path} has {free / 1e9:.2f} GB free; this run writes up to {need / 1e9:.2f} GB: "
                "free some space or give another directory"
            )


def _existing(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path
