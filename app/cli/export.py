"""`llmrec export`, `push` and `card`: a model for other servers, for the Hub, and in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrec.app.cli.options import Data, Model
from llmrec.app.cli.printing import Json, echo, print_values
from llmrec.errors import RequestError

Results = Annotated[Path | None, typer.Option(help="Directory of result files, for the card.")]


def export(
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    model: Annotated[Path | None, typer.Option(help="Model directory or org/name; the shipped model if unset.")] = None,
    items: Annotated[bool, typer.Option("--items", help="Append item tokens to the word table and the head.")] = False,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write plain merged weights with a vocabulary file, for vLLM, llama.cpp or transformers."""
    from llmrec.finetune.export import export_weights

    done = export_weights(_model(model), out, data, items, precision)
    print_values({"out": str(out), **done}, as_json)


def export_traffic(
    out: Annotated[Path, typer.Option(help="Directory to write, or a .jsonl or .parquet file of tokens alone.")],
    data: Annotated[str, typer.Option(help="Prepared data, or ml-100k.")] = "ml-100k",
    recipe: Annotated[str, typer.Option(help="YAML file, or the name of a shipped recipe.")] = "ml-100k",
    tokens: Annotated[int, typer.Option(help="About how many tokens.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    work: Annotated[Path | None, typer.Option(help="Stages of a run, for its own item codes.")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of a directory's rows that are its split validation (0.05).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write training traffic as a data set that Hugging Face `datasets` reads: messages, text, input_ids, labels."""
    from llmrec.finetune.data.traffic_table import write_task_table

    print_values(write_task_table(data, recipe, out, tokens, seed, work, validation), as_json)


def push(
    repo: Annotated[str, typer.Argument(help="org/name on the Hugging Face Hub.", metavar="REPO")],
    model: Model = None,
    with_data: Annotated[bool, typer.Option(help="Put the data beside it: titles, user ids, histories.")] = False,
    base: Annotated[str | None, typer.Option(help="Hub id of the base model, when it was a directory here.")] = None,
    results: Results = None,
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Upload llmrec model",
) -> None:
    """Upload a model to the Hub, its card filled from results. Log in with `hf auth login` before."""
    from llmrec.checkpoint.hub import push_to_hub

    path = _model(model)
    found = _results(path, results)
    echo(push_to_hub(path, repo, with_data=with_data, base=base, results=found, private=private, message=message))


def card(
    model: Model = None,
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="File to write; printed when left out.")] = None,
) -> None:
    """Fill a model card from result files: tables with intervals, and the Hub's metadata."""
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
    """The result files about the data of this model."""
    from llmrec.checkpoint.card import load_results
    from llmrec.checkpoint.pretrained import read_settings

    return [] if results is None else load_results(results, Path(str(read_settings(model)["data"])).name)
