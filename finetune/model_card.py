"""Writes the model card next to the weights."""

from __future__ import annotations

import json
from pathlib import Path

from llmrec.checkpoint.pretrained import Pretrained
from llmrec.data.catalog import Catalog
from llmrec.lm.base_models import BaseModelFiles
from llmrec.storage.registry import RESOURCES


def model_card(loaded: Pretrained, catalog: Catalog, base: BaseModelFiles) -> str:
    """Return the model card in Markdown: what the model is, what it belongs to, how it was trained, and its limits.

    The card names only the licences of the base model and the data, if they are known. The licence of the model itself
    is left to its publisher.
    """
    meta, model = loaded.meta, loaded.model
    added = sum(p.numel() for p in model.added_state().values())
    data = Path(str(loaded.settings["data"])).name  # the name alone: no local path in the card
    weights = "\n".join(f"- {kind}: {json.dumps(dict(f.weights))}" for kind, f in loaded.fusions.items())
    return f"""---
base_model: {base.id}
tags: [recommendation, semantic-ids, lora]
---
# llmrec model for {len(catalog)} {catalog.domain}

LoRA, item tokens, a user adapter and a sequential encoder on top of `{base.id}` (weights sha256 `{base.sha256[:16]}`).
{added:,} added parameters; the base model is referred to, not copied. Titles and histories are not in here: they come
with the data.

- catalogue fingerprint: `{catalog.fingerprint[:16]}`
- semantic IDs: {model.vocab.ids.depth} levels of {model.vocab.ids.size} codes, `{model.vocab.ids.fingerprint[:16]}`
- training: {meta["tokens"]:,} tokens in {meta["steps"]:,} steps, {meta["seconds"] / 60:.0f} minutes

Fusion weights, fitted on validation items of users that chose no other setting:

{weights}

## Licences
- base model `{base.id}`: {licence_of(base.id)}
- data `{data}`: {licence_of(data)}

No licence of the added parameters is stated here.

## Limits
Knows this catalogue only. Recommendations follow the train part of the interactions, with their popularity bias. The
words come from a small language model: items are certain to exist, sentences are not certain to be wise.

## Recipe
```json
{json.dumps(meta["recipe"], indent=1)}
```
"""


def licence_of(name: str) -> str:
    """Return the licence of a registered data set or base model, or "not stated" if the name is unknown."""
    known = RESOURCES.get(name)
    return known.licence if known else "not stated"
