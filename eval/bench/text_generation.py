"""Benchmarks text generation against transformers' greedy `generate`, and the perplexity cost of int8."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmrec.decoding.text_generation import generate_text
from llmrec.errors import DataError
from llmrec.eval.bench.decoding_costs import time_call
from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Message, Rendered, Text
from llmrec.lm.runtime.hf_backend import build_transformer
from llmrec.lm.runtime.int8 import Int8Weights, int8_weights
from llmrec.lm.runtime.kv_cache import Chunk, KVCache
from llmrec.lm.runtime.transformer import Transformer

QUESTIONS = (
    "Why might somebody who likes quiet family dramas enjoy an old western?",
    "Describe a good evening with friends and a comedy in three sentences.",
    "What makes a thriller exciting? Answer for a person who has never seen one.",
)
BLOCK = 256


@dataclass(frozen=True)
class TextSpeed:
    """Tokens per second, medians over questions and repeats, and how often float32 gave the same text as `generate`."""

    reference: float
    float32: float
    int8: float | None
    same_words: float


def questions(model: RecModel) -> list[Rendered]:
    """Short questions as prompts, each ready for the answer to begin."""
    render = model.renderer.render
    return [render([Message("user", (Text(q),)), Message("assistant", (), open=True)]) for q in QUESTIONS]


def generate_words(lm: Any, model: RecModel, prompt: Rendered, tokens: int) -> tuple[str, int]:
    """Text from greedy `generate` and its number of tokens, including the end marker."""
    ids = torch.from_numpy(prompt.ids)[None]
    stop = model.renderer.chat.stop
    with torch.inference_mode():
        out = lm.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            eos_token_id=stop,
            suppress_tokens=sorted(model.renderer.control - {stop}),
        )[0, len(prompt.ids) :].tolist()
    return model.renderer.decode_text([i for i in out if i != stop]), len(out)


def text_speed(model: RecModel, lm: Any, tokens: int, repeats: int) -> TextSpeed:
    """Time all three on the same questions, taking turns; all times include reading the prompt."""
    weights = int8_weights(model)
    seconds: dict[str, list[float]] = {"reference": [], "float32": [], "int8": []}
    same = []
    for prompt in questions(model) * repeats:
        (expected, count), spent = time_call(lambda p=prompt: generate_words(lm, model, p, tokens))  # type: ignore[misc]
        seconds["reference"].append(count / spent)
        words, spent = time_call(lambda p=prompt: _streamed(model, p, tokens, None))  # type: ignore[misc]
        seconds["float32"].append(count / spent)
        same.append(words == expected.rstrip("\ufffd"))
        if weights is not None:
            counted = _Counted(weights)
            _, spent = time_call(lambda p=prompt, w=counted: _streamed(model, p, tokens, w))  # type: ignore[misc]
            seconds["int8"].append(counted.tokens / spent)
    median = {name: float(np.median(values)) if values else None for name, values in seconds.items()}
    return TextSpeed(median["reference"] or 0.0, median["float32"] or 0.0, median["int8"], float(np.mean(same)))


def _streamed(model: RecModel, prompt: Rendered, tokens: int, weights: Int8Weights | None) -> str:
    return "".join(generate_text(model, prompt, tokens, seconds=600, repetition=1.0, weights=weights))


class _Counted(Int8Weights):
    """Weights that count the tokens requested from them, including the end marker."""

    def __init__(self, weights: Int8Weights) -> None:
        super().__init__(weights.transformer, weights.lm_head)
        object.__setattr__(self, "tokens", 0)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """As `Int8Weights.head`, and counts the call."""
        object.__setattr__(self, "tokens", self.tokens + 1)
        return super().head(hidden)

    tokens: int


@torch.inference_mode()
def perplexity_ratio(model: RecModel, text: Path, blocks: int = 8, seed: int = 0) -> float:
    """Ratio of the perplexity in eight bits to that in float32, on `blocks` blocks of a UTF-8 text (.gz or plain).

    Raises:
        DataError: the text is too short, or the model cannot be run in eight bits here.
    """
    weights = int8_weights(model)
    if weights is None:
        raise DataError("this model cannot be run in eight bits on this machine")
    opener: Any = gzip.open if text.suffix == ".gz" else open
    with opener(text, "rt", encoding="utf-8") as handle:
        ids = np.asarray(model.renderer.encode_text(handle.read(2_000_000)), np.int64)
    whole = ids[: len(ids) // BLOCK * BLOCK].reshape(-1, BLOCK)
    if len(whole) < blocks:
        raise DataError(f"{text} has {len(ids)} tokens; {blocks} blocks need {blocks * BLOCK}")
    chosen = whole[np.sort(np.random.default_rng(seed).choice(len(whole), blocks, replace=False))]
    exact = _nats(model, build_transformer(model.lm), model.word_logits, chosen)
    near = _nats(model, weights.transformer, lambda x: weights.lm_head(x)[0], chosen)
    return float(np.exp(near - exact))


def _nats(
    model: RecModel,
    transformer: Transformer,
    head: Callable[[torch.Tensor], torch.Tensor],
    blocks: np.ndarray[Any, np.dtype[np.int64]],
) -> float:
    """Mean nats per token, each block scored by itself."""
    total = 0.0
    for block in blocks:
        ids = torch.from_numpy(block)
        cache = KVCache(transformer.layout, len(ids))
        hidden = transformer.forward(model.word_embedding(ids).float(), [Chunk.following(cache, len(ids))])
        total += float(torch.nn.functional.cross_entropy(head(hidden[:-1]).float(), ids[1:], reduction="sum"))
    return total / (blocks.size - len(blocks))
