"""Writes training traffic, with its messages, as a directory that `datasets.load_dataset` reads, and reads it back.

A part of a message is text, an item given by its id, or a user vector. Messages that are read back go through
`Renderer` like all others, so text in a file never becomes an item token, whoever wrote the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCardData

from llmrec.data.catalog import Catalog
from llmrec.data.readers.table_files import read_rows
from llmrec.errors import DataError, RequestError
from llmrec.finetune.data.context import Example
from llmrec.finetune.data.tasks import TASKS, TEXT_TASKS
from llmrec.lm.rendering import ROLES, ItemRef, Message, Part, Rendered, Renderer, Text, UserRef
from llmrec.storage.artifacts import JSON, read_manifest, write_artifact

KIND = "traffic"
SPLITS = ("train", "validation")
IGNORED = -100  # the label that transformers' loss ignores
_PART = pa.struct(
    [
        ("kind", pa.string()),
        ("text", pa.string()),
        ("item", pa.string()),
        ("vector", pa.list_(pa.float32())),
        ("loss", pa.bool_()),
    ]
)
_MESSAGE = pa.struct([("role", pa.string()), ("open", pa.bool_()), ("parts", pa.list_(_PART))])
TOKENS = pa.schema(
    [
        ("task", pa.string()),
        ("text", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("users", pa.int32()),
    ]
)
SCHEMA = TOKENS.append(pa.field("messages", pa.list_(_MESSAGE)))
_COLUMNS = """\
| column | type | meaning |
|---|---|---|
| `task` | string | what the row teaches |
| `messages` | list of `role`, `open`, `parts` | the conversation; an `open` message has no end marker. Empty for ordinary text (`replay`) |
| `messages.parts` | list of `kind`, `text`, `item`, `vector`, `loss` | `kind` is `text`, `item` (by its id) or `user` (a vector); `loss`: the part is trained on |
| `text` | string | the row in words, item tokens and user slots by name |
| `input_ids` | list of int32 | the row in tokens; item tokens follow the words, a user slot is one past the last of them |
| `labels` | list of int32 | the token where it is trained on, else -100 |
| `users` | int32 | how many user vectors the row has |
"""  # noqa: E501 (a table of Markdown)


@dataclass(frozen=True)
class Origin:
    """How a sample of traffic was made, for its data set card.

    Attributes:
        data: name of the prepared data.
        licence: licence of that data, as text.
        recipe: name of the recipe.
        base: the base model whose tokens the rows use.
        base_licence: licence of the base model, as text.
        seed: seed of the samples and of the splits.
        notes: what is provisional in the sample.
    """

    data: str
    licence: str
    recipe: str
    base: str
    base_licence: str
    seed: int
    notes: Sequence[str] = ()


def messages_of(example: Example, catalog: Catalog) -> list[dict[str, Any]]:
    """Return a conversation as plain values; an empty list for ordinary text, which consists of tokens only."""
    if isinstance(example, Rendered):
        return []
    return [
        {"role": one.role, "open": one.open, "parts": [_plain(part, catalog) for part in one.parts]} for one in example
    ]


def _plain(part: Part, catalog: Catalog) -> dict[str, Any]:
    empty = {"text": None, "item": None, "vector": None, "loss": False}
    if isinstance(part, Text):
        return {**empty, "kind": "text", "text": part.text, "loss": part.loss}
    if isinstance(part, ItemRef):
        return {**empty, "kind": "item", "item": catalog[part.row].id, "loss": part.loss}
    return {**empty, "kind": "user", "vector": part.vector.tolist()}


def save(out: Path, table: Sequence[Mapping[str, Any]], validation: float, origin: Origin, catalog: Catalog) -> None:
    """Write rows of `SCHEMA` atomically as a directory of two splits with a card.

    Args:
        out: the directory.
        table: rows in random order.
        validation: share of the rows in the validation split.
        origin: how the rows were made.
        catalog: the catalogue of the items in the rows.

    Raises:
        RequestError: the share leaves a split without rows.
        ArtifactError: `out` exists and is not a traffic directory.
    """
    held = round(len(table) * validation)
    if not 0 < held < len(table):
        raise RequestError(f"--validation {validation} of {len(table)} rows leaves a split empty; take more tokens")
    parts = {"train": table[held:], "validation": table[:held]}
    meta: dict[str, JSON] = {"seed": origin.seed, "recipe": origin.recipe, "base": origin.base}
    with write_artifact(out, KIND, {"catalog": catalog.fingerprint}, meta) as directory:
        (directory / "data").mkdir()
        for name, some in parts.items():
            pq.write_table(pa.Table.from_pylist(list(some), SCHEMA), directory / _file(name))
        (directory / "README.md").write_text(_card(parts, origin), encoding="utf-8")


def _file(split: str) -> str:
    return f"data/{split}-00000-of-00001.parquet"


def _card(parts: Mapping[str, Sequence[Mapping[str, Any]]], origin: Origin) -> str:
    files = [{"split": name, "path": f"data/{name}-*"} for name in parts]
    header = DatasetCardData(
        license="other",
        license_name="of-the-data",
        pretty_name=f"llmrec traffic of {origin.data}",
        tags=["llmrec", "recommendation"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    counts = {name: Counter(row["task"] for row in some) for name, some in parts.items()}
    tasks = sorted(set().union(*counts.values()))
    lines = [f"| `{task}` | {' | '.join(str(counts[name][task]) for name in parts)} |" for task in tasks]
    totals = " | ".join(str(counts[name].total()) for name in parts)
    notes = "".join(f"- {note}\n" for note in origin.notes)
    return f"""---
{header.to_yaml()}
---
# Training traffic of {origin.data}

What llmrec trains a language model on: histories, wishes and conversations about items, made by program from the train
part of `{origin.data}`.

- made by: `llmrec data export-traffic`, recipe `{origin.recipe}`, seed {origin.seed}
- base model: `{origin.base}`, whose tokens `input_ids` are
- splits: rows at random, by the same seed; users and items are in both
{notes}
## Tasks

| task | {" | ".join(parts)} |
|---|{"---|" * len(parts)}
{chr(10).join(lines)}
| all | {totals} |

## Columns

{_COLUMNS}
## Licence

The rows hold ids, titles and histories of the data, so its licence holds: {origin.licence}.
Rows of `replay` are text that the base model wrote; its licence: {origin.base_licence}.
"""


def read(path: Path, split: str, catalog: Catalog, renderer: Renderer) -> Iterator[tuple[str, Example]]:
    """Yield (task, example) for every row of a split, with the example as the task's generator made it.

    Examples are rebuilt from the messages; `input_ids` is used for ordinary text only.

    Args:
        path: directory written by `save`.
        split: train or validation.
        catalog: catalogue in which items are looked up by id.
        renderer: renderer of the base model; its vocabulary and user vector width must match the rows.

    Raises:
        RequestError: there is no such split.
        ArtifactError: the directory was not written by `save`, or is damaged.
        DataError: no task could have made a row; the message names the row and the value.
    """
    if split not in SPLITS:
        raise RequestError(f"no split {split!r}; there are: {', '.join(SPLITS)}")
    read_manifest(path, KIND)
    for where, row in read_rows(path / _file(split), ["task", "messages", "input_ids", "labels"]):
        task, messages = row["task"], row["messages"]
        if task not in TASKS:
            raise DataError(f"{where}: no task {str(task)[:60]!r}; there are: {', '.join(TASKS)}")
        if messages:
            yield task, [_message(one, catalog, renderer.user_dim, where) for one in messages]
        elif task in TEXT_TASKS:
            yield task, _ordinary(row["input_ids"], row["labels"], renderer, where)
        else:
            raise DataError(f"{where}: no messages; only rows of {', '.join(TEXT_TASKS)} are tokens alone")


def _message(value: Any, catalog: Catalog, width: int, where: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        raise DataError(f"{where}: {str(value)[:60]!r} is no message with a role out of {', '.join(ROLES)}")
    parts = tuple(_part(one, catalog, width, where) for one in value.get("parts") or ())
    return Message(value["role"], parts, open=value.get("open") is True)


def _part(value: Any, catalog: Catalog, width: int, where: str) -> Part:
    fields = value if isinstance(value, dict) else {}
    text, item, vector = (fields.get(name) for name in ("text", "item", "vector"))
    loss = fields.get("loss") is True
    if fields.get("kind") == "text" and isinstance(text, str):
        return Text(text, loss)
    if fields.get("kind") == "item" and isinstance(item, str):
        row = catalog.row_or_none(item)
        if row is None:
            raise DataError(f"{where}: item {item[:60]!r} is not in the catalogue of {len(catalog)} {catalog.domain}")
        return ItemRef(row, loss)
    if fields.get("kind") == "user" and isinstance(vector, list):
        array = np.asarray([np.nan if one is None else one for one in vector], np.float32)
        if len(array) == width and np.isfinite(array).all():
            return UserRef(array)
    kinds = f"text, an item by its id or a user's {width} finite numbers"
    raise DataError(f"{where}: {str(value)[:60]!r} is no part of a message: {kinds}")


def _ordinary(ids: Any, labels: Any, renderer: Renderer, where: str) -> Rendered:
    """Validate and return a row of ordinary text: word tokens only, each trained on or ignored."""
    words = renderer.vocab.base
    if not (isinstance(ids, list) and isinstance(labels, list) and len(ids) == len(labels) > 0):
        raise DataError(f"{where}: input_ids and labels should be two lists of one length")
    for one in ids:
        if one is None or not 0 <= one < words:
            raise DataError(f"{where}: token {one} is no word; ordinary text has ids from 0 to {words - 1}")
    found = np.asarray(ids, np.int64)
    marks = np.asarray([IGNORED if one is None else one for one in labels], np.int64)
    loss = marks != IGNORED
    if (marks[loss] != found[loss]).any():
        raise DataError(f"{where}: a label is neither {IGNORED} nor the token in its place")
    return Rendered(found, loss, np.zeros((0, renderer.user_dim), np.float32))
