"""The toy world as files: a base model, prepared data and a model directory that load through the public path."""

from pathlib import Path

from conftest import HashEmbedder, make_catalog, make_encoder, make_ids, make_interactions, make_lm, make_tokenizer

from llmrec.checkpoint.pretrained import Pretrained, save_pretrained
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import save_data
from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.data.readers.common import Report
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours, item_counts
from llmrec.finetune.model_card import model_card
from llmrec.lm.base_models import base_model, load_base
from llmrec.lm.model import ModelConfig, RecModel
from llmrec.ranking.fusion import Fusion
from llmrec.recommender import Recommender
from llmrec.semantic_ids.trie import log_mass

WEIGHTS = {"encoder": 1.0, "llm": 0.5, "neighbours": 0.3, "profile": 0.2, "popularity": 0.1}


def base_directory(path: Path) -> Path:
    """A tiny random Llama with its tokenizer, as transformers saves them."""
    tokenizer = make_tokenizer()
    make_lm(len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def saved(folder: Path, catalog: Catalog | None = None, interactions: Interactions | None = None) -> tuple[Path, Path]:
    """(model directory, data directory) below `folder`."""
    import torch

    catalog, interactions = catalog or make_catalog(), interactions or make_interactions()
    n = len(catalog)
    model, data = folder / "model", folder / "data"
    save_data(data, catalog, interactions, Report({}, {}, ()))
    base = base_model(str(base_directory(folder / "base")))
    bundle = RecModel(
        *load_base(base),
        make_ids(n),
        make_encoder(n),
        ModelConfig(lora_rank=4, lora_alpha=8, user_slots=2, adapter_width=16),
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in bundle.trainable().items():
            parameter.normal_(std=0.3 if "lora_" not in name else 0.1)
    train = leave_one_out(interactions).train
    shape = {"text_weight": 0.5, "text_dims": 4}
    meta = {
        "recipe": {"semantic_ids": shape, "neighbours": {}}, "train_fingerprint": train.fingerprint, "tokens": 10,
        "steps": 1, "seconds": 60,
    }  # fmt: skip
    fusions = {"history": Fusion(WEIGHTS), "words": Fusion({**WEIGHTS, "words": 1.0})}
    settings = {"window": 10, "embedder": "hash", "data": str(data)}
    near = fit_neighbours(train, n, NeighbourSettings())
    counts = item_counts(train, n)
    loaded = Pretrained(bundle, log_mass(counts), counts, near, fusions, settings, meta)
    save_pretrained(model, loaded, catalog, base, model_card(loaded, catalog, base))
    return model, data


def recommender(model: Path) -> Recommender:
    """The public face over a directory, with the toy embedder."""
    return Recommender.from_pretrained(model, embedder=HashEmbedder())
