"""Sets up the accuracy suite: data, split, and the model if it was trained on exactly this train part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmrec.checkpoint.pretrained import MODEL_KIND, read_settings
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import open_data
from llmrec.data.interactions import Interactions, Split, leave_one_out, split_by_time
from llmrec.encoders.config import EncoderKind
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.encoders.text import MiniLM
from llmrec.encoders.text_cache import embed_catalog
from llmrec.errors import ArtifactError, DataError
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.ranker import Scores
from llmrec.recommender import SHIPPED, Recommender
from llmrec.storage.artifacts import read_manifest
from llmrec.storage.registry import cache_home

BESIDE: tuple[EncoderKind, ...] = ("sasrec", "hstu")  # encoders that are in every table


@dataclass(frozen=True, eq=False)
class EvaluationSetup:
    """The data, its split, and the model if it was trained on exactly this train part.

    Attributes:
        name: name of the data, for file names.
        catalog: the items.
        split: train part, validation and test targets.
        text: float32[n, d], vectors of the items' texts.
        recommender: the model, or None.
        missing: why there is no model, for the result file.
        path: directory of the model.
    """

    name: str
    catalog: Catalog
    split: Split
    text: Scores
    recommender: Recommender | None
    missing: str = ""
    path: Path = SHIPPED

    @property
    def encoder(self) -> SequenceEncoder | None:
        """The model's own encoder, None without a model."""
        return None if self.recommender is None else self.recommender.model.encoder

    @property
    def reference(self) -> EncoderKind:
        """The row that others are compared with: the model's own encoder, or else the first one in every table."""
        return BESIDE[0] if self.encoder is None else self.encoder.net.config.kind


def open_setup(
    model: str | Path | None, data: str | Path | None, split: str, matmul_dtype: MatmulDtype = "float32"
) -> EvaluationSetup:
    """Load and split the data, and load the model if it may be evaluated on this split.

    `matmul_dtype` is the number format of the model's matrix products.
    """
    subject = _opened(model, data, split)
    if subject.recommender is not None:
        subject.recommender.model.matmul_dtype = matmul_dtype
    return subject


def _opened(model: str | Path | None, data: str | Path | None, split: str) -> EvaluationSetup:
    path = SHIPPED if model is None else Path(model)
    if split == "loo":
        return _whole(Recommender.from_pretrained(model, data), split, path)
    source = str(read_settings(path)["data"] if data is None else data)
    catalog, interactions = open_data(source)
    cut = global_time(interactions)
    trained = str(read_manifest(path, MODEL_KIND, verify=False).meta.get("train_fingerprint"))
    if trained == cut.train.fingerprint:
        return _whole(Recommender.from_pretrained(model, data), split, path)
    missing = (
        f"not measured: the model was trained on the train part {trained[:16]}, this split has "
        f"{cut.train.fingerprint[:16]}; train one on this split to measure it here"
    )
    text = embed_catalog(catalog, MiniLM.load(), cache_home() / "cache")
    return EvaluationSetup(Path(source).name, catalog, cut, text, None, missing, path)


def _whole(recommender: Recommender, split: str, path: Path) -> EvaluationSetup:
    x = recommender.interactions
    cut = leave_one_out(x) if split == "loo" else global_time(x)
    trained = recommender.model_card.get("train_fingerprint")
    if trained != cut.train.fingerprint:
        raise ArtifactError(
            f"the model was trained on the train part {str(trained)[:16]}, this data has "
            f"{cut.train.fingerprint[:16]}: measuring it here would mix train and test"
        )
    name = Path(str(recommender.data_name)).name
    return EvaluationSetup(name, recommender.catalog, cut, recommender.scorer.text, recommender, path=path)


def open_model(
    model: str | Path | None, data: str | Path | None, split: str, matmul_dtype: MatmulDtype = "float32"
) -> tuple[Recommender, Split]:
    """Load only model and split, for use in another process.

    Raises:
        UserError: the model may not be evaluated on this split.
    """
    subject = open_setup(model, data, split, matmul_dtype)
    if subject.recommender is None:
        raise ArtifactError(subject.missing)
    return subject.recommender, subject.split


def global_time(x: Interactions, valid: float = 0.8, test: float = 0.9) -> Split:
    """Split all users at the times before which these shares of all interactions lie.

    This is `split_by_time` at quantiles of the log.

    Raises:
        DataError: so many interactions share one timestamp that the two cuts coincide.
    """
    times = np.sort(x.time)
    if not len(times):
        raise DataError("a log without interactions cannot be cut by time")
    cuts = [int(times[min(int(len(times) * share), len(times) - 1)]) for share in (valid, test)]
    return split_by_time(x, *cuts)
