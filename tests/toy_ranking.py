"""A whole toy model on disk for tests of ranking in other processes, and a script that ranks a file with it.

Usage: toy_ranking.py WORLD INPUT OUTPUT WORKERS PART [SECONDS]. SECONDS is slept before each part: something to kill.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from conftest import HashEmbedder, make_catalog, make_encoder, make_ids, make_interactions, make_lm, make_tokenizer

from llmrec.batch import process_pool
from llmrec.batch.rank_file import Settings, rank_file
from llmrec.checkpoint.pretrained import Pretrained, save_pretrained
from llmrec.data.dataset import save_data
from llmrec.data.readers.common import Report
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.lm.base_models import base_model
from llmrec.lm.model import ModelConfig, RecModel
from llmrec.ranking.fusion import Fusion
from llmrec.recommender import Recommender

ITEMS = 60


def make_world(root: Path) -> Path:
    """Base, data and model directories below `root`; returns the model's."""
    catalog, interactions, tokenizer = make_catalog(ITEMS), make_interactions(n=ITEMS), make_tokenizer()
    make_lm(len(tokenizer)).save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    save_data(root / "data", catalog, interactions, Report({}, {}, ()))
    config = ModelConfig(lora_rank=4, lora_alpha=8, user_slots=2, adapter_width=16)
    model = RecModel(make_lm(len(tokenizer)), tokenizer, make_ids(ITEMS, 3, 5), make_encoder(ITEMS), config)
    weights = {"encoder": 1.0, "llm": 0.7, "profile": 0.2, "neighbours": 0.5}
    neighbours = fit_neighbours(interactions, ITEMS, NeighbourSettings())
    loaded = Pretrained(
        model, np.log1p(np.arange(ITEMS) % 5).astype(np.float32), np.arange(ITEMS) % 5, neighbours,
        {"history": Fusion(weights), "words": Fusion({**weights, "words": 0.5})},
        {"window": 6, "embedder": "hash", "data": str(root / "data")}, {},
    )  # fmt: skip
    save_pretrained(root / "model", loaded, catalog, base_model(str(root / "base")), "a toy")
    return root / "model"


def load(model: str, data: str | None) -> Recommender:
    """The toy model; texts are embedded by hashing."""
    os.environ["LLMREC_HOME"] = str(Path(model).parent / "home")
    return Recommender.from_pretrained(model, data, HashEmbedder())


def slow(seconds: float, job, parts, workers):
    """The usual runner, with a pause after every part."""
    for count in process_pool.run_local(job, parts, workers, load):
        yield count
        time.sleep(seconds)


if __name__ == "__main__":
    world, source, target, workers, part = sys.argv[1:6]
    runner = partial(slow, float(sys.argv[6]) if len(sys.argv) > 6 else 0.0, workers=int(workers))
    rank_file(Path(source), Path(target), Settings(model=Path(world), part=int(part)), runner)
