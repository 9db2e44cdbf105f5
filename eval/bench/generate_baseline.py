"""The two sides of the decoding benchmark: this engine, and transformers' beam search on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import GenerationConfig

from llmrec.checkpoint.pretrained import load_pretrained, read_settings
from llmrec.data.dataset import open_data
from llmrec.decoding.beam_search import beam_search
from llmrec.errors import ArtifactError, RequestError
from llmrec.lm.model import ModelConfig, RecModel
from llmrec.lm.rendering import Rendered
from llmrec.recommender import SHIPPED
from llmrec.semantic_ids.residual_kmeans import SemanticIds
from llmrec.semantic_ids.trie import Trie

Ints = npt.NDArray[np.int64]

ITEMS, DEPTH, SIZE = 12_288, 3, 64  # the synthetic catalogue: more than 12,000 items, so that beams matter
K = 10
FAMILIES = ("llama", "qwen3")  # their word table is used as it is, so item tokens can be added as rows


@dataclass(frozen=True, eq=False)
class ModelPair:
    """One model in two forms: a bundle for this engine, and a causal language model with item tokens in its vocabulary.

    Both share the same tensors. `rows` maps a path of codes to its row.
    """

    bundle: RecModel
    trie: Trie
    lm: Any
    rows: dict[tuple[int, ...], int]

    def ours(self, prompts: Sequence[Rendered], beams: int) -> list[list[int]]:
        """The best rows of every prompt by this engine, with nothing cached; as in `generate`, at most one per beam."""
        k = min(K, beams)
        return [one.rows.tolist() for one in beam_search(self.bundle, self.trie, prompts, k, beams)]

    def reference(self, prompts: Sequence[Rendered], beams: int) -> list[list[int]]:
        """The same by `generate`; all prompts must have the same length."""
        vocab = self.bundle.vocab
        length = len(prompts[0].ids)
        ids = torch.from_numpy(np.stack([prompt.ids for prompt in prompts]))
        with torch.inference_mode():
            out = self.lm.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                prefix_allowed_tokens_fn=allowed_tokens(vocab.tokens, length),
                num_beams=beams,
                num_return_sequences=min(K, beams),
                max_new_tokens=self.trie.depth,
            )
        codes = (out[:, length:].numpy() - vocab.base) % self.trie.size
        found = [self.rows[tuple(path)] for path in codes.tolist()]
        each = len(found) // len(prompts)
        return [found[i * each : (i + 1) * each] for i in range(len(prompts))]


def allowed_tokens(tokens: Ints, length: int) -> Callable[[int, torch.Tensor], list[int]]:
    """Return a function for `generate` that gives the tokens allowed after a prompt of `length` tokens.

    It uses a dictionary over the paths int64[n, depth].
    """
    following: dict[tuple[int, ...], set[int]] = {}
    for path in tokens.tolist():
        for level, token in enumerate(path):
            following.setdefault(tuple(path[:level]), set()).add(token)
    lists = {prefix: sorted(after) for prefix, after in following.items()}
    return lambda _, ids: lists[tuple(ids[length:].tolist())]


def load_merged(path: Path | None) -> tuple[RecModel, str]:
    """Load a model directory's bundle with LoRA merged, and its name; the shipped model when no path is given.

    Raises:
        ArtifactError: the model does not exist or is damaged.
    """
    path = SHIPPED if path is None else Path(path)
    if not path.is_dir():
        raise ArtifactError(f"no model directory {str(path)!r}; --model is a directory made by `llmrec train`")
    catalog, _ = open_data(str(read_settings(path)["data"]))
    model = load_pretrained(path, catalog).model
    model.merge()
    return model, path.name


def plain_state(lm: Any) -> dict[str, torch.Tensor]:
    """The weights of a merged model under their names without adapters; shared, not copied.

    Raises:
        RequestError: LoRA is not merged.
    """
    if any(isinstance(m, LoraLayer) and not m.merged for m in lm.modules()):
        raise RequestError("the adapter is not merged into the weights; call merge() first")
    return {name.replace(".base_layer", ""): t for name, t in lm.state_dict().items() if "lora_" not in name}


def plain_copy(lm: Any, item_rows: torch.Tensor | None = None, item_head: torch.Tensor | None = None) -> Any:
    """Return a plain transformers model that shares the tensors; item tokens, if given, follow the words."""
    config = type(lm.config).from_dict(lm.config.to_dict())
    state = plain_state(lm)
    config.tie_word_embeddings = False
    words = state["model.embed_tokens.weight"]
    head = state.get("lm_head.weight", words)
    if item_rows is not None and item_head is not None:
        words, head = torch.cat([words, item_rows]), torch.cat([head, item_head])
        config.vocab_size = len(words)
    state |= {"model.embed_tokens.weight": words, "lm_head.weight": head}
    with torch.device("meta"):
        copy = type(lm)(config)
    missing, unexpected = copy.load_state_dict(state, strict=False, assign=True)
    if missing or unexpected:
        raise RequestError(f"{type(lm).__name__} cannot be copied: {', '.join([*missing, *unexpected][:3])}")
    copy.model.rotary_emb = lm.model.rotary_emb  # the rotary frequencies are not in the state dict
    copy.generation_config = GenerationConfig(pad_token_id=0, do_sample=False)  # type: ignore[no-untyped-call]
    return copy.requires_grad_(False).eval()


def even_masses(codes: Ints) -> npt.NDArray[np.float64]:
    """Log mass float64[n] that gives a node's children equal weight, so that the trie adds nothing to the logits."""
    out = np.zeros(len(codes))
    above = np.zeros(len(codes), np.int64)
    for level in range(codes.shape[1]):
        _, first, here = np.unique(codes[:, : level + 1], axis=0, return_index=True, return_inverse=True)
        out -= np.log(np.bincount(above[first])[above])
        above = here.reshape(-1)
    return out


def synthetic_pair(model: RecModel, seed: int, items: int = ITEMS, depth: int = DEPTH, size: int = SIZE) -> ModelPair:
    """Build both sides of the benchmark from the layers of `model` (merged), with a catalogue of random paths.

    Raises:
        RequestError: the word table of the architecture cannot take the item tokens.
    """
    if model.lm.config.model_type not in FAMILIES:
        raise RequestError(
            f"a benchmark beside `generate` is for {', '.join(FAMILIES)}, not {model.lm.config.model_type}"
        )
    rng = np.random.default_rng(seed)
    paths = rng.choice(size**depth, items, replace=False)
    codes = np.stack([paths // size ** (depth - 1 - level) % size for level in range(depth)], 1).astype(np.int32)
    book = rng.normal(size=(depth, size, 16)).astype(np.float32)
    lm = plain_copy(model.lm)
    bundle = RecModel(
        lm, model.tokenizer, SemanticIds(codes, book), model.encoder, ModelConfig(lora_rank=1, lora_alpha=1)
    )
    bundle.init_embeddings(rng.normal(size=(model.encoder.config.dim, 16)), seed)
    bundle.merge()
    scale = bundle.item_scale.detach().repeat_interleave(size)[:, None]
    rows = bundle.items.weight.detach()
    reference = plain_copy(lm, rows, rows * scale)
    # Probabilities over the allowed tokens, summed along the path, as this engine computes them.
    reference.generation_config.update(renormalize_logits=True, length_penalty=0.0)
    trie = Trie(codes, size, even_masses(codes.astype(np.int64)))
    return ModelPair(bundle, trie, reference, {tuple(path): row for row, path in enumerate(codes.tolist())})


def random_prompts(bundle: RecModel, users: int, length: int, seed: int) -> list[Rendered]:
    """Prompts of random words and item tokens, half and half, without control tokens and user slots."""
    rng = np.random.default_rng([seed, length])  # the first of many prompts equals the only prompt of one user
    vocab = bundle.vocab
    words = np.setdiff1d(np.arange(vocab.base), sorted(bundle.renderer.control))
    out = []
    for _ in range(users):
        items = vocab.tokens[rng.integers(0, vocab.n_items, length)].reshape(-1)
        ids = np.where(rng.random(length) < 0.5, rng.choice(words, length), items[:length])
        out.append(Rendered(ids, np.zeros(length, bool), np.zeros((0, bundle.encoder.config.dim), np.float32)))
    return out


def linear_parameters(lm: nn.Module) -> int:
    """Multiplications per token in the layers' matrices; merged adapters do not count."""
    return sum(
        p.numel() for name, p in lm.named_parameters() if ".layers." in name and p.dim() == 2 and "lora_" not in name
    )
