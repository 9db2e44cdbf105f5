"""Hyper-parameters of the sequential encoders, as in recipes and manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from llmrec.errors import RecipeError

EncoderKind = Literal["sasrec", "hstu", "bsarec"]
ENCODER_KINDS: tuple[EncoderKind, ...] = ("sasrec", "hstu", "bsarec")


def _omitted_at(default: Any) -> Any:
    """Return a field that is not serialised at its default, so that older recipes and manifests keep their hashes."""
    return Field(exclude_if=lambda value: value == default)


@dataclass(frozen=True)
class Tower:
    """One of several encoders whose vectors are concatenated; see `EncoderConfig` for the fields."""

    kind: EncoderKind = "sasrec"
    distance: bool = False
    text_dims: int = 0


@dataclass(frozen=True)
class EncoderConfig:
    """Hyper-parameters of the encoder; the defaults are SASRec's as chosen on MovieLens-100k validation.

    Attributes:
        dim: length of user and item vectors.
        layers: number of blocks.
        heads: number of attention heads, a divisor of dim.
        dropout: rate of all dropout layers.
        max_len: number of latest items of a history that are used.
        epochs: largest number of epochs.
        batch: number of histories (or pieces of long ones) per step.
        lr: learning rate of AdamW.
        weight_decay: weight decay of AdamW.
        patience: early stopping after this many validations without improvement.
        evaluate_every: epochs between validations.
        kind: type of the layers.
        distance: whether attention has a learnt bias by relative position, one for each head.
        text_dims: largest number of principal components of the text; item vectors are a free part plus a linear map
            of these. 0 leaves the text out.
        average: decay per step of the exponential moving average of all weights that is kept; 0 keeps the last weights.
        negatives: size of a step's softmax sample; 0 uses all items up to 100,000, and 8,192 of larger catalogues.
        low_bins: BSARec: number of lowest frequencies that pass its filter unchanged.
        filter_share: BSARec: weight of the filter beside attention.
        towers: several encoders, each with an equal part of `dim` and its own kind, distance and text_dims. They are
            trained separately, and their scores are averaged.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.3
    max_len: int = 100
    epochs: int = 60
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 8
    evaluate_every: int = 2
    kind: Annotated[EncoderKind, _omitted_at("sasrec")] = "sasrec"
    distance: Annotated[bool, _omitted_at(False)] = False
    text_dims: Annotated[int, _omitted_at(0)] = 0
    average: Annotated[float, _omitted_at(0.0)] = 0.0
    negatives: Annotated[int, _omitted_at(0)] = 0
    low_bins: Annotated[int, _omitted_at(3)] = 3
    filter_share: Annotated[float, _omitted_at(0.7)] = 0.7
    towers: Annotated[tuple[Tower, ...], _omitted_at(())] = ()

    def __post_init__(self) -> None:
        """Refuse impossible sizes before any work starts; towers may be given as mappings."""
        towers = tuple(Tower(**one) if isinstance(one, Mapping) else one for one in self.towers)
        object.__setattr__(self, "towers", towers)
        if self.kind not in ENCODER_KINDS:
            raise RecipeError(f"no encoder kind {self.kind!r}; there are: {', '.join(ENCODER_KINDS)}")
        if self.dim % (self.heads * max(1, len(towers))):
            each = f" times {len(towers)} towers" if towers else ""
            raise RecipeError(f"encoder dim {self.dim} must be a multiple of heads {self.heads}{each}")
        for name, below in (("dropout", 1.0), ("average", 1.0), ("filter_share", 1.001)):
            if not 0.0 <= getattr(self, name) < below:
                raise RecipeError(f"encoder {name} {getattr(self, name)} must lie in [0, 1)")
        if min(self.dim, self.layers, self.max_len, self.epochs, self.batch, self.low_bins) < 1:
            raise RecipeError("encoder dim, layers, max_len, epochs, batch and low_bins must be at least 1")
        if min(self.text_dims, self.negatives) < 0:
            raise RecipeError("encoder text_dims and negatives must be at least 0")

    @property
    def parts(self) -> tuple[EncoderConfig, ...]:
        """The settings of every tower, or of the single encoder."""
        if not self.towers:
            return (self,)
        dim = self.dim // len(self.towers)
        return tuple(replace(self, dim=dim, towers=(), **asdict(tower)) for tower in self.towers)


_LATER = {field.name: field.default for field in fields(EncoderConfig)[11:]}


def encoder_config_dict(config: EncoderConfig) -> dict[str, Any]:
    """Convert to plain values for a manifest; newer settings are omitted at their defaults, see `_omitted_at`."""
    values = asdict(config)
    values["towers"] = tuple(values["towers"])
    return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}
