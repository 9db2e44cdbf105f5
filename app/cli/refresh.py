"""`llmrec refresh` and `llmrec items remove`: keep a model up to date without retraining the language model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llmrec.app.cli.options import Data
from llmrec.app.cli.printing import Json, echo, print_values
from llmrec.errors import RequestError

items_app = typer.Typer(help="Add items to a model, remove them, or measure drift.", no_args_is_help=True)

Model = Annotated[Path, typer.Option(help="Model directory.")]


def refresh(
    model: Model,
    data: Annotated[str, typer.Option(help="Prepared data with the new interactions.")],
    out: Annotated[
        Path, typer.Option(help="Directory to write; if it is the model directory, it is replaced atomically.")
    ],
    epochs: Annotated[
        int, typer.Option(help="Most epochs of the encoder over the train part; 0 keeps the encoder.")
    ] = 4,
    rate: Annotated[float, typer.Option(help="Learning rate, as a share of the rate in the recipe.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Seed of the order and of dropout.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit encoder, neighbours and prior to new interactions, for a nightly update. The language model is kept."""
    from llmrec.finetune.refresh import LEAST_COSINE, refresh_model
    from llmrec.progress import Screen

    with Screen() as say:
        done = refresh_model(model, data, out, epochs, rate, seed, say)
    print_values({"out": str(out), **asdict(done)}, as_json)
    if done.rebuild:
        words = f"user vectors moved to a mean cosine of {done.user_cosine:.2f}, below {LEAST_COSINE}"
        echo(f"note: {words}: run llmrec train, so that the language model reads them again", err=True)


@items_app.command(
    epilog="Example: llmrec items remove --model my-model --ids 17,42 --out less --out-data my-data-less"
)
def remove(
    model: Model,
    out: Annotated[Path, typer.Option(help="Model directory to write.")],
    out_data: Annotated[Path, typer.Option(help="Prepared data to write; the new model refers to it.")],
    ids: Annotated[str, typer.Option(help="Item ids, separated by commas.")] = "",
    file: Annotated[Path | None, typer.Option(help="Text file with one id per line.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Remove items from catalogue, log and model. All other items keep their semantic IDs."""
    from llmrec.checkpoint.pretrained import read_settings
    from llmrec.data.dataset import dataset_directory, load_data
    from llmrec.data.readers.common import read_lines
    from llmrec.lifecycle.remove_items import remove_items_from_model

    named = [one.strip() for one in ids.split(",") if one.strip()]
    named += [text.strip() for _, text in (read_lines(file) if file else ()) if text.strip()]
    if not named:
        raise RequestError("nothing to remove: give --ids or --file")
    if out_data.resolve() == out.resolve():
        raise RequestError(f"--out and --out-data are both {str(out)!r}; a model and its data are two directories")
    catalog, interactions, report = load_data(
        dataset_directory(data if data is not None else str(read_settings(model)["data"]))
    )
    done = remove_items_from_model(model, catalog, interactions, named, out, out_data, report.notes)
    print_values({"out": str(out), **done}, as_json)
