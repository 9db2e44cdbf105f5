"""The `llmrec` command. Heavy imports wait inside the verbs, so that help and mistakes answer at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmrec.errors import Interrupted, RequestError, UserError

MISUSE = 2

app = typer.Typer(
    name="llmrec",
    help="A conversational recommender that cannot name an item which does not exist.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Prepare and check data.", no_args_is_help=True)
app.add_typer(data, name="data")

Model = Annotated[Path | None, typer.Option(help="Model directory; the shipped model when left out.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command: a mistake of the person's is one line on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    except Interrupted as stopped:
        typer.echo(str(stopped), err=True)
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)


@data.command(epilog="Example: llmrec data prepare --source recbole --path my-files --out my-data")
def prepare(
    source: Annotated[str, typer.Option(help="Form of the files: ml-100k or recbole.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    path: Annotated[Path | None, typer.Option(help="Where the files are; ml-100k is fetched when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Read data files into the one prepared form that all other verbs take."""
    from llmrec import sources

    if path is None and source == "ml-100k":
        from llmrec.fetch import fetch

        path = fetch(source)
    if path is None:
        raise RequestError(f"--path is missing: say where the {source} files are")
    if not path.exists():
        raise RequestError(f"no file or directory {str(path)!r}; --path is where the {source} files are")
    catalog, interactions, report = sources.read(source, path)
    sources.save_data(out, catalog, interactions, report)
    counts, dropped = dict(report.counts), dict(report.dropped)
    _print({"out": str(out), "counts": counts, "dropped": dropped, "notes": list(report.notes)}, as_json)


@data.command(epilog="Example: llmrec data check my-data")
def check(
    directory: Annotated[str, typer.Argument(help="Prepared data, or ml-100k.", metavar="DATA")],
    as_json: Json = False,
) -> None:
    """Show what to look at before training: sizes, history lengths, cold items, ties, gaps."""
    from llmrec import sources
    from llmrec.datasets import open_data

    _print(sources.check(*open_data(directory)), as_json)


@data.command(name="show-traffic", epilog="Example: llmrec data show-traffic --task wish_item -n 2")
def show_traffic(
    task: Annotated[str, typer.Option(help="Name of a training task, as in a recipe's traffic.shares.")],
    n: Annotated[int, typer.Option("-n", help="How many samples.")] = 3,
    directory: Annotated[str, typer.Option("--data", help="Prepared data, or ml-100k.")] = "ml-100k",
    recipe: Annotated[str, typer.Option(help="YAML file, or the name of a shipped recipe.")] = "ml-100k",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    work: Annotated[Path | None, typer.Option(help="Stages of a run, for its own item codes.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a training task gives the model to read, and which tokens of it are trained on."""
    from llmrec.finetune.show import print_shown, show_traffic

    shown = show_traffic(task, n, directory, recipe, seed, work)
    if as_json:
        samples = [one.values() for one in shown.samples]
        _print({"task": shown.task, "provisional": shown.provisional, "samples": samples}, True)
    else:
        print_shown(shown)


@app.command(epilog="Example: llmrec train ml-100k --recipe smoke --out my-model")
def train(
    data: Annotated[str, typer.Argument(help="Prepared data, or ml-100k.", metavar="DATA")],
    recipe: Annotated[
        str, typer.Option(help="YAML file, or a shipped recipe: ml-100k, amazon-5core, gpu-qwen3, smoke.")
    ],
    out: Annotated[Path, typer.Option(help="Model directory to write.")],
    work: Annotated[Path | None, typer.Option(help="Where stages and checkpoints go; beside --out if unset.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from earlier checkpoints of the same run.")] = True,
    tensorboard: Annotated[Path | None, typer.Option(help="Write TensorBoard events to this directory, too.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Check everything and show the plan; train nothing.")] = False,
    gpu: Annotated[str | None, typer.Option(help="Plan for this GPU instead of a table of them.")] = None,
    tflops: Annotated[float | None, typer.Option(help="Plan for a device with this dense peak in TFLOP/s.")] = None,
    vram: Annotated[float | None, typer.Option(help="Its memory in GB.")] = None,
    as_json: Json = False,
) -> None:
    """Train a model: all stages, each skipped when its result is already there. Ctrl-C saves and ends."""
    if not dry_run and (gpu or tflops or vram or as_json):
        raise RequestError("--gpu, --tflops, --vram and --json belong to --dry-run: training runs on this machine")
    if dry_run:
        from llmrec.finetune.gpus import gpu_named
        from llmrec.finetune.plan import dry_run as plan
        from llmrec.finetune.plan_table import print_plan

        laid_out = plan(data, recipe, out, work, gpu_named(gpu, tflops, vram), elsewhere=bool(gpu or tflops))
        if as_json:
            _print(laid_out, True)
        else:
            print_plan(laid_out)
        return
    from llmrec.finetune.train import run

    run(data, recipe, out, resume=resume, work=work, tensorboard=tensorboard)


@app.command(epilog='Example: llmrec recommend --items "Toy Story (1995)|Aladdin" --message "no sequels" -k 5')
def recommend(
    user: Annotated[str | None, typer.Option(help="Id of a user of the data.")] = None,
    items: Annotated[str | None, typer.Option(help="Titles or ids that were liked, with | between them.")] = None,
    message: Annotated[str, typer.Option(help="A wish in words.")] = "",
    k: Annotated[int, typer.Option("-k", help="How many, 1 to 100.")] = 10,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Recommend for a user of the data, for items that were liked, for a wish in words, or for all of these."""
    if not (user or items or message):
        raise RequestError("nothing to go by: give --user, --items or --message")
    if not 1 <= k <= 100:
        raise RequestError(f"-k is {k}; it must lie between 1 and 100")
    from llmrec.app.api import find_item, item_rows, request_for
    from llmrec.recommend import Recommender

    recommender = Recommender.from_pretrained(model)
    catalog = recommender.catalog
    named = [find_item(catalog, one) for one in (items or "").split("|") if one.strip()]
    known = recommender.history_of(user) if user else ()
    request, notices = request_for(catalog, (*known, *named), message, k)
    for notice in notices:
        typer.echo(f"note: {notice}", err=True)
    rows = item_rows(catalog, recommender.recommend(request))
    if as_json:
        _print({"items": rows}, True)
    else:
        _table(rows, ("rank", "title", "reason"))


@app.command(name="eval", epilog="Example: llmrec eval --suite accuracy --limit 100 --out results")
def evaluate(
    out: Annotated[Path, typer.Option(help="Directory for the result file.")],
    suite: Annotated[
        str, typer.Option(help="accuracy, stability, retention, grounding; report from what is there; or all in order.")
    ] = "accuracy",
    model: Model = None,
    data: Annotated[str | None, typer.Option(help="Prepared data; the model's own when left out.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure this many users only.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Files of the language benchmarks, for retention.")] = None,
    split: Annotated[str, typer.Option(help="How accuracy holds items out: loo (last of each user) or time.")] = "loo",
) -> None:
    """Measure a model beside tuned baselines; writes a JSON file a suite and prints its table."""
    from llmrec.eval.run import run

    run(suite, model, data, out, limit, data_dir, split)


@app.command(epilog="Example: llmrec bench --quick --out results")
def bench(
    out: Annotated[Path, typer.Option(help="Directory for the result file.")] = Path("results"),
    quick: Annotated[bool, typer.Option(help="Fewer repeats: under a minute.")] = False,
    of_training: Annotated[bool, typer.Option("--train", help="Measure training instead of decoding.")] = False,
    seed: Annotated[int, typer.Option(help="Of data and order.")] = 0,
    model: Model = None,
) -> None:
    """Measure decoding, or training, beside the usual way on the same model, in one run."""
    if not of_training:
        from llmrec.eval.bench_decode import run

        run(model=model, out=out, quick=quick, seed=seed)
        return
    if model is not None:
        raise RequestError("--model belongs to decoding; --train starts from the base model of a recipe")
    from llmrec.eval.write import publish
    from llmrec.finetune import bench as training

    found = training.run(quick=quick, seed=seed)
    command = f"llmrec bench --train{' --quick' if quick else ''} --seed {seed} --out {out}"
    path = out / "bench-train.json"
    publish(path, "ml-100k", found.protocol, found.rows, found.targets, seed, command, found.seconds, found.steps)


@app.command(epilog="Example: llmrec chat --port 8080")
def chat(
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to bind [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port [default: 7860].")] = None,
) -> None:
    """Serve the chat page. Any host but this machine needs a password in LLMREC_PASSWORD."""
    from llmrec.app.settings import listen, load

    settings = load(host=host, port=port, model=model)
    listener = listen(settings)  # before the model loads: a taken port should be known at once
    from llmrec.app.server import serve
    from llmrec.recommend import Recommender

    typer.echo("loading the model", err=True)
    recommender = Recommender.from_pretrained(settings.model)
    typer.echo(f"llmrec is at http://{settings.host}:{settings.port} (Ctrl+C ends it)", err=True)
    serve(recommender, settings, listener)


@app.command(epilog="Example: llmrec doctor")
def doctor(as_json: Json = False) -> None:
    """Check what this machine has and lacks; exit code 1 when something is missing."""
    from llmrec.app.doctor import examine

    findings = examine()
    if as_json:
        _print({"findings": [vars(one) for one in findings]}, True)
    else:
        for one in findings:
            advice = f" -> {one.advice}" if one.advice else ""
            typer.echo(f"{'OK     ' if one.ok else 'MISSING'} {one.name}: {one.found}{advice}")
    if not all(one.ok for one in findings):
        raise typer.Exit(1)


def _fail(message: str) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(MISUSE)


def _print(values: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False, indent=2, default=str))
        return
    for name, value in values.items():
        words = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        words = "; ".join(map(str, words)) if isinstance(words, list) else words
        typer.echo(f"{name.replace('_', ' ')}: {words}")


def _table(rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        # Text, not str: titles must not be read as markup
        table.add_row(*(Text(str(row[name])) for name in names))
    Console().print(table)


if __name__ == "__main__":
    main()
