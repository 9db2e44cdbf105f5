"""Training recipes: YAML validated into typed settings; unknown keys and values out of range are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from llmrec.encoders.config import EncoderConfig
from llmrec.encoders.item_knn import NeighbourSettings
from llmrec.encoders.text_similarity import ProfileSettings
from llmrec.errors import RecipeError
from llmrec.finetune.data.tasks import TASKS
from llmrec.finetune.recipe_files import RECIPES, recipe_names
from llmrec.finetune.recipe_overrides import apply_overrides, parse_overrides
from llmrec.finetune.train.loop import Schedule
from llmrec.lm.model import ModelConfig
from llmrec.lm.runtime.onednn import MatmulDtype, fastest_matmul_dtype

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("tokens", 1, 1e15),
    ("lr_lora", 0, 1),
    ("lr_items", 0, 1),
    ("lr_adapter", 0, 1),
    ("warmup", 0, 1),
    ("floor", 0, 1),
    ("clip", 1e-6, 1e6),
    ("weight_decay", 0, 1),
    ("accumulate", 1, 1_000_000),
    ("kl", 0, 1000),
    ("adapter_share", 0, 0.95),
    ("validate_tokens", 0, 1e15),
    ("validate_users", 1, 1e9),
    ("patience", 0, 1_000_000),
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SemanticIdSettings(_Strict):
    """Settings of the semantic IDs: codebook shape, share of text in the fused vectors, and quantisation method.

    Attributes:
        depth: codes per item.
        size: codes per level.
        text_dims: number of principal axes of the text vectors to keep.
        text_weight: share of the text in the squared norm of the fused vectors.
        method: "kmeans" for residual k-means, "rqvae" for an RQ-VAE as in TIGER.
    """

    method: Literal["kmeans", "rqvae"] = "kmeans"
    depth: int = Field(2, ge=1, le=8)
    size: int = Field(64, ge=2, le=4096)
    text_dims: int = Field(64, ge=1)
    text_weight: float = Field(0.5, ge=0.0, le=1.0)


class MixtureSettings(_Strict):
    """Settings of the task mixture: the share of tokens for each task, and how examples are made.

    Attributes:
        shares: task -> share; shares need not sum to one.
        window: largest number of items that a prompt shows.
        user_share: share of the items of a packed history that are followed by a user vector.
        round_tokens: tokens of training examples that are made and shuffled at a time.
        pack_tokens: tokens per pack, computed in one pass.
        passages: number of passages of the base model's own text to replay.
        passage_tokens: tokens per passage.
        folds: number of folds. User vectors come from encoders that were fitted on the users of the other folds (see
            `out_of_fold`). 0 takes them from the full encoder, which was fitted on the items to predict.
    """

    shares: dict[str, float]
    window: int = Field(50, ge=1)
    user_share: float = Field(0.5, ge=0.0, le=1.0)
    round_tokens: int = Field(200_000, ge=1)
    pack_tokens: int = Field(1024, ge=16)
    passages: int = Field(192, ge=0)
    passage_tokens: int = Field(128, ge=2)
    folds: int = Field(0, ge=0)

    @field_validator("folds")
    @classmethod
    def _several(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("1 fold leaves nobody to fit an encoder on; give 0 for none, or at least 2")
        return folds

    @field_validator("shares")
    @classmethod
    def _known(cls, shares: dict[str, float]) -> dict[str, float]:
        for name, share in shares.items():
            if name not in TASKS:
                raise ValueError(f"no task '{name}'; there are: {', '.join(TASKS)}")
            if share < 0:
                raise ValueError(f"task '{name}' has the share {share}; shares are at least 0")
        if not any(shares.values()):
            raise ValueError("at least one task needs a share above 0")
        return {name: share for name, share in shares.items() if share > 0}


class EngineSettings(_Strict):
    """Numerical settings of training: number formats, memory savings and the attention kernel.

    Attributes:
        precision: float32, or bfloat16 for devices that are fast in it.
        products: number format of the matrix products with frozen weights while training in float32 on a CPU, and of
            all matrix products while the fusion is fitted. "auto" takes bfloat16 if the processor multiplies faster in
            it. On the same kind of machine a run gives the same bytes. A format that the processor does not support is
            refused at the start.
        gradient_checkpointing: recompute activations in the backward pass, which needs less memory and a third more
            time.
        quantize: "4bit" loads the base model as NF4 through bitsandbytes (QLoRA); "none" does not quantise it.
        attention: "varlen" is this package's own kernel and runs everywhere; "flash_attention_2" needs its package.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    products: Literal["float32", "bfloat16", "auto"] = "float32"
    gradient_checkpointing: bool = False
    quantize: Literal["none", "4bit"] = "none"
    attention: Literal["varlen", "flash_attention_2"] = "varlen"

    @property
    def for_gpu(self) -> tuple[str, ...]:
        """The settings that are meant for a GPU, as written in a recipe; empty if the recipe runs on any machine."""
        named = {"precision": "bfloat16", "quantize": "4bit", "attention": "flash_attention_2"}
        return tuple(f"engine.{name}: {value}" for name, value in named.items() if getattr(self, name) == value)

    @property
    def format(self) -> MatmulDtype:
        """The number format that `products` selects on this machine."""
        return fastest_matmul_dtype() if self.products == "auto" else self.products


class Recipe(_Strict):
    """All settings that determine a model, apart from the data."""

    base: str = "smollm2-135m-instruct"
    embedder: str = "minilm-l6-v2"
    seed: int = 0
    encoder: EncoderConfig = EncoderConfig()
    semantic_ids: SemanticIdSettings = SemanticIdSettings()
    model: ModelConfig = ModelConfig()
    neighbours: NeighbourSettings = NeighbourSettings()
    profile: ProfileSettings = ProfileSettings()
    traffic: MixtureSettings
    schedule: Schedule = Schedule()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _schedule_in_range(self) -> Recipe:
        for name, low, high in _RANGES:
            value = getattr(self.schedule, name)
            if not low <= value <= high:
                raise ValueError(f"schedule.{name} is {value}; it must lie between {low:g} and {high:g}")
        return self


def recipe_path(name_or_path: str | Path) -> Path:
    """Return the file of a recipe, given by path or by its name in `finetune/recipes`.

    Raises:
        RecipeError: there is no such recipe.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise RecipeError(f"no recipe '{name_or_path}'; give a YAML file or one of: {', '.join(recipe_names())}")
    return path


def load_recipe(name_or_path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe, given by path or by its name in `finetune/recipes`.

    Args:
        name_or_path: name or file of the recipe.
        changes: `key=value` strings that override the file; see `recipe_overrides`.

    Raises:
        RecipeError: there is no such recipe, the YAML does not parse, a key is unknown, or a value is out of range.
    """
    path = recipe_path(name_or_path)
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bad syntax, invalid dates, deep nesting
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of settings")
    given = typed_overrides(changes)
    try:
        return Recipe.model_validate(apply_overrides(data, given))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        told = [f"{key}={value}" for key, value in given.items() if where == key or where.startswith(f"{key}.")]
        told = told or [f"{key}={value}" for key, value in given.items()]  # the rule spans several settings
        source = f"{path} with --set {' --set '.join(told)}" if told else str(path)
        raise RecipeError(f"{source}: {_first(error)}") from None


def typed_overrides(changes: Sequence[str]) -> dict[str, Any]:
    """Parse `--set` strings into a mapping from dotted key to value.

    Raises:
        RecipeError: see `recipe_overrides.parse_overrides`.
    """
    return parse_overrides(changes, Recipe.model_json_schema(), tuple(TASKS)) if changes else {}


def _first(error: ValidationError) -> str:
    """Return the first problem as one line; for an unknown key, the line lists the valid keys."""
    unknown = ("extra_forbidden", "unexpected_keyword_argument")
    problem = min(error.errors(), key=lambda e: e["type"] not in unknown)  # a typo explains missing keys
    where = ".".join(str(p) for p in problem["loc"])
    if problem["type"] in unknown:
        fields: Any = Recipe
        for part in problem["loc"][:-1]:
            fields = _fields(fields)[str(part)]
        return f"unknown key '{where}'; valid here: {', '.join(_fields(fields))}"
    return f"'{where}': {problem['msg'].removeprefix('Value error, ')}"


def _fields(kind: Any) -> dict[str, Any]:
    if hasattr(kind, "model_fields"):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return {name: field.type for name, field in kind.__dataclass_fields__.items()}
