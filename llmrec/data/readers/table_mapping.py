"""Column mapping of a user's own tables, from command-line options or a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    field_validator,
    model_validator,
)

from llmrec.data.readers.hub_tables import HubTable, check_table, parse_reference
from llmrec.errors import DataError, RequestError

EVENT_LIMIT = 60  # characters of an event type that are compared
_NAMES = "category", "number", "date", "flag"
_RESERVED = ("id", "title", "text")
_RIGHT = {  # prefix of a pydantic error type -> what would be valid
    "string": "text in quotation marks",
    "float": "a number",
    "tuple": "a list of columns",
    "dict": "a table, name = value",
    "model": "a table of keys",
}


def _in_a_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _folded(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.strip().casefold() for word in words)


def _table(value: Any) -> Any:
    if not isinstance(value, str | HubTable):
        raise ValueError(f"{value!r:.60} should be {_RIGHT['string']}")
    return parse_reference(value) if isinstance(value, str) and value.startswith("hf:") else value


# a path, or a Hub table given as `hf:OWNER/NAME[:CONFIG][@SPLIT]`
_Table = Annotated[str | InstanceOf[HubTable], BeforeValidator(_table)]
_Words = Annotated[tuple[str, ...], BeforeValidator(_in_a_list), AfterValidator(_folded)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ItemColumns(_Strict):
    """Columns of the item table.

    Attributes:
        file: the table: a path (relative to the TOML file if there is one), or `hf:OWNER/NAME[:CONFIG][@SPLIT]`.
        id: column of unique ids.
        title: column of titles; an item without a title is called by its id.
        text: columns of descriptions, which are joined.
        category: attribute -> column of words: one word, a list, or words separated by `separator`.
        number: attribute -> column of numbers.
        date: attribute -> column of days; the year becomes an attribute of its own.
        flag: attribute -> column of true and false.
        separator: separates the words of a category in a text cell; "" for none.
        empty: words that mean "no value" in a column of numbers, days or flags, regardless of case.
    """

    file: _Table = ""
    id: str = "item_id"
    title: str = "title"
    text: tuple[str, ...] = ()
    category: dict[str, str] = Field(default_factory=dict)
    number: dict[str, str] = Field(default_factory=dict)
    date: dict[str, str] = Field(default_factory=dict)
    flag: dict[str, str] = Field(default_factory=dict)
    separator: str = "|"
    empty: _Words = ()

    @field_validator("text", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator(*_NAMES, mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if not isinstance(value, str | list | tuple | dict):
            raise DataError(f"{value!r:.60} should be columns, or a table of name = column")
        return value if isinstance(value, dict) else parse_column_names(_listed(value))

    @model_validator(mode="after")
    def _distinct(self) -> ItemColumns:
        names = [name for kind in _NAMES for name in getattr(self, kind)]
        names += [f"{name}_year" for name in self.date]
        for name in names:
            if names.count(name) > 1 or name in _RESERVED:
                raise ValueError(f"attribute {name!r} is named twice or is a word of its own; rename one: new=column")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        named = (column for kind in _NAMES for column in getattr(self, kind).values())
        return tuple(dict.fromkeys((self.id, self.title, *self.text, *named)))

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns of ids."""
        return (self.id,)

    @property
    def options(self) -> dict[str, str]:
        """Column -> command-line option that names it."""
        named = {column: f"--{kind}" for kind in _NAMES for column in getattr(self, kind).values()}
        return named | dict.fromkeys(self.text, "--text") | {self.title: "--title", self.id: "--item-id"}


class InteractionColumns(_Strict):
    """Columns of the interaction table.

    Attributes:
        file: the table: a path (relative to the TOML file if there is one), or `hf:OWNER/NAME[:CONFIG][@SPLIT]`.
        user: column of user ids.
        item: column of item ids, or of lists of item ids in chronological order.
        time: column of times; "" for none, and the order of the rows is then used as time.
        value: column of ratings; "" for none, and every value is then 1. Ratings are kept with the data to tell liked
            from disliked items where needed; training does not read them.
        event: column of event types (view, like, buy); "" for none.
        empty: words that mean "no value" in the column of ratings, regardless of case.
    """

    file: _Table = ""
    user: str = "user_id"
    item: str = "item_id"
    time: str = ""
    value: str = ""
    event: str = ""
    empty: _Words = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return tuple(dict.fromkeys(one for one in (self.user, self.item, self.time, self.value, self.event) if one))

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns of ids."""
        return (self.user, self.item)

    @property
    def options(self) -> dict[str, str]:
        """Column -> command-line option that names it."""
        return {getattr(self, name): f"--{name}" for name in ("event", "value", "time", "item", "user")}


class TableMapping(_Strict):
    """Column mapping of both tables.

    Attributes:
        domain: a plural noun for the items.
        items: columns of the item table.
        interactions: columns of the interaction table.
        events: event type -> weight of its interactions. Weight 0 leaves them out. Any other weight is multiplied into
            the value, which is kept with the data but not used in training. If empty, every type has weight 1.
    """

    domain: str = "items"
    items: ItemColumns = ItemColumns()
    interactions: InteractionColumns = InteractionColumns()
    events: dict[str, float] = Field(default_factory=dict)

    @field_validator("events")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if not 0 <= weight <= 1e6:
                raise ValueError(f"event {name!r} weighs {weight}; weights lie between 0 and 1,000,000")
        return {" ".join(name.casefold().split())[:EVENT_LIMIT]: weight for name, weight in value.items()}

    @model_validator(mode="after")
    def _used(self) -> TableMapping:
        if self.events and not self.interactions.event:
            raise ValueError("events have weights, but no column says what an event is: give interactions.event")
        return self

    @property
    def parts(self) -> dict[str, ItemColumns | InteractionColumns]:
        """The columns of both tables, by the keys "items" and "interactions"."""
        return {"items": self.items, "interactions": self.interactions}

    def with_tables(self, tables: Mapping[str, str | HubTable]) -> TableMapping:
        """Return the mapping with some tables replaced; `tables` has the keys of `parts`."""
        return self.model_copy(
            update={name: self.parts[name].model_copy(update={"file": table}) for name, table in tables.items()}
        )


def load_mapping(path: Path | None, flags: Mapping[str, Any]) -> TableMapping:
    """Read a mapping from a TOML file, from flags, or from both; flags take precedence.

    Args:
        path: a TOML file with the tables `items`, `interactions` and `events`, or None.
        flags: the same as nested dictionaries; None and empty values count as not given.

    Raises:
        DataError: the file is not TOML, a key is unknown (the message names valid ones), or a value has the wrong type.
    """
    given = _read(path) if path is not None else {}
    for name, value in flags.items():
        if isinstance(value, Mapping):
            inner = {key: one for key, one in value.items() if one not in (None, "", ())}
            given[name] = {**given.get(name, {}), **inner} if isinstance(given.get(name, {}), dict) else given[name]
        elif value not in (None, ""):
            given[name] = value
    try:
        return TableMapping.model_validate(given)
    except ValidationError as error:
        raise DataError(f"{path or 'column mapping'}: {_first(error)}") from None


def with_default_table(mapping: TableMapping, table: HubTable | None) -> TableMapping:
    """Return the mapping with a default Hub table for every part that names no file of its own.

    Raises:
        RequestError: a part names no file, and there is no default table.
    """
    if table is None:
        if mapping.items.file and mapping.interactions.file:
            return mapping
        raise RequestError("--path is missing: say which data set, OWNER/NAME on the Hub, or a directory")
    return mapping.with_tables({name: part.file or check_table(table) for name, part in mapping.parts.items()})


def parse_column_names(words: Sequence[str]) -> dict[str, str]:
    """Parse attribute definitions to attribute -> column.

    `brand` is the attribute brand from the column brand; `genre=genres` is the attribute genre from the column genres.

    Raises:
        DataError: a word of neither form, or an attribute that is named twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, mark, column = (one.strip() for one in word.partition("=")) if isinstance(word, str) else ("", "", "")
        if not name or (mark and not column):
            raise DataError(f"{word!r} should be a column, or name=column")
        if name in found:
            raise DataError(f"attribute {name!r} is named twice: {found[name]}, {column or name}; rename one")
        found[name] = column or name
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not TOML: {' '.join(str(error).split())}") from None
    for part in ("items", "interactions"):
        file = found.get(part, {}).get("file", "") if isinstance(found.get(part, {}), dict) else ""
        if isinstance(file, str) and file and not file.startswith("hf:"):
            found[part]["file"] = str(path.parent / file)
    return found


def _listed(value: Any) -> Any:
    return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value


def _first(error: ValidationError) -> str:
    """Describe the first problem in one line, preferring unknown keys, for which the valid keys are listed."""
    problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{where + ': ' if where else ''}{_words(problem)}"
    model: Any = TableMapping
    for part in problem["loc"][:-1]:
        model = model.model_fields[str(part)].annotation
    return f"unknown key {where!r}; valid here: {', '.join(model.model_fields)}"


def _words(problem: Any) -> str:
    """Describe a problem: the message of a validator of this module, else the value and what it should be."""
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    right = next((words for kind, words in _RIGHT.items() if problem["type"].startswith(kind)), problem["msg"])
    return f"{problem['input']!r:.60} should be {right}"
