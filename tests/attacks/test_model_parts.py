"""Model directories by somebody else whose parts do not fit each other: one clear error, before anything is computed.

Every file here is whole and sealed; what is wrong are sizes, ranges and numbers.
"""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_catalog
from safetensors.numpy import load_file, save_file
from test_model_dirs import config, reseal, tensors
from toy_files import recommender, saved

from llmrec.checkpoint.parts import read_parts
from llmrec.errors import ArtifactError
from llmrec.semantic_ids.residual_kmeans import SemanticIds


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("good"))[0]


@pytest.fixture
def path(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    shutil.copytree(good, tmp_path / "model")
    return tmp_path / "model"


def arrays(file: str, **changes: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    """An edit of the arrays of a safetensors file, by name."""

    def edit(path: Path) -> None:
        held = {name: np.array(value) for name, value in load_file(path / file).items()}
        held |= {name: np.ascontiguousarray(change(held[name])) for name, change in changes.items()}
        save_file(held, path / file)

    return edit


def near(**changes: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    return arrays("neighbours.safetensors", **changes)


def of_ids(**changes: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    """As `arrays`, with the fingerprint that codes are told apart by."""

    def edit(path: Path) -> None:
        arrays("semantic_ids.safetensors", **changes)(path)
        held = load_file(path / "semantic_ids.safetensors")
        told = json.loads((path / "manifest.json").read_text())
        told["fingerprints"]["semantic_ids"] = SemanticIds(held["codes"], held["book"]).fingerprint
        (path / "manifest.json").write_text(json.dumps(told))

    return edit


def spoilt(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """The same array with another first value."""
    return lambda array: np.concatenate([np.array([value], array.dtype), array.ravel()[1:]]).reshape(array.shape)


def wrapping(ends: np.ndarray) -> np.ndarray:
    """The same ends but for two whose difference is 1 in 32 bits."""
    out = ends.copy()
    out[1], out[2:-1] = 2**31 - 1, -(2**31)
    return out


NEIGHBOURS: dict[str, dict[str, Callable[[np.ndarray], object]]] = {
    "places beyond the catalogue": {"indices": lambda a: a * 0 + 900_000_000},
    "places below zero": {"indices": lambda a: a * 0 - 900_000_000},
    "places that are fractions": {"indices": lambda a: a.astype(np.float32)},
    "fewer places than values": {"indices": lambda a: a[:-1]},
    "ends beyond the values": {"indptr": lambda a: np.concatenate([a[:1], a[1:-1] * 0 + 900_000_000, a[-1:]])},
    "ends below zero": {"indptr": lambda a: np.concatenate([a[:1], a[1:-1] * 0 - 900_000_000, a[-1:]])},
    "ends whose steps wrap around": {"indptr": lambda a: wrapping(a)},
    "ends of fewer items": {"indptr": lambda a: a[:6]},
    "of fewer items": {
        "behind": lambda a: a[:5],
        "indptr": lambda a: a[:6] * 0,
        "indices": lambda a: a[:0],
        "data": lambda a: a[:0],
    },
    "values that are no numbers": {"data": spoilt(np.nan)},
    "values without end": {"data": spoilt(np.inf)},
    "values as large as floats get": {"data": spoilt(3e38)},
    "values that are whole": {"data": lambda a: a.astype(np.int8)},
    "values below zero": {"data": lambda a: a * 0 - 1},
    "an order that is no number": {"behind": spoilt(np.nan)},
    "an order of a table": {"behind": lambda a: a[:, None]},
    "no settings": {"settings": lambda a: a[:0]},
    "settings that are no numbers": {"settings": lambda a: a * np.nan},
    "settings without end": {"settings": lambda a: np.array([1.0, 1e300, 1.0])},
    "settings out of range": {"settings": lambda a: np.array([-1.0, 50.0, 1.0])},
    "a fade of two": {"settings": lambda a: np.array([1.0, 50.0, 2.0])},
}
EDITS: dict[str, Callable[[Path], None]] = {
    "no weights at all": config(fusion={}),
    "weights of nothing": config(fusion={"history": {}, "words": {}}),
    "weights of unknown parts": config(fusion__history={"zzz": 1.0}),
    "weights of words for who says none": config(fusion__history={"words": 1.0}),
    "a language model of no weight alone": config(fusion__words={"llm": 0.0}),
    "a weight that is no number": config(fusion__history={"encoder": float("nan"), "llm": 1.0}),
    "a weight without end": config(fusion__words={"encoder": 1e308, "llm": 1e308}),
    "a likeness that is no number": config(settings__profile={"temperature": float("nan")}),
    "a window of nothing": config(settings__window=0),
    "a window below zero": config(settings__window=-5),
    "a window without end": config(settings__window=10**30),
    "towers that are numbers": config(encoder__towers=[3]),
    "a thousand towers": config(encoder__towers=[{"kind": "sasrec"}] * 1000),
    "a filter as large as memory": config(encoder__kind="bsarec", encoder__max_len=1 << 16),
    "layers that the encoder does not have": config(encoder__layers=128),
    "an adapter wider than its weights": config(model__adapter_width=1 << 16),
    "a rank larger than its weights": config(model__lora_rank=1024),
    "ids of more codes than there are tokens": of_ids(book=lambda a: np.zeros((len(a), 1 << 20, 1), np.float32)),
    "ids of a billion codes of no dimension": of_ids(book=lambda a: np.zeros((len(a), 1 << 30, 0), np.float32)),
    "ids of another depth": of_ids(codes=lambda a: a[:, :1]),
    "ids of fewer items": of_ids(codes=lambda a: a[:5], prior=lambda a: a[:5], counts=lambda a: a[:5]),
    "ids that are fractions": of_ids(codes=lambda a: a.astype(np.float32)),
    "ids that two items share": of_ids(codes=lambda a: a * 0),
    "ids beyond their codes": of_ids(codes=lambda a: a + 1000),
    "counts of three items": of_ids(counts=lambda a: a[:3]),
    "counts below zero": of_ids(counts=spoilt(-1)),
    "counts that are fractions": of_ids(counts=lambda a: a.astype(np.float64) + 0.5),
    "counts without end": of_ids(counts=lambda a: np.full(len(a), 2**64 - 1, np.uint64)),
    "a prior of three items": of_ids(prior=lambda a: a[:3]),
    "a prior of a table": of_ids(prior=lambda a: a[:, None]),
    "a prior that is no number": of_ids(prior=spoilt(np.nan)),
    "a prior that is all there is": of_ids(prior=spoilt(1e4)),
    "a prior that drowns the others": of_ids(prior=spoilt(60.0)),
    "an encoder of fewer items": arrays(
        "encoder.safetensors", **{"item.weight": lambda a: a[:6], "bias": lambda a: a[:5]}
    ),
    "an encoder that is no number": arrays("encoder.safetensors", bias=spoilt(np.nan)),
    "an adapter that is no number": arrays("adapter.safetensors", **{"items.weight": spoilt(np.inf)}),
    **{f"neighbours, {what}": near(**changes) for what, changes in NEIGHBOURS.items()},
}


@pytest.mark.parametrize("name", EDITS)
def test_parts_that_do_not_fit_are_one_clear_error(name: str, path: Path) -> None:
    EDITS[name](path)
    reseal(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArtifactError) as caught:
        recommender(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert grown < 300 * 1024, f"{grown // 1024} MB"


@pytest.mark.parametrize("what", ["places beyond the catalogue", "of fewer items", "values that are no numbers"])
def test_what_refresh_and_removal_read_is_one_clear_error_too(what: str, path: Path) -> None:
    near(**NEIGHBOURS[what])(path)
    reseal(path)
    with pytest.raises(ArtifactError, match="neighbours") as caught:
        read_parts(path, make_catalog())
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["encoder.safetensors", "semantic_ids.safetensors", "neighbours.safetensors"])
def test_a_file_that_is_none_is_one_clear_error_for_refresh_and_removal(name: str, path: Path) -> None:
    tensors(name, {})(path)
    reseal(path)
    with pytest.raises(ArtifactError, match="does not load"):
        read_parts(path)
