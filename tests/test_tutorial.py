"""Every command of docs/tutorial.md, in order, on a small cut in the form of the real files."""

import gzip
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import HashEmbedder
from toy_files import base_directory
from toy_recommender import free_port
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.checkpoint import hub
from llmrec.data.dataset import load_data
from llmrec.dialogue.chat import Chat, Items
from llmrec.encoders.text import MiniLM
from llmrec.finetune.recipe_files import RECIPES

PAGE = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for kind, body in BLOCKS if kind == "bash" for line in body.splitlines() if line]
KINDS = (("Building Toys", "Building Sets"), ("Dolls & Accessories", "Dolls"))
ITEMS, USERS = 24, 40


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The raw files: two tastes, each user walks through the toys of one."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "raw").mkdir()
    lines = []
    for number in range(1, ITEMS + 1):
        title = None if number == ITEMS else f"Toy Wonder {number}"
        path = ["Toys & Games", *KINDS[number % 2]]
        lines.append({"id": number, "asin": f"B{number:09}", "title": title, "text_id": "x", "categories": [path]})
    rng = np.random.default_rng(0)
    log = []
    for user in range(1, USERS + 1):
        own = [number for number in range(1, ITEMS + 1) if number % 2 == user % 2]
        start = int(rng.integers(len(own)))
        log.append(" ".join(map(str, [user, *(own[(start + i) % len(own)] for i in range(6))])))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "raw" / "toys.items.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "raw" / "toys.sequences.txt.gz").write_bytes(gzip.compress(("\n".join(log) + "\n").encode()))
    (folder / "toys.toml").write_text(next(body for kind, body in BLOCKS if kind == "toml"))
    (folder / "new.csv").write_text("user,item,step\n1,2,50\nnew,4,50\nnew,6,51\nnew,8,52\n")
    new = [{"id": number, "title": "Quantum Kit", "categories": [["Science"]]} for number in range(900, 920)]
    (folder / "new-toys.jsonl").write_text("".join(json.dumps(one) + "\n" for one in new))  # enough for drift to tell
    return folder


@pytest.fixture(scope="module")
def small(place, tmp_path_factory):
    """The recipe that the page names, shrunk, on a tiny base."""
    found = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    found["base"] = str(base_directory(tmp_path_factory.mktemp("base")))
    found["semantic_ids"]["size"] = 8
    found["schedule"]["tokens"] = 2000
    found["schedule"]["validate_tokens"] = 0
    found["encoder"]["epochs"] = 3
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "amazon-5core.yaml").write_text(yaml.safe_dump(found))
    return folder


@pytest.fixture
def here(place, small, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("LLMREC_HOME", str(place / "home"))
    monkeypatch.setattr("llmrec.finetune.recipe.RECIPES", small)
    monkeypatch.setattr(MiniLM, "load", staticmethod(lambda path=None: HashEmbedder()))
    return place


def talk(recommender, listener):
    """What the chat page would do with the sentence of the tutorial."""
    listener.close()
    chat = Chat(recommender)
    events = chat.turn(chat.open(), "building sets, no dolls")
    shown = [row for event in events if isinstance(event, Items) for row in event.rows]
    assert shown
    for row in shown:
        kinds = recommender.catalog[row].attributes["categories"]
        assert "Building Sets" in kinds and "Dolls" not in kinds


def pushed(model, repo, **how):
    hub.stage_upload(model, Path("staged"), how["with_data"], "org/base", how["results"])
    return f"https://hub/{repo}"


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=[" ".join(one.split()[:3]) for one in COMMANDS])
def test_the_commands_of_the_tutorial_run_in_order(here, monkeypatch, number):
    line = COMMANDS[number]
    if not line.startswith("llmrec "):
        subprocess.run(["bash", "-c", line], check=True)
        return
    monkeypatch.setattr("llmrec.app.server.serve.create_app", lambda recommender, settings: recommender)
    monkeypatch.setattr("llmrec.app.server.serve.serve_app", talk)
    monkeypatch.setattr("llmrec.checkpoint.hub.push_to_hub", pushed)
    words = shlex.split(line)[1:]
    if words[0] == "chat":
        words += ["--port", str(free_port())]
    if words[:2] == ["eval", "--suite"]:
        words += ["--limit", "10"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == (1 if "drift" in words else 0), f"{line}: {result.exception!r} {result.output[-500:]}"


def test_what_the_commands_left_is_what_the_page_says(here):
    catalog, log, report = load_data(Path("toys"))
    assert len(catalog) == ITEMS and catalog.domain == "toys" and "new" in log.users
    assert report.dropped == {} and len(load_data(Path("toys-2"))[0]) == ITEMS - 1
    assert catalog.values("categories") == (
        "Building Sets",
        "Building Toys",
        "Dolls",
        "Dolls & Accessories",
        "Toys & Games",
    )
    assert "recall@10" in Path("toys-model-card.md").read_text()
    assert (Path("toys-plain") / "items.jsonl").read_text().count("\n") == ITEMS
    assert "recall@10" in (Path("staged") / "README.md").read_text() and not (Path("staged") / "data").exists()
