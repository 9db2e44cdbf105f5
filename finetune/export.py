"""Exports merged weights that vLLM, llama.cpp or transformers load without this package.

LoRA is merged into the base model. On request, item tokens are appended to the word table and to the output head. Their
rows in the head are scaled as their logits are, so the head is then no longer tied to the table. The token ids are
those of `ItemVocab`. The tokenizer does not learn the item tokens: it splits the text `<|item_0_5|>` into ordinary
tokens, and item tokens must be given by id.

A plain model cannot hold the trie, the popularity prior, user vectors as soft tokens, or the fusion with look-up
scores. These are not exported. An exported model therefore generates text, and gives raw item logits to callers that
build the rest themselves; `items.jsonl` maps token ids to items.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmrec.checkpoint import hub
from llmrec.checkpoint.pretrained import load_pretrained
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import open_data
from llmrec.errors import RequestError
from llmrec.lm.model import RecModel
from llmrec.storage.artifacts import JSON, write_artifact
from llmrec.storage.download import hide_progress_bars
from llmrec.storage.locks import output_lock

KIND = "plain-model"
PRECISIONS = ("float32", "bfloat16", "float16")


def export_weights(
    model: str | Path, out: Path, data: str | None = None, items: bool = False, precision: str = "float32"
) -> dict[str, Any]:
    """Write a plain Hugging Face model directory with a vocabulary file.

    Args:
        model: a model directory or `org/name`.
        out: directory to write; it is written completely or not at all.
        data: prepared data; None uses the data that the model names.
        items: append item tokens to the tables.
        precision: number format of the weights.

    Returns:
        What was written: words, item tokens, items, bytes.

    Raises:
        RequestError: `precision` is not one of `PRECISIONS`.
        ArtifactError: the model is damaged or does not belong to the data.
    """
    if precision not in PRECISIONS:
        raise RequestError(f"--precision {precision!r} should be one of {', '.join(PRECISIONS)}")
    path = hub.resolve_model(model)
    catalog, _ = open_data(data if data is not None else hub.data_of(path))
    loaded = load_pretrained(path, catalog)
    plain = plain_model(loaded.model, items).to(getattr(torch, precision))
    vocab = loaded.model.vocab
    about: dict[str, JSON] = {
        "words": vocab.base,
        "item_tokens": len(vocab) if items else 0,
        "depth": vocab.ids.depth,
        "size": vocab.ids.size,
        "items": len(catalog),
        "precision": precision,
    }
    prints = {"catalog": catalog.fingerprint, "semantic_ids": vocab.ids.fingerprint}
    with output_lock(out, "exporting to"), hide_progress_bars(), write_artifact(out, KIND, prints, about) as directory:
        plain.save_pretrained(directory, safe_serialization=True)
        loaded.model.tokenizer.save_pretrained(directory)
        (directory / "vocabulary.json").write_text(json.dumps({**about, "names": vocab.names()}, indent=1) + "\n")
        lines = _lines(catalog, loaded.model, loaded.prior.tolist())
        (directory / "items.jsonl").write_text("".join(lines), encoding="utf-8")
        (directory / "README.md").write_text(_readme(catalog, items), encoding="utf-8")
        size = sum(one.stat().st_size for one in directory.iterdir())
    return {**about, "bytes": size}


def plain_model(model: RecModel, items: bool) -> Any:
    """Return a new model of the base model's class with LoRA merged, and with item tokens appended if `items` is set.

    Token `base + l * size + c` is then code c of level l, and its logit equals that of `RecModel.level_logits`.
    """
    model.merge()
    config = deepcopy(model.lm.config)
    weights = {
        name.replace(".base_layer", ""): value.detach()
        for name, value in model.lm.state_dict().items()
        if "lora_" not in name
    }
    if items:
        total = model.vocab.base + len(model.vocab)
        config.get_text_config().vocab_size, config.tie_word_embeddings = total, False
        config.get_text_config().tie_word_embeddings = False
    plain: Any = type(model.lm)(config)
    if items:
        scale = model.item_scale.detach().repeat_interleave(model.vocab.ids.size)[:, None]
        table = model.items.weight.detach()
        embed, head = plain.get_input_embeddings(), plain.get_output_embeddings()
        names = {id(module): name for name, module in plain.named_modules() if isinstance(module, nn.Module)}
        weights[f"{names[id(embed)]}.weight"] = torch.cat([model.word_embedding.weight.detach().float(), table])
        weights[f"{names[id(head)]}.weight"] = torch.cat([model.word_table.detach().float(), table * scale])
    missing, unexpected = plain.load_state_dict(weights, strict=False)
    tied = set(plain._tied_weights_keys or ()) if not items else set()
    if unexpected or set(missing) - tied:
        raise RuntimeError(f"weights do not fit: missing {sorted(missing)[:3]}, unexpected {sorted(unexpected)[:3]}")
    plain.tie_weights()
    return plain.eval()


def _lines(catalog: Catalog, model: RecModel, prior: list[float]) -> list[str]:
    """Return one JSON line per item: its id, title, token ids in order, and the log mass that the trie adds."""
    tokens = model.vocab.tokens.tolist()
    found = (
        {"id": item.id, "title": item.title, "tokens": tokens[row], "log_mass": prior[row]}
        for row, item in enumerate(catalog.items)
    )
    return [json.dumps(one, ensure_ascii=False) + "\n" for one in found]


def _readme(catalog: Catalog, items: bool) -> str:
    table = (
        "Item tokens stand after the words, in the embedding and in the head; `vocabulary.json` has their names, "
        "`items.jsonl` the path of every item. The tokenizer cannot spell them: give them as token ids."
        if items
        else "Item tokens are not in these tables; `items.jsonl` lists the paths that they would have."
    )
    return f"""# Merged weights of an llmrec model for {len(catalog)} {catalog.domain}

A plain causal language model: LoRA is folded in, no code of llmrec is needed to load it.

    vllm serve THIS_DIRECTORY
    python convert_hf_to_gguf.py THIS_DIRECTORY

{table}

The trie over the catalogue, the prior of popular items, user vectors and the fusion with look-up scores are not in a
plain model. Free generation from it can name items that do not exist; recommendations come from llmrec.
"""
