"""Prints a plan as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from llmrec.progress import duration

_PARTS = {
    "body": "body, forward and back to the inputs",
    "lora": "LoRA",
    "attention": "attention",
    "items": "item softmax",
    "words": "word softmax",
    "adapter": "user adapter",
    "kl": "base model's pass over replay text",
}


def print_plan(plan: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a whole plan; tables are plain text, and markup in names is not interpreted."""
    out = console or Console(highlight=False, markup=False, soft_wrap=True)
    data, base, book = plan["data"], plan["base"], plan["code_book"]
    if "recipe" in plan:
        changed = ", ".join(f"{key}={value}" for key, value in plan["recipe"]["set"].items())
        out.print(f"recipe     {plan['recipe']['name']}{f', set here: {changed}' if changed else ''}")
    out.print(
        f"data       {data['items']:,} items, {data['users']:,} users, "
        f"{data['train_interactions']:,} train interactions, catalogue {data['catalog']}"
    )
    here = "on this machine" if base["here"] else "not on this machine yet"
    out.print(f"base       {base['id']}, {base['parameters'] / 1e6:,.1f} million parameters, {here}")
    made = f"fingerprint {book['fingerprint']}" if book["fingerprint"] else "not made yet"
    out.print(f"code book  {book['depth']} levels of {book['size']} codes, {made}")
    parts = ", ".join(f"{n} {v:,}" for n, v in plan["trainable"].items() if n != "total")
    out.print(f"trained    {plan['trainable']['total']:,} parameters: {parts}\n")
    out.print(_table(("stage", "state"), list(plan["work"].items())))
    for number, stage in enumerate(plan["fine_tuning"], 1):
        out.print()
        _print_stage(out, number, stage)
    out.print()
    _print_cost(out, plan)
    for note in plan["notes"]:
        out.print(f"note: {note}")


def _print_stage(out: Console, number: int, stage: Mapping[str, Any]) -> None:
    vectors = "with" if stage["user_vectors"] else "without"
    out.print(
        f"fine-tuning {number}: {', '.join(stage['trains'])}; {vectors} user vectors; {stage['tokens']:,} tokens in "
        f"{stage['steps']:,} steps of about {stage['tokens_per_step']:,}; {stage['item_targets']:,} item targets; "
        f"{stage['passes']:g} passes over the histories"
    )
    flops = stage["flops"]
    out.print(_table(("task", "tokens"), [(n, f"{v:,}") for n, v in stage["tokens_per_task"].items()], right=(1,)))
    counted = [(_PARTS[n], f"{flops[n] / 1e12:,.1f}", f"{flops[n] / flops['total']:.1%}") for n in _PARTS]
    out.print()
    out.print(_table(("operations", "TFLOP", ""), counted, right=(1, 2)))


def _print_cost(out: Console, plan: Mapping[str, Any]) -> None:
    here = plan["this_machine"]
    times = [(name, duration(hours * 3600)) for name, hours in here["hours_by_stage"].items()]
    out.print(f"fine-tuning takes {plan['flops'] / 1e12:,.1f} TFLOP; all stages take on this machine, at most:")
    out.print(_table(("stage", "time"), times, right=(1,)))
    out.print()
    rows = [
        _machine("this machine", here["product_gflops"] / 1e3, here["products"], here, here["memory_free_gb"]),
        *(_machine(gpu["name"], gpu["peak_tflops"], gpu["type"], gpu, gpu["vram_gb"]) for gpu in plan["gpus"]),
    ]
    names = ("machine", "TFLOP/s", "type", "reached", "time", "GB needed", "of", "fits")
    out.print(_table(names, rows, right=(1, 3, 4, 5, 6)))
    out.print("TFLOP/s are measured here and data sheets elsewhere; what of it is reached is an assumption for GPUs")
    memory = ", ".join(f"{name} {value:.2f}" for name, value in plan["memory_gb"].items())
    disk = ", ".join(f"{name} {value:.2f}" for name, value in plan["disk_gb"].items())
    out.print(f"memory in GB, beside the program itself: {memory}; disk in GB, at most: {disk}")


def _machine(name: str, tflops: float, kind: str, cost: Mapping[str, Any], room: float) -> tuple[str, ...]:
    need = cost["peak_memory_gb"]
    return (
        name,
        f"{tflops:.3g}",
        kind,
        f"{cost['efficiency']:.0%}",
        duration(cost["hours"] * 3600),
        f"{need:.1f}",
        f"{room:.3g}",
        "no GPU" if cost.get("lacks") else "yes" if cost["fits"] else "no",
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
