"""What README and documentation say can be done is done here; what they say was measured is compared with the files."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.recommender import SHIPPED, Recommender
from llmrec.storage.registry import cache_home

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


COMMANDS = [
    line
    for body in blocks("bash", README) + blocks("bash", CLI)
    for line in body.splitlines()
    if line.startswith("llmrec ")
]
PRINTED = {"python": (6, 0), "how-it-works": (1,)}  # pages whose Python examples are run, and the lines each prints
EXAMPLES = [
    (page, number, body)
    for page, lines in PRINTED.items()
    for number, body in zip(lines, blocks("python", (DOCS / f"{page}.md").read_text("utf-8")), strict=True)
]
CACHED = SHIPPED.is_dir() and all((cache_home() / "files" / n).is_dir() for n in ("ml-100k", "minilm-l6-v2"))
needs_weights = pytest.mark.skipif(
    not CACHED, reason="base weights, data or the shipped model are not on this machine yet"
)
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1", "LLMREC_OFFLINE": "1"}


GROUPS = ("data", "items", "feedback")  # commands that have commands of their own


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_exists(line):
    words = shlex.split(line.split("  #")[0])[1:]
    verb = [w for w in words[:2] if not w.startswith("-") and w.replace("-", "").isalpha()]
    verb = verb[:2] if verb[0] in GROUPS else verb[:1]
    result = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for option in (w for w in words if w.startswith("-")):
        assert option in result.output, f"{option} of {line!r} is not in its help"
    assert "Example" in result.output


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def shipped():
    """The shipped model, loaded once for all commands: a load takes most of a command's time."""
    return Recommender.from_pretrained()


@needs_weights
@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("llmrec recommend")])
def test_recommend_commands_run_as_written(line, shipped, monkeypatch):
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda path=None: shipped))
    words = shlex.split(line)[1:]
    done = CliRunner().invoke(app, words if "--json" in words else [*words, "--json"], env=OFFLINE)
    assert done.exit_code == 0, done.output
    items = json.loads(done.stdout)["items"]
    assert len(items) == 10 and len({i["item_id"] for i in items}) == 10
    assert all(set(i) == {"rank", "item_id", "title", "score", "source", "reason"} for i in items)


@needs_weights
def test_the_python_example_runs_as_written():
    (code,) = blocks("python", README)
    (said,) = blocks("text", README)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=OFFLINE, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == said


@needs_weights
@pytest.mark.parametrize(("page", "lines", "code"), EXAMPLES, ids=[page for page, *_ in EXAMPLES])
def test_the_python_examples_of_the_documentation_run_as_written(page, lines, code, shipped, monkeypatch, capsys):
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda path=None: shipped))
    exec(compile(code, page, "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == lines


def test_the_front_page_is_short():
    assert len(README.split()) <= 1000


def test_the_picture_moves_and_is_small():
    path = DOCS / "chat.gif"
    assert f"](docs/{path.name})" in README and path.stat().st_size < 3_000_000
    with Image.open(path) as picture:
        seconds = 0.0
        for frame in range(picture.n_frames):
            picture.seek(frame)
            seconds += picture.info["duration"] / 1000
        assert picture.n_frames > 20 and 12 <= seconds <= 20 and 800 <= picture.width <= 1000


def tree() -> dict[str, str]:
    """Paths of the README's tree with what is said of each."""
    (body,) = re.findall(r"^```\n(llmrec/.*?)```", README, re.DOTALL | re.MULTILINE)
    found, parents = {}, []
    for line in body.splitlines():
        depth, (name, *said) = (len(line) - len(line.lstrip())) // 2, line.split(maxsplit=1)
        parents[depth:] = [name]
        found["".join(parents)] = "".join(said)
    return found


def test_the_tree_names_what_is_there():
    for path, said in tree().items():
        assert (ROOT / path).exists(), path
        for name in re.findall(r"[\w-]+\.(?:py|yaml)", said):
            assert (ROOT / path / name).exists(), f"{path}{name}"


def test_the_tree_leaves_no_package_out():
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    paths = {re.sub(r"^llmrec/(?=(?:app|finetune|eval|prompts)(?:/|$))", "", p.replace(".", "/")) for p in packages}
    wanted = {path for path in paths if not path.startswith(("eval/", "app/web/"))}
    assert wanted <= {path.rstrip("/") for path in tree()}


def rows_of(name: str) -> dict[str, dict[str, Any]]:
    """Metrics by row of a published result."""
    result = json.loads((ROOT / "eval" / "results" / name).read_text(encoding="utf-8"))
    return {row["name"]: row["metrics"] for row in result["rows"]}


def test_the_results_table_is_the_result_files():
    files = [rows_of(f"accuracy-{name}.json") for name in ("ml-100k", "beauty", "toys")]
    shown = re.findall(r"^\| \**([\w, -]+?)\**(?:, tuned| \(this\))? \|(.*)\|$", README, re.MULTILINE)
    found = {name: re.findall(r"(\.\d{4}) / (\.\d{4})", cells) for name, cells in shown if name in files[0]}
    assert set(found) == {"popularity", "item-knn", "sasrec", "hybrid", "hybrid, no llm"} and len(shown) <= 6
    for name, cells in found.items():
        wanted = [tuple(f"{rows[name][m]['mean']:.4f}"[1:] for m in ("recall@10", "ndcg@10")) for rows in files]
        assert cells == wanted, name


PAGE = (DOCS / "results" / "accuracy.md").read_text(encoding="utf-8")
MEASURED = [part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:] if "`eval/results/accuracy-" in part]


@pytest.mark.parametrize("part", MEASURED, ids=lambda part: part.split("\n")[0])
def test_the_tables_of_the_accuracy_page_are_the_result_files(part):
    (name,) = re.findall(r"`eval/results/(accuracy-[\w-]+\.json)`", part)
    rows = rows_of(name)
    table = re.search(r"(?:^\|.*\n)+", part, re.MULTILINE)[0]
    head, _, *lines = [line.strip("|").split("|") for line in table.splitlines()]
    metrics = [cell.strip() for cell in head[1:]]
    shown = {cells[0].strip(" *"): [re.findall(r"\.\d{4}", cell) for cell in cells[1:]] for cells in lines}
    assert set(shown) == set(rows) and metrics[:2] == ["recall@10", "ndcg@10"]
    for row, cells in shown.items():
        for metric, cell in zip(metrics, cells, strict=True):
            found = rows[row][metric]
            numbers = [found["mean"], *found["ci95"]] if len(cell) == 3 else [found["mean"]]
            assert cell == [f"{number:.4f}"[1:] for number in numbers], (row, metric)


def test_three_sets_are_measured():
    assert len(MEASURED) == 3


def test_commands_of_the_accuracy_page_exist():
    lines = [line for body in blocks("bash", PAGE) for line in body.splitlines()]
    assert len(lines) == 3
    for line in lines:
        test_every_command_and_option_exists(line)
