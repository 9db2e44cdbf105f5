"""Reads data sets of the Hugging Face Hub, and directories in the same form, as tables, without running their code.

Rows are streamed in batches by the `datasets` library. A data set that needs its own loading script is refused, and so
is one whose card names files outside it.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors as hub_errors

from llmrec.data.readers.table_files import ColumnSelection, Row, batch_rows, check_columns, one_line
from llmrec.errors import DataError, RequestError, UserError
from llmrec.storage.network import PATIENCE
from llmrec.storage.registry import offline_setting

FORMS = ("csv", "json", "parquet", "arrow")  # the table readers of `datasets`; others decode media or unpickle objects
_BATCH = 4096
_NAMES = 20  # most configurations or splits that a message lists
_REPOSITORY = r"[\w.-]+/[\w.-]+"
_PART = r"(?P<config>[\w.-]+)?(?:@(?P<split>[\w.-]+))?"
_REFERENCE = re.compile(rf"hf:(?P<path>{_REPOSITORY})(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"[\w-][\w./-]{0,99}", re.ASCII)
_LOG_IN = "log in with `hf auth login`"


@dataclass(frozen=True)
class HubTable:
    """One split of one configuration of a data set.

    Attributes:
        path: OWNER/NAME on the Hub, or a directory.
        config: name of the configuration; "" for the default one or the only one.
        split: name of the split; "" for `train` or the only one.
        revision: branch, tag or commit of the repository; "" for its newest commit.
    """

    path: str
    config: str = ""
    split: str = ""
    revision: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether the data set is a directory on this machine."""
        return Path(self.path).is_dir()

    def __str__(self) -> str:
        """Return the reference `hf:OWNER/NAME[:CONFIG][@SPLIT]`, as written in a mapping."""
        config, split = f":{self.config}" if self.config else "", f"@{self.split}" if self.split else ""
        return f"hf:{self.path}{config}{split}"


def parse_reference(reference: str) -> HubTable:
    """Parse a reference `hf:OWNER/NAME[:CONFIG][@SPLIT]`.

    Raises:
        RequestError: the reference has another form.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise RequestError(f"{reference!r} should be hf:OWNER/NAME, with :CONFIG and @SPLIT where they are needed")
    return HubTable(match["path"], match["config"] or "", match["split"] or "")


def resolve_part(whole: HubTable, part: str) -> HubTable:
    """Resolve `CONFIG`, `CONFIG@SPLIT` or `@SPLIT` within the data set `whole`, or a full `hf:` reference.

    Raises:
        RequestError: `part` is none of these.
    """
    if part.startswith("hf:"):
        return parse_reference(part)
    match = re.fullmatch(_PART, part, re.ASCII)
    if match is None:
        forms = "a configuration of the data set, CONFIG, CONFIG@SPLIT or @SPLIT, or hf:OWNER/NAME of another one"
        raise RequestError(f"{part!r} should be {forms}")
    return replace(whole, config=match["config"] or whole.config, split=match["split"] or whole.split)


def check_table(table: HubTable) -> HubTable:
    """Return the table unchanged if its path and revision are valid.

    Raises:
        RequestError: the path is neither a directory nor OWNER/NAME, the revision is malformed, or a directory has one.
    """
    if table.is_directory:
        if table.revision:
            raise RequestError(f"--revision is for repositories of the Hub; {table.path!r} is a directory")
    elif not re.fullmatch(_REPOSITORY, table.path, re.ASCII):
        raise RequestError(f"{table.path!r} should be OWNER/NAME, a data set of the Hub, or a directory that is there")
    elif table.revision and not _REVISION.fullmatch(table.revision):
        raise RequestError(f"--revision {table.revision[:60]!r} should be a branch, a tag or a commit")
    return table


def pin_commit(table: HubTable) -> HubTable:
    """Return the table with its revision resolved to the current commit; a directory is returned unchanged.

    Raises:
        RequestError: `datasets` is not installed, the network is forbidden, or the Hub has no such data set or
            revision.
        DataError: the Hub does not answer.
    """
    check_table(table)
    if importlib.util.find_spec("datasets") is None:
        raise RequestError(f"{table} needs the package datasets: pip install 'llmrec[datasets]'")
    if table.is_directory or _COMMIT.fullmatch(table.revision):
        return table
    if forbidden := offline_setting():
        raise RequestError(f"{table}: the Hub may not be asked (offline: {forbidden}); give a directory instead")
    with _plain_errors(table):
        return replace(table, revision=_commit(table.path, table.revision))


@lru_cache(maxsize=64)  # items and interactions of one repository must come from the same commit
def _commit(path: str, revision: str) -> str:
    return str(huggingface_hub.HfApi().dataset_info(path, revision=revision or None, timeout=PATIENCE).sha)


def describe_origin(table: HubTable) -> str:
    """Describe for people where a pinned table came from."""
    words = [f"directory {table.path}" if table.is_directory else f"data set {table.path} of the Hugging Face Hub"]
    words += [f"{name} {value}" for name, value in vars(table).items() if value and name != "path"]
    return ", ".join(words)


def read_rows(
    table: HubTable, needed: Sequence[str], ids: Sequence[str], options: Mapping[str, str], unread: set[str]
) -> Iterator[Row]:
    """Yield (place for messages, column -> value) for every row; the arguments are those of `table_files.read_rows`.

    Raises:
        DataError: a missing column or split (the message names those that exist), no rows, or a data set that cannot
            be read.
        RequestError: see `pin_commit`.
    """
    table = pin_commit(table)
    wanted, number = ColumnSelection(tuple(dict.fromkeys(needed)), tuple(ids), tuple(ids), options, unread), 0
    with tempfile.TemporaryDirectory(prefix="llmrec-hub-") as cache, _plain_errors(table):
        for batch in _split(table, _builder(table, cache)).with_format("arrow").iter(_BATCH):
            if not number:
                check_columns(str(table), batch.column_names, wanted)
            pieces = batch.select(list(wanted.columns)).combine_chunks().to_batches()
            yield from batch_rows(str(table), pieces, wanted.ids, number)
            number += len(batch)
    if not number:
        raise DataError(f"{table} holds no rows")


def _builder(table: HubTable, cache: str) -> Any:
    """Return the reader of a data set, after checking that it runs no code of the data set and reads no other files."""
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    path = str(Path(table.path).resolve()) if table.is_directory else table.path
    where: dict[str, Any] = {"revision": None if table.is_directory else table.revision}
    try:
        builder = datasets.load_dataset_builder(path, table.config or None, cache_dir=cache, **where)
    except ValueError as error:
        configs = datasets.get_dataset_config_names(path, **where)
        if table.config in configs:
            raise
        if not table.config and len(configs) < 2:
            raise
        said = f"has no configuration {table.config!r}" if table.config else "has several configurations"
        raise DataError(f"{table} {said}; choose with --config from: {_listed(configs)}") from error
    form = type(builder).__module__.split(".")[2]
    if form not in FORMS:
        raise DataError(f"{table} is read as {form}; a table is one of: {', '.join(FORMS)}")
    inside = f"{path}/" if table.is_directory else f"hf://datasets/{path}@"
    for file in (str(one) for many in (builder.config.data_files or {}).values() for one in many):
        if not file.startswith(inside) or "/../" in file:
            raise DataError(f"{table}: its card names a file outside the data set, {file[:100]!r}; it is not read")
    return builder


def _split(table: HubTable, builder: Any) -> Any:
    splits = builder.as_streaming_dataset()
    name = table.split or ("train" if "train" in splits or len(splits) != 1 else next(iter(splits)))
    if name not in splits:
        raise DataError(f"{table} has no split {name!r}; choose with --split from: {_listed(list(splits))}")
    return splits[name]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


@contextmanager
def _plain_errors(table: HubTable) -> Iterator[None]:
    """Convert any exception of `datasets`, the Hub's client or the network to a one-line `UserError`.

    All exceptions are caught, because none of these libraries documents which ones it raises.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _explained(table, error) from None


def _explained(table: HubTable, error: BaseException) -> UserError:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)

    def is_a(*names: str) -> bool:
        return any(kind.__name__ in names for one in chain for kind in type(one).__mro__)

    path = table.path
    if any("scripts are no longer supported" in str(one) for one in chain):
        why = "llmrec never runs code of a data set; ask its authors for Parquet, CSV or JSON lines"
        return DataError(f"{table} needs its own loading script, and {why}")
    if is_a("GatedRepoError"):
        page = f"https://huggingface.co/datasets/{path}"
        return RequestError(f"{path} is open only to those who were let in: ask for access at {page}, then {_LOG_IN}")
    if is_a("RevisionNotFoundError"):
        return RequestError(f"{path} has no revision {table.revision or 'main'!r} on the Hub")
    if is_a("RepositoryNotFoundError", "DatasetNotFoundError"):
        return RequestError(f"no data set {path!r} on the Hub, or a private one: check the name, or {_LOG_IN}")
    if is_a("EmptyDatasetError", "DataFilesNotFoundError"):
        return DataError(f"{table} holds no files of a table ({', '.join(FORMS)})")
    if is_a("ConnectionError", "OfflineModeIsEnabled", "TransportError", "TimeoutException"):
        return DataError(f"{table}: the Hub does not answer ({one_line(error)}); try again, or give a directory")
    if isinstance(error, hub_errors.HfHubHTTPError):
        return DataError(f"{table}: the Hub says no: {one_line(error)}")
    return DataError(f"{table} cannot be read: {type(error).__name__}: {one_line(error)}")
