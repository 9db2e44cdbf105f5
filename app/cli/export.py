"""`llmrec export`, `push` and `card`: export a model, upload it to the Hub, and fill its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrec.app.cli.options import Data, Model
from llmrec.app.cli.printing import Json, echo, print_values
from llmrec.errors import RequestError

Results = Annotated[Path | None, typer.Option(help="Directory with result files for the model card.")]


def export(
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    model: Annotated[
        Path | None, typer.Option(help="Model directory or org/name on the Hub; the shipped model by default.")
    ] = None,
    items: Annotated[
        bool, typer.Option("--items", help="Append the item tokens to the embeddings and the output head.")
    ] = False,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Export merged weights and a vocabulary file for vLLM, llama.cpp or transformers."""
    from llmrec.finetune.export import export_weights

    done = export_weights(_model(model), out, data, items, precision)
    print_values({"out": str(out), **done}, as_json)


def export_traffic(
    out: Annotated[Path, typer.Option(help="Directory to write, or a .jsonl or .parquet file with the tokens alone.")],
    data: Annotated[str, typer.Option(help="Prepared data, or ml-100k.")] = "ml-100k",
    recipe: Annotated[str, typer.Option(help="YAML file, or the name of a shipped recipe.")] = "ml-100k",
    tokens: Annotated[int, typer.Option(help="Approximate number of tokens.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    work: Annotated[
        Path | None, typer.Option(help="Work directory of a training run, to use its semantic IDs.")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the rows that go into the validation split of a directory (0.05).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write training examples as a data set for Hugging Face `datasets`: messages, text, input_ids, labels."""
    from llmrec.finetune.data.traffic_table import write_task_table

    print_values(write_task_table(data, recipe, out, tokens, seed, work, validation), as_json)


def push(
    repo: Annotated[str, typer.Argument(help="Repository on the Hugging Face Hub, org/name.", metavar="REPO")],
    model: Model = None,
    with_data: Annotated[bool, typer.Option(help="Also upload the data: titles, user ids and histories.")] = False,
    base: Annotated[
        str | None, typer.Option(help="Hub id of the base model, if it was loaded from a directory.")
    ] = None,
    results: Results = None,
    private: Annotated[bool, typer.Option(help="Create a new repository as private.")] = False,
    message: Annotated[str, typer.Option(help="Commit message.")] = "Upload llmrec model",
) -> None:
    """Upload a model and its filled model card to the Hub. Log in with `hf auth login` first."""
    from llmrec.checkpoint.hub import push_to_hub

    path = _model(model)
    found = _results(path, results)
    echo(push_to_hub(path, repo, with_data=with_data, base=base, results=found, private=private, message=message))


def card(
    model: Model = None,
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="File to write; printed by default.")] = None,
) -> None:
    """Fill the model card from result files: tables with confidence intervals, and metadata for the Hub."""
    from llmrec.checkpoint.card import fill_card, save_card

    path = _model(model)
    text = fill_card((path / "README.md").read_text(encoding="utf-8"), _results(path, results))
    if out is None:
        echo(text)
    else:
        save_card(out, text)


def _model(model: Path | None) -> Path:
    from llmrec.checkpoint import hub
    from llmrec.recommender import SHIPPED

    if model is None and not SHIPPED.is_dir():
        raise RequestError("the shipped model is not beside this installation: give --model")
    return SHIPPED if model is None else hub.resolve_model(model)


def _results(model: Path, results: Path | None) -> list[dict[str, object]]:
    """Return the result files that belong to the data of this model."""
    from llmrec.checkpoint.card import load_results
    from llmrec.checkpoint.pretrained import read_settings

    return [] if results is None else load_results(results, Path(str(read_settings(model)["data"])).name)
