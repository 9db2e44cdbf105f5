"""A served toy model and a headless Chromium, for the tests of the page; both are started once."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from conftest import HashEmbedder, make_interactions, make_model
from fakes import films

from llmrec.app.server.serve import create_app, uvicorn_config
from llmrec.app.server.settings import Settings
from llmrec.data.catalog import Catalog
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.scorer import Scorer
from llmrec.recommender import Recommender
from llmrec.semantic_ids.trie import Trie

FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]


def chromium() -> str | None:
    """The browser of the system, or None; CHROMIUM names another one."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextmanager
def browsing() -> Iterator[Any]:
    """The browser of `chromium()`, headless; closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


class Spoken(Recommender):
    """The toy model; its words, which are noise, are replaced by given ones that come as slowly as asked."""

    words: list[str]
    pause: float
    dialogues: list[list[tuple[str, str]]]

    def talk(self, dialogue: Any, shown: Any, max_tokens: int = 60, stop: Any = None, seconds: float = 15.0) -> Any:
        self.dialogues.append(list(dialogue))
        for word in self.words:
            if stop is not None and stop.wait(self.pause):
                return
            yield word


def toy(catalog: Catalog | None = None) -> Spoken:
    """A recommender with all its parts, random weights and 32 well-known films."""
    catalog = catalog or films()
    n, size = len(catalog), 9
    model = make_model(n, 2, size)
    log = make_interactions(n=12)
    embedder = HashEmbedder()
    text = embedder.encode([catalog.describe(row) for row in range(n)])
    knn = fit_neighbours(log, n, NeighbourSettings())
    trie = Trie(model.vocab.ids.codes, size, np.log1p(np.arange(n) % 5))
    scorer = Scorer(model, trie, text, knn, embedder, catalog.domain, 6, None)
    weights = {"encoder": 1.0, "llm": 0.7, "profile": 0.6, "neighbours": 0.5}
    fusions = {"history": Fusion(weights), "words": Fusion({**weights, "words": 0.5})}
    made = Spoken(catalog, log, scorer, fusions)
    made.words, made.pause, made.dialogues = ["\u200bThey ", "fit ", "well."], 0.0, []
    return made


@dataclass
class World:
    """What is served, and where."""

    url: str
    recommender: Any
    port: int
    requests: list[str] = field(default_factory=list)


@contextmanager
def served(recommender: Any, settings: Settings | None = None) -> Iterator[World]:
    """Serve on a free port of this machine until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = create_app(recommender, (settings or Settings()).model_copy(update={"port": port}))
    server = uvicorn.Server(uvicorn_config(app))
    listener = socket.create_server(("127.0.0.1", port))
    worker = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    worker.start()
    while not server.started:
        time.sleep(0.01)
    yield World(f"http://127.0.0.1:{port}", recommender, port)
    server.should_exit = True
    worker.join(10)


def watch(context: Any, world: World) -> dict[str, list[str]]:
    """Note every dialog, and every request that leaves this machine or fails to be ours."""
    seen: dict[str, list[str]] = {"dialogs": [], "away": [], "errors": []}

    def dialog(one: Any) -> None:
        seen["dialogs"].append(one.message)
        one.dismiss()

    def request(one: Any) -> None:
        if not one.url.startswith((world.url, "data:", "blob:")):
            seen["away"].append(one.url)

    context.on("dialog", dialog)
    context.on("request", request)
    context.on("weberror", lambda one: seen["errors"].append(str(one.error)))
    return seen
