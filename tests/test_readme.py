"""What the README says can be done and was measured is done and compared here."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.recommender import SHIPPED, Recommender
from llmrec.storage.registry import home

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, body in BLOCKS if kind == "bash" for line in body.splitlines() if line.startswith("llmrec ")]
CACHED = SHIPPED.is_dir() and all((home() / "files" / n).is_dir() for n in ("ml-100k", "minilm-l6-v2"))
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
    code = next(body for kind, body in BLOCKS if kind == "python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=OFFLINE, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6


def rows_of(name: str) -> dict[str, dict[str, Any]]:
    """Metrics by row of a published result."""
    result = json.loads((ROOT / "eval" / "results" / name).read_text(encoding="utf-8"))
    return {row["name"]: row["metrics"] for row in result["rows"]}


def test_the_results_table_is_the_result_file():
    rows = rows_of("accuracy-ml-100k.json")
    shown = re.findall(r"^\| \**([\w-]+)\**[^|]*\|(.*)\|$", README, re.MULTILINE)
    found = {name: re.findall(r"\.(\d{4})", cells) for name, cells in shown if name in rows}
    assert set(found) == {"popularity", "text-lookup", "als", "item-knn", "ease", "sasrec", "hstu", "llm", "hybrid"}
    for name, cells in found.items():
        wanted = [rows[name][m] for m in ("recall@10", "ndcg@10")]
        numbers = [n for w in wanted for n in (w["mean"], *w["ci95"])]
        assert [f"{n:.4f}"[2:] for n in numbers] == cells[:6], name


def test_local_links_and_pictures_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


PAGE = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:], ids=lambda part: part.split("\n")[0])
def test_the_tables_of_the_accuracy_page_are_the_result_files(part):
    (name,) = re.findall(r"`eval/results/(accuracy-[\w-]+\.json)`", part)
    rows = rows_of(name)
    head, _, *lines = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    metrics = [cell.strip() for cell in head[1:]]
    shown = {cells[0].strip(" *"): [re.findall(r"\.\d{4}", cell) for cell in cells[1:]] for cells in lines}
    assert set(shown) == set(rows) and metrics[:2] == ["recall@10", "ndcg@10"]
    for row, cells in shown.items():
        for metric, cell in zip(metrics, cells, strict=True):
            found = rows[row][metric]
            numbers = [found["mean"], *found["ci95"]] if len(cell) == 3 else [found["mean"]]
            assert cell == [f"{number:.4f}"[1:] for number in numbers], (row, metric)


def test_commands_of_the_accuracy_page_exist():
    lines = [line for body in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in body.splitlines()]
    assert len(lines) == 3
    for line in lines:
        test_every_command_and_option_exists(line)
