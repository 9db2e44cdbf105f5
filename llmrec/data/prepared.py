"""Prepared data by name or directory; a name that is known is fetched and prepared once under `home()`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.readers.movielens_100k import convert
from llmrec.data.readers.recbole import read_ml_100k
from llmrec.data.sources import load_data, read, save_data
from llmrec.errors import DataError
from llmrec.storage.download import fetch, locked
from llmrec.storage.registry import home

KNOWN = ("ml-100k",)


def directory(name_or_path: str | Path, progress: bool = True) -> Path:
    """The directory of prepared data; a known name is fetched and prepared when it is not there yet.

    Raises:
        DataError: neither a directory nor a known name.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path
    name = str(name_or_path)
    prepared = home() / "data" / name
    if name not in KNOWN:
        if "/" not in name and prepared.is_dir():
            return prepared
        raise DataError(
            f"no prepared data '{name}'; give a directory made by `llmrec data prepare`, or {', '.join(KNOWN)}"
        )
    if not prepared.is_dir():
        files = raw_files(progress)
        with locked(f"prepare-{name}"):
            if not prepared.is_dir():
                save_data(prepared, *read(name, files))
    return prepared


def raw_files(progress: bool = True) -> Path:
    """The files of MovieLens-100k, fetched when they are not there yet."""
    return fetch("ml-100k", progress, convert_movielens)


def convert_movielens(archive: bytes, directory: Path) -> Mapping[str, str]:
    """Write what GroupLens publishes as atomic files; the fingerprints of what they hold."""
    convert(archive, directory)
    catalog, interactions, _ = read_ml_100k(directory)
    return {"catalog": catalog.fingerprint, "interactions": interactions.fingerprint}


def open_data(name_or_path: str | Path, progress: bool = True) -> tuple[Catalog, Interactions]:
    """Catalogue and interactions of prepared data."""
    catalog, interactions, _ = load_data(directory(name_or_path, progress))
    return catalog, interactions


def short_name(path: str | Path) -> str:
    """How a model refers to its data: a name when it lies under `home()`, an absolute path otherwise."""
    path = Path(path)
    if str(path) in KNOWN:
        return str(path)
    return path.name if path.resolve().parent == (home() / "data").resolve() else str(path.resolve())
