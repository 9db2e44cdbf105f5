"""A shop of games as its owner has it: 300 tags, hours played, no time column; prepared, trained and talked to."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import HashEmbedder
from toy_files import base_directory
from typer.testing import CliRunner

from llmrec.app.api.endpoints import item_rows
from llmrec.app.cli.main import app
from llmrec.dialogue.chat import Chat, Items, Notice, Token
from llmrec.encoders.text import MiniLM
from llmrec.finetune.recipe_files import RECIPES
from llmrec.recommender import Recommender, Request

GAMES, PLAYERS = 600, 60
KNOWN = ("Co-op", "Shooter", "VR", "Zombies", "RPG", "Indie", "Puzzle", "Open World")
TAGS = (*KNOWN, *(f"Tag{number} Style" for number in range(300 - len(KNOWN))))
REQUEST = "a co-op shooter but not VR, no zombies"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """games.csv (tags split by commas, a price that can be Free) and played.csv (hours, and no time)."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(3)
    games = []
    for number in range(GAMES):
        tags = {TAGS[i] for i in rng.choice(len(KNOWN), 3, replace=False)}
        tags |= {TAGS[i] for i in rng.choice(len(TAGS), 4, replace=False)}
        genre = "RPG" if "RPG" in tags and rng.random() < 0.5 else ("Action", "Strategy")[number % 2]
        games.append((f"{number:04}", f"Quest of Game {number}", genre, ",".join(sorted(tags))))
    with (folder / "games.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("app", "name", "genre", "tags"), *games])
    with (folder / "played.csv").open("w", newline="") as file:
        rows = [("player", "app", "hours")]
        for player in range(PLAYERS):
            start = int(rng.integers(GAMES))
            rows += [
                (f"p{player}", f"{(start + 2 * step) % GAMES:04}", round(float(rng.gamma(2, 9)), 1))
                for step in range(8)
            ]
        csv.writer(file).writerows(rows)
    found = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    found["base"] = str(base_directory(tmp_path_factory.mktemp("base")))
    found["semantic_ids"]["size"] = 32
    found["encoder"]["epochs"] = 2
    (folder / "shop.yaml").write_text(yaml.safe_dump(found))
    return folder


@pytest.fixture
def here(shop, monkeypatch):
    monkeypatch.chdir(shop)
    monkeypatch.setenv("LLMREC_HOME", str(shop / "home"))
    monkeypatch.setattr(MiniLM, "load", staticmethod(lambda path=None: HashEmbedder()))
    return shop


def llmrec(*words, code=0):
    result = CliRunner().invoke(app, list(words))
    said = f"{result.output} {result.exception or ''}"
    assert result.exit_code == code or (code and result.exception is not None), said[-800:]
    return said


PREPARE = (
    "data", "prepare", "--source", "table", "--items", "games.csv", "--interactions", "played.csv",
    "--item-id", "app", "--title", "name", "--user", "player", "--item", "app",
    "--value", "hours", "--domain", "games", "--category",
)  # fmt: skip


def test_tags_under_the_wrong_separator_are_found_out(here):
    llmrec(*PREPARE, "genre,tags", "--out", "wrong")
    said = llmrec("data", "check", "wrong")
    assert "tags" in said and "--separator" in said and "time" in said


def test_from_the_files_to_a_conversation_without_zombies(here):
    llmrec(*PREPARE, "genre,tags", "--separator", ",", "--out", "games")
    assert "order of the rows is taken as time" in llmrec("data", "check", "games")
    llmrec("train", "games", "--recipe", "shop.yaml", "--set", "schedule.tokens=2000", "--out", "model")
    recommender = Recommender.from_pretrained(here / "model", embedder=HashEmbedder())
    tags = [set(item.attributes["tags"]) for item in recommender.catalog.items]
    assert len(recommender.catalog.values("tags")) > 250
    chat = Chat(recommender)
    session = chat.open()
    for text in (REQUEST, "more please", "something else, an open world game"):
        events = list(chat.turn(session, text))
        rows = [row for event in events if isinstance(event, Items) for row in event.rows]
        said = " ".join(event.text for event in events if isinstance(event, Token | Notice))
        assert rows and "only help" not in said
        assert not any({"VR", "Zombies"} & tags[row] for row in rows), said
    listed = recommender.recommend(Request(message=REQUEST, k=20))
    assert not any({"VR", "Zombies"} & tags[one.row] for one in listed)
    assert len(item_rows(recommender.catalog, listed)) == len(listed) > 0
    # genre and tags both hold RPG: excluded in both
    for one in recommender.recommend(Request(message="no rpg", k=50)):
        item = recommender.catalog[one.row]
        assert "RPG" not in (*item.attributes["genre"], *item.attributes["tags"]) and item.attributes["genre"] != "RPG"
    assert Path("model").is_dir() and not list(here.glob(".model.*tmp"))


@pytest.mark.parametrize("wish", ["games under 10 dollars", "released after 2015"])
def test_what_the_shop_cannot_filter_by_is_said(here, wish):
    chat = Chat(Recommender.from_pretrained(here / "model", embedder=HashEmbedder()))
    events = list(chat.turn(chat.open(), wish))
    said = " ".join(event.text for event in events if isinstance(event, Token | Notice))
    assert "genre" in said and "tags" in said and "only help" not in said, said
