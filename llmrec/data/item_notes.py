"""Item notes: facts about items beyond the catalogue's own, validated by a schema and merged into a catalogue.

A notes file has the JSON Lines format. Its first line names the schema of the notes and who wrote them. Every other
line is a note on one item: its `id` and the fields that are known for certain. Sentences become item text, and all
other fields become typed attributes. So filters, search, semantic IDs and training read notes like any other catalogue
data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from llmrec.data.catalog import VALUE_LIMIT, Catalog, Item, clean_text
from llmrec.data.filters import Value
from llmrec.errors import DataError

_LINE_LIMIT = 20_000  # characters; the longest note on MovieLens-100k has 1,100
_SHOWN = 60
FieldType = Literal["sentence", "names", "choices", "number", "level", "onward"]


class NoteField(BaseModel):
    """One field of a note.

    Attributes:
        type: the type of the field; `llmrec/data/notes/film.yaml` explains the types.
        about: what the field means, for writers of notes.
        attribute: name of the catalogue attribute; the field's own name when empty.
        values: allowed values of `choices`, `level` and `onward`.
        most: largest number of values of `names` and `choices`.
        words: largest number of words of a `sentence`.
        least: smallest allowed `number`.
        greatest: largest allowed `number`.
        safety: whether an item without the field fails a limit on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: FieldType
    about: str
    attribute: str = ""
    values: tuple[str, ...] = ()
    most: int = 1
    words: int = 40
    least: int = 0
    greatest: int = 1_000_000
    safety: bool = False

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> NoteField:
        if (self.type in ("choices", "level", "onward")) != bool(self.values):
            raise ValueError(f"type {self.type} {'needs' if not self.values else 'has no'} values")
        if self.most < 1 or self.words < 1 or self.least > self.greatest:
            raise ValueError("most and words are at least 1, and least is at most greatest")
        return self


class NoteSchema(BaseModel):
    """The fields that notes on one kind of item may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    domain: str
    fields: Mapping[str, NoteField]

    @model_validator(mode="after")
    def _names_are_free(self) -> NoteSchema:
        names = [field.attribute or name for name, field in self.fields.items() if field.type != "sentence"]
        if "id" in self.fields or len(set(names)) < len(names):
            raise ValueError("a field may not be called id, and no two fields may be one attribute")
        return self

    @property
    def attributes(self) -> dict[str, NoteField]:
        """Catalogue attribute -> its field; sentences are text and have none."""
        return {field.attribute or name: field for name, field in self.fields.items() if field.type != "sentence"}

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of one note without its id, for servers that generate text constrained to a schema."""
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: _json_schema(field) for name, field in self.fields.items()},
        }


@dataclass(frozen=True)
class ItemNotes:
    """Validated notes on the items of one catalogue.

    Attributes:
        schema: the schema of the notes.
        by: who or what wrote them, as text for people.
        notes: item id -> field -> value, without fields that are unknown.
    """

    schema: NoteSchema
    by: str
    notes: Mapping[str, Mapping[str, Any]]


@cache
def load_schema(name: str) -> NoteSchema:
    """Load a schema by the name of a shipped one (`film`) or by the path of a YAML file.

    Raises:
        DataError: the schema does not exist or is not valid.
    """
    shipped = files("llmrec.data.notes") / f"{name}.yaml"
    source = shipped if name.isidentifier() and shipped.is_file() else Path(name)
    try:
        raw = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = str(error).splitlines()[0][:200]
        raise DataError(f"no schema of notes {name!r}: give `film` or a YAML file ({why})") from None
    try:
        return NoteSchema.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"schema of notes {name}: {place}: {first['msg']}") from None


def read_notes(path: Path, schema: NoteSchema | None = None) -> ItemNotes:
    """Read a notes file.

    Args:
        path: a file in the JSON Lines format whose first line has `schema` and `by`.
        schema: the schema of the notes; if None, the one that the first line names.

    Raises:
        DataError: the file cannot be read or is not valid; the message names file, line, field and value.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = enumerate(iter(lambda: file.readline(_LINE_LIMIT + 1), ""), 1)
            return _read(lines, path, schema)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text") from None


def _read(lines: Iterator[tuple[int, str]], path: Path, schema: NoteSchema | None) -> ItemNotes:
    head = _object(next(lines, (1, ""))[1], f"{path}, line 1")
    if not isinstance(head.get("schema"), str) or not isinstance(head.get("by"), str) or not head["by"].strip():
        raise DataError(f'{path}, line 1: must say {{"schema": ..., "by": ...}}: what notes say and who wrote them')
    schema = schema or load_schema(head["schema"])
    notes: dict[str, Mapping[str, Any]] = {}
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        found = _object(line, where)
        id = found.pop("id", None)
        if not isinstance(id, str) or not id:
            raise DataError(f"{where}: a note needs the id of its item, as text")
        if id in notes:
            raise DataError(f"{where}: item {id[:_SHOWN]!r} has a note already")
        notes[id] = check_note(found, schema, f"{where}, item {id[:_SHOWN]!r}")
    return ItemNotes(schema, clean_text(head["by"], VALUE_LIMIT), notes)


def _object(line: str, where: str) -> dict[str, Any]:
    if len(line) > _LINE_LIMIT:
        raise DataError(f"{where}: longer than {_LINE_LIMIT:,} characters")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not a JSON object: {line.strip()[:_SHOWN]!r}") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: not a JSON object: {line.strip()[:_SHOWN]!r}")
    return found


def check_note(note: Mapping[str, Any], schema: NoteSchema, where: str) -> Mapping[str, Any]:
    """Validate one note and return its non-empty fields, cleaned.

    Args:
        note: field -> value, from an untrusted file or server.
        schema: the schema of the note.
        where: the place that every error message begins with.

    Raises:
        DataError: an unknown field, or a value that the schema does not allow.
    """
    checked: dict[str, Any] = {}
    for name, value in note.items():
        field = schema.fields.get(name)
        if field is None:
            known = ", ".join(schema.fields)
            raise DataError(f"{where}: no field {str(name)[:_SHOWN]!r} in this schema; it has: {known}")
        if value is None or value == "" or value == []:
            continue
        checked[name] = _CHECKS[field.type](value, field, f"{where}: {name}")
    return checked


def _sentence(value: Any, field: NoteField, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where} is {str(value)[:_SHOWN]!r}; use a sentence")
    text = clean_text(value, 50 * field.words)
    if len(text.split()) > field.words:
        raise DataError(f"{where} has {len(text.split())} words; at most {field.words}")
    return text


def _names(value: Any, field: NoteField, where: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) and one.strip() for one in values):
        raise DataError(f"{where} is {str(value)[:_SHOWN]!r}; use a list of names")
    if len(values) > field.most:
        raise DataError(f"{where} has {len(values)} values; at most {field.most}")
    long = next((one for one in values if len(one) > VALUE_LIMIT), None)
    if long is not None:
        raise DataError(f"{where} holds a name of {len(long)} characters; at most {VALUE_LIMIT}")
    return tuple(dict.fromkeys(clean for one in values if (clean := clean_text(one, VALUE_LIMIT))))


def _choices(value: Any, field: NoteField, where: str) -> tuple[str, ...]:
    chosen = _names(value, field, where)
    for one in chosen:
        if one not in field.values:
            raise DataError(f"{where} {one[:_SHOWN]!r} is not in its list; {_nearest(one, field.values)}")
    return chosen


def _number(value: Any, field: NoteField, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not field.least <= value <= field.greatest:
        shown = str(value)[:_SHOWN]
        raise DataError(f"{where} is {shown!r}; use a whole number from {field.least} to {field.greatest}")
    return value


def _level(value: Any, field: NoteField, where: str) -> int:
    return _number(value, field.model_copy(update={"least": 0, "greatest": len(field.values) - 1}), where)


def _onward(value: Any, field: NoteField, where: str) -> str:
    if value not in field.values:
        raise DataError(f"{where} is {str(value)[:_SHOWN]!r}; use one of: {', '.join(field.values)}")
    return str(value)


_CHECKS = {
    "sentence": _sentence,
    "names": _names,
    "choices": _choices,
    "number": _number,
    "level": _level,
    "onward": _onward,
}


def _nearest(value: str, values: Sequence[str]) -> str:
    from rapidfuzz import fuzz, process

    near = [match[0] for match in process.extract(value, values, scorer=fuzz.ratio, limit=3)]
    return f"the closest are: {', '.join(near)}"


def attributes_of(note: Mapping[str, Any], schema: NoteSchema) -> dict[str, Value]:
    """Return the catalogue attributes that one validated note sets."""
    found: dict[str, Value] = {}
    for name, value in note.items():
        field = schema.fields[name]
        if field.type == "onward":
            found[field.attribute or name] = field.values[field.values.index(value) :]
        elif field.type != "sentence":
            found[field.attribute or name] = value
    return found


def text_of(note: Mapping[str, Any], schema: NoteSchema) -> str:
    """Return the sentences of one validated note, joined."""
    return " ".join(note[name] for name, field in schema.fields.items() if field.type == "sentence" and name in note)


def with_notes(catalog: Catalog, notes: ItemNotes) -> Catalog:
    """Return the catalogue with the notes merged in.

    The catalogue's own text comes before the notes' text, and its own attributes take precedence over theirs.

    Raises:
        DataError: a note on an item that the catalogue does not have.
    """
    known = {item.id for item in catalog.items}
    strange = [id for id in notes.notes if id not in known]
    if strange:
        many = f"{len(strange)} of {len(notes.notes)} notes are"
        raise DataError(f"{many} on items that this catalogue does not have, {strange[0][:_SHOWN]!r} first")
    return Catalog([_noted(item, notes) for item in catalog.items], catalog.domain, notes.by)


def _noted(item: Item, notes: ItemNotes) -> Item:
    note = notes.notes.get(item.id)
    if not note:
        return item
    text = " ".join(part for part in (item.text, text_of(note, notes.schema)) if part)
    return Item(item.id, item.title, text, {**attributes_of(note, notes.schema), **item.attributes})


def _json_schema(field: NoteField) -> dict[str, Any]:
    if field.type == "sentence":
        return {"type": "string", "description": f"{field.about}, at most {field.words} words"}
    if field.type == "onward":
        return {"enum": list(field.values), "description": field.about}
    if field.type in ("number", "level"):
        low, high = (0, len(field.values) - 1) if field.type == "level" else (field.least, field.greatest)
        words = ", ".join(f"{place} {word}" for place, word in enumerate(field.values))
        about = f"{field.about}: {words}" if words else field.about
        return {"type": "integer", "minimum": low, "maximum": high, "description": about}
    one: dict[str, Any] = {"enum": list(field.values)} if field.type == "choices" else {"type": "string"}
    return {"type": "array", "items": one, "maxItems": field.most, "description": field.about}
