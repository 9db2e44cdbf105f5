"""The `llmrec` command line; heavy imports stay inside the commands, so that help and errors appear at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from llmrec.app.cli.data import data_app
from llmrec.app.cli.enrich import annotate, enrich
from llmrec.app.cli.export import card, export, export_traffic, push
from llmrec.app.cli.feedback import feedback_app
from llmrec.app.cli.items import add, drift
from llmrec.app.cli.options import MATMUL_DTYPES, Data, Model
from llmrec.app.cli.printing import Json, echo, print_table, print_values, replace_unknown_characters
from llmrec.app.cli.rank import rank
from llmrec.app.cli.recipe import Changes, recipe_app
from llmrec.app.cli.refresh import items_app, refresh
from llmrec.errors import Interrupted, RequestError, UserError

MISUSE = 2

app = typer.Typer(
    name="llmrec",
    help="A conversational recommender that can only name items from its catalogue.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.command(epilog="Example: llmrec rank --input requests.jsonl --output ranked.parquet")(rank)
app.add_typer(items_app, name="items")
app.add_typer(recipe_app, name="recipe")
items_app.command(epilog="Example: llmrec items enrich --data my-data --out notes.jsonl --dry-run")(enrich)
items_app.command(epilog="Example: llmrec items annotate --data my-data --notes notes.jsonl --out noted-data")(annotate)
items_app.command(epilog="Example: llmrec items drift --model my-model --items new.csv --category genre")(drift)
items_app.command(epilog="Example: llmrec items add --items new.csv --category genre --number year --out my-model")(add)
app.command(epilog="Example: llmrec refresh --model my-model --data new-data --out my-model")(refresh)
app.add_typer(feedback_app, name="feedback")
data_app.command(epilog="Example: llmrec data export-traffic --tokens 10000 --out traffic.parquet")(export_traffic)
app.command(epilog="Example: llmrec export --items --out plain-model")(export)
app.command(epilog="Example: llmrec push my-org/my-model --model my-model --results results")(push)
app.command(epilog="Example: llmrec card --results eval/results --out README.md")(card)


def main() -> None:
    """Run the command; a user error becomes one line on stderr and exit code 2."""
    replace_unknown_characters()
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    except Interrupted as stopped:
        echo(str(stopped), err=True)
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command(epilog="Example: llmrec train ml-100k --recipe smoke --out my-model")
def train(
    data: Annotated[str, typer.Argument(help="Prepared data, or ml-100k.", metavar="DATA")],
    recipe: Annotated[
        str, typer.Option(help="YAML file, or the name of a shipped recipe: ml-100k, amazon-5core, gpu-qwen3 or smoke.")
    ],
    out: Annotated[Path, typer.Option(help="Model directory to write.")],
    work: Annotated[
        Path | None, typer.Option(help="Directory for stages and checkpoints; next to --out by default.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue from earlier checkpoints of the same run.")] = True,
    tensorboard: Annotated[Path | None, typer.Option(help="Also write TensorBoard events to this directory.")] = None,
    wandb: Annotated[
        str | None, typer.Option(help="Also log to this Weights & Biases project.", metavar="PROJECT")
    ] = None,
    changes: Changes = None,
    on_cpu: Annotated[
        bool, typer.Option("--on-cpu", help="Train on the CPU although the recipe is meant for a GPU; much slower.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Check everything and show the plan without training.")] = False,
    gpu: Annotated[str | None, typer.Option(help="Plan for this GPU instead of showing a table of GPUs.")] = None,
    tflops: Annotated[
        float | None, typer.Option(help="Plan for a device with this dense peak rate, in TFLOP/s.")
    ] = None,
    vram: Annotated[float | None, typer.Option(help="Memory of the device to plan for, in GB.")] = None,
    as_json: Json = False,
) -> None:
    """Train a model. Stages whose result already exists are skipped; Ctrl-C saves a checkpoint and stops."""
    if not dry_run and (gpu or tflops or vram or as_json):
        raise RequestError("--gpu, --tflops, --vram and --json belong to --dry-run: training runs on this machine")
    if dry_run:
        from llmrec.finetune.train.trackers import Trackers

        Trackers(tensorboard, wandb).check()
        from llmrec.finetune.plan.dry_run import plan_training
        from llmrec.finetune.plan.gpus import gpus_to_plan
        from llmrec.finetune.plan.tables import print_plan

        plan = plan_training(
            data,
            recipe,
            out,
            work,
            gpus_to_plan(gpu, tflops, vram),
            elsewhere=bool(gpu or tflops),
            changes=changes or (),
        )
        if as_json:
            print_values(plan, True)
        else:
            print_plan(plan)
        return
    from llmrec.finetune.pipeline import train_model

    train_model(
        data,
        recipe,
        out,
        resume=resume,
        work=work,
        tensorboard=tensorboard,
        wandb=wandb,
        changes=changes or (),
        on_cpu=on_cpu,
    )


@app.command(
    epilog='Example: llmrec recommend --items "Toy Story (1995)" --message "no horror" --where genre=Comedy -k 5'
)
def recommend(
    user: Annotated[str | None, typer.Option(help="Id of a user in the data.")] = None,
    items: Annotated[str | None, typer.Option(help="Titles or ids of liked items, separated by |.")] = None,
    message: Annotated[str, typer.Option(help="A request in plain language, understood as in the chat.")] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(help="Condition: genre=Comedy, tags!=Zombies, 'year>=1990' or 'year<=1999'; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Value to leave out, such as tags=Zombies; repeatable.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of items, 1 to 100.")] = 10,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Recommend items for a user of the data, for liked items, for a request in plain language, or for all of these.

    What the message rules out and the conditions of --where and --exclude always hold.
    """
    if not (user or items or message or where or exclude):
        raise RequestError("nothing to go by: give --user, --items, --message, --where or --exclude")
    if not 1 <= k <= 100:
        raise RequestError(f"-k is {k}; it must lie between 1 and 100")
    from llmrec.app.api.endpoints import find_item, item_rows, recommend_for
    from llmrec.data.filter_expressions import parse_conditions
    from llmrec.data.interactions import History
    from llmrec.recommender import Recommender, Request

    recommender = Recommender.from_pretrained(model)
    catalog = recommender.catalog
    named = [find_item(catalog, one) for one in (items or "").split("|") if one.strip()]
    known = History(recommender.history_of(user) if user else ())
    filters = parse_conditions(where or (), exclude or (), catalog)
    found, notices = recommend_for(recommender, Request(known.extended_with(named), message, filters, k=k))
    for notice in notices:
        echo(f"note: {notice}", err=True)
    rows = item_rows(catalog, found)
    if as_json:
        print_values({"items": rows}, True)
    else:
        print_table(rows, ("rank", "title", "reason"))


@app.command(name="eval", epilog="Example: llmrec eval --suite accuracy --limit 100 --out results")
def evaluate(
    out: Annotated[Path, typer.Option(help="Directory for the result file.")],
    suite: Annotated[
        str,
        typer.Option(
            help="accuracy, stability, retention, grounding, conversation, semantic-ids, reliability, report or all."
        ),
    ] = "accuracy",
    model: Model = None,
    data: Data = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Users to measure and to tune baselines on; with --suite all, a comparable share in each suite.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Directory with the files of the language benchmarks, for retention.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Held-out items of accuracy: loo (the last item of each user) or time.")
    ] = "loo",
    workers: Annotated[
        int, typer.Option(min=1, help="Ranking processes of accuracy; each loads its own model (4 GB).")
    ] = 1,
    matmul_dtype: Annotated[
        str,
        typer.Option("--products", help=f"Number format of matrix products in accuracy, semantic-ids: {MATMUL_DTYPES}"),
    ] = "float32",
    ablations: Annotated[
        int | None,
        typer.Option(min=1, help="Number of users for the ablation rows of accuracy; all by default."),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(help="Second model for semantic-ids, to compare both on validation items."),
    ] = None,
    baselines: Annotated[
        str | None, typer.Option(help="Baselines of accuracy, separated by commas, or none; all by default.")
    ] = None,
) -> None:
    """Evaluate a model against tuned baselines; writes one JSON file per suite and prints its table."""
    from llmrec.eval.run import run_suite

    run_suite(suite, model, data, out, limit, data_dir, split, workers, matmul_dtype, ablations, beside, baselines)


@app.command(epilog="Example: llmrec bench --quick --out results")
def bench(
    out: Annotated[Path, typer.Option(help="Directory for the result file.")] = Path("results"),
    quick: Annotated[bool, typer.Option(help="Fewer repeats; takes less than a minute.")] = False,
    of_training: Annotated[bool, typer.Option("--train", help="Benchmark training instead of decoding.")] = False,
    of_ranking: Annotated[
        bool, typer.Option("--rank", help="Benchmark the ranking of files instead of decoding.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the data and of the order of measurements.")] = 0,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory with the files of the language benchmarks; adds the perplexity with int8 weights."
        ),
    ] = None,
    model: Model = None,
) -> None:
    """Compare the speed of decoding, training or ranking with a standard implementation on the same model."""
    if of_training and of_ranking:
        raise RequestError("--train and --rank are two benchmarks; give one of them")
    if of_ranking:
        from llmrec.eval.bench.batch_ranking import benchmark_ranking

        benchmark_ranking(model=model, out=out, quick=quick, seed=seed)
        return
    if not of_training:
        from llmrec.eval.bench.decoding import benchmark_decoding

        benchmark_decoding(model=model, out=out, quick=quick, seed=seed, data_dir=data_dir)
        return
    if model is not None:
        raise RequestError("--model belongs to decoding; --train starts from the base model of a recipe")
    from llmrec.eval.result_file import publish
    from llmrec.finetune.bench.training_speed import benchmark_training

    found = benchmark_training(quick=quick, seed=seed)
    command = f"llmrec bench --train{' --quick' if quick else ''} --seed {seed} --out {out}"
    path = out / "bench-train.json"
    publish(path, "ml-100k", found.protocol, found.rows, found.targets, seed, command, found.seconds, found.steps)


@app.command(epilog="Example: llmrec chat --port 8080 --set queue=8")
def chat(
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port [default: 7860].")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings; LLMREC_CONFIG can name one as well.")
    ] = None,
    mcp: Annotated[bool | None, typer.Option("--mcp", help="Also offer the two endpoints as MCP tools.")] = None,
    batch_dir: Annotated[Path | None, typer.Option(help="Folder whose files the Batch tab may read.")] = None,
    others: Annotated[list[str] | None, typer.Option("--set", help="Any other setting, as name=value.")] = None,
) -> None:
    """Serve the web page and its API. Listening beyond this machine requires a password in LLMREC_PASSWORD.

    Settings come from the command line, then from LLMREC_<NAME>, then from the file; see docs/settings.md.
    """
    from llmrec.app.server.settings import bind_socket, load_settings, parse_assignments
    from llmrec.app.server.writable_paths import check_writable

    named = {"host": host, "port": port, "model": model, "mcp": mcp, "batch_dir": batch_dir}
    given = {key: one for key, one in named.items() if one is not None}
    settings = load_settings(config, **{**parse_assignments(others or []), **given})
    # before the model loads, so that a port in use or an unwritable path is reported at once
    listener = bind_socket(settings)
    check_writable(settings)
    from llmrec.app.server.serve import create_app, serve_app
    from llmrec.recommender import Recommender

    echo("loading the model", err=True)
    recommender = Recommender.from_pretrained(settings.model)
    application = create_app(recommender, settings)  # fails, if at all, before the address is printed
    echo(f"llmrec is at {' and '.join(settings.addresses)} (Ctrl+C ends it)", err=True)
    serve_app(application, listener)


@app.command(epilog="Example: llmrec doctor")
def doctor(as_json: Json = False) -> None:
    """Check that this machine has what llmrec needs; exit code 1 when something is missing."""
    from llmrec.app.cli.doctor import run_checks

    findings = run_checks()
    if as_json:
        print_values({"findings": [vars(one) for one in findings]}, True)
    else:
        for one in findings:
            advice = f" -> {one.advice}" if one.advice else ""
            echo(f"{'OK     ' if one.ok else 'MISSING'} {one.name}: {one.found}{advice}")
    if not all(one.ok for one in findings):
        raise typer.Exit(1)


def _fail(message: str) -> None:
    echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(MISUSE)


if __name__ == "__main__":
    main()
