"""A whole recommender of the toy world: tiny random Llama, untrained encoder, 12 items, 40 users."""

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import uvicorn
from conftest import HashEmbedder, make_catalog, make_interactions, make_model
from fastapi import FastAPI

from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.scorer import Scorer
from llmrec.recommender import Recommender
from llmrec.semantic_ids.trie import Trie

WEIGHTS = {"encoder": 1.0, "llm": 0.7, "profile": 0.2, "neighbours": 0.5}


def make_recommender() -> Recommender:
    n = 12
    model, catalog, interactions = make_model(n), make_catalog(n), make_interactions(n=n)
    embedder = HashEmbedder()
    text = embedder.encode([catalog.describe(row) for row in range(n)])
    neighbours = fit_neighbours(interactions, n, NeighbourSettings())
    trie = Trie(model.vocab.ids.codes, model.vocab.ids.size, np.log1p(np.arange(n) % 5))
    scorer = Scorer(model, trie, text, neighbours, embedder, "films", 6)
    fusions = {"history": Fusion(WEIGHTS), "words": Fusion({**WEIGHTS, "words": 0.5})}
    return Recommender(catalog, interactions, scorer, fusions, {"steps": 3, "tokens": 900})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serving(app: FastAPI, port: int) -> Iterator[str]:
    """The address of a running server; it ends when the generator is closed."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", ws="none"))
    worker = threading.Thread(target=server.run, daemon=True)
    worker.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    worker.join(10)
