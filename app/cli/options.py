"""Options that several commands share, each declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[Path | None, typer.Option(help="Model directory; the shipped model by default.")]
Data = Annotated[str | None, typer.Option(help="Prepared data; the data of the model by default.")]
MATMUL_DTYPES = "float32, bfloat16, or auto for the faster one here."


@dataclass(frozen=True)
class ItemColumns:
    """The meaning of the columns in a table of new items; options override the mapping file."""

    mapping: Annotated[Path | None, typer.Option(help="TOML file that maps the columns.")] = None
    item_id: Annotated[str | None, typer.Option(help="Column with ids (item_id).")] = None
    title: Annotated[str | None, typer.Option(help="Column with titles (title).")] = None
    text: Annotated[str | None, typer.Option(help="Columns with descriptions, a,b.")] = None
    category: Annotated[str | None, typer.Option(help="Columns with categories, a,b or name=column.")] = None
    number: Annotated[str | None, typer.Option(help="Columns with numbers, such as year.")] = None
    date: Annotated[str | None, typer.Option(help="Columns with dates.")] = None
    flag: Annotated[str | None, typer.Option(help="Columns with true or false.")] = None
    separator: Annotated[str | None, typer.Option(help="Separator of several categories in one cell (|).")] = None
    empty: Annotated[
        list[str] | None, typer.Option(help="Text that stands for a missing value in number, date or flag columns.")
    ] = None


def with_item_columns(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter `columns` by the options of `ItemColumns`."""
    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(ItemColumns, eval_str=True).parameters
    kept = [one for name, one in own.parameters.items() if name != "columns"]
    parameters = [*kept, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shared.values())]

    def run(**given: Any) -> None:
        columns = ItemColumns(**{name: given.pop(name) for name in shared})
        command(columns=columns, **given)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    )
    return run
