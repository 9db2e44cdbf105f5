"""`llmrec recipe`: lists the shipped recipes and shows the settings of one."""

from __future__ import annotations

from typing import Annotated

import typer

from llmrec.app.cli.printing import Json, echo, print_json

recipe_app = typer.Typer(help="List and show training recipes.", no_args_is_help=True)
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: key=value, such as schedule.tokens=120000.")
]


@recipe_app.command(name="list", epilog="Example: llmrec recipe list")
def list_recipes(as_json: Json = False) -> None:
    """List the shipped recipes and the purpose of each."""
    from llmrec.finetune.recipe_files import recipe_purposes

    found = recipe_purposes()
    if as_json:
        print_json({"recipes": [{"name": name, "purpose": purpose} for name, purpose in found.items()]})
        return
    for name, purpose in found.items():
        echo(f"{name}: {purpose}")


@recipe_app.command(epilog="Example: llmrec recipe show smoke --set schedule.tokens=120000")
def show(
    name: Annotated[str, typer.Argument(help="A shipped recipe, or a YAML file.", metavar="NAME")],
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Print all settings of a recipe, defaults included, as YAML that is a recipe itself."""
    import yaml

    from llmrec.finetune.recipe import load_recipe, recipe_path
    from llmrec.finetune.recipe_files import recipe_purpose

    settings = load_recipe(name, changes or ()).model_dump(mode="json")
    what = recipe_purpose(recipe_path(name).read_text(encoding="utf-8"))
    if as_json:
        print_json({"name": name, "purpose": what, "recipe": settings})
        return
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=False)
    echo((f"# {what}\n" if what else "") + text.rstrip("\n"))
