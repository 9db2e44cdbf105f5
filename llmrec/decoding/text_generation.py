"""Streaming text generation: greedy decoding with a DRY repetition penalty.

Small models fall into loops. A token that would continue a repetition of generated text is penalised, and the penalty
grows with the length of the repetition (DRY, P. E. Weidmann 2024). Unlike a penalty on every token that has occurred,
this does not penalise single words, names and punctuation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import torch

from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Rendered, Renderer
from llmrec.lm.runtime.hf_backend import build_transformer
from llmrec.lm.runtime.int8 import Int8Weights
from llmrec.lm.runtime.kv_cache import Chunk
from llmrec.lm.runtime.onednn import prepacked_head
from llmrec.lm.runtime.prefill import check_length, prefill
from llmrec.lm.runtime.prefix_cache import PrefixCache
from llmrec.lm.runtime.transformer import CancelCheck

# Repetitions of up to this many tokens are normal language. The penalty starts at this length, with PENALTY nats.
FREE_REPETITION = 2
PENALTY = 0.8


class _Stopped(Exception):
    """Generation was cancelled, or its time limit is reached."""


@torch.inference_mode()
def generate_text(
    model: RecModel,
    prompt: Rendered,
    max_tokens: int = 80,
    seconds: float = 20.0,
    stop: threading.Event | None = None,
    repetition: float = 1.75,
    prefixes: PrefixCache | None = None,
    weights: Int8Weights | None = None,
) -> Iterator[str]:
    """Stream generated text in pieces until the end-of-turn token; an incomplete last character is left out.

    Args:
        model: the bundle; merged is faster.
        prompt: a rendered conversation whose last message is open.
        max_tokens: limit of generated tokens; the model's context is a limit, too.
        seconds: wall-clock limit, prefill included; checked before every layer.
        stop: cancels generation as soon as it is set, even within a token or during the prefill.
        repetition: factor by which the penalty grows with every repeated token; 1 for plain greedy decoding.
        prefixes: prefix cache; segments found there are not computed again, new ones are added.
        weights: int8 weights of the model, from `int8_weights`; several times faster on a CPU.

    Raises:
        RequestError: a prompt that is empty or fills the model's context.
    """
    deadline = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() >= deadline or (stop is not None and stop.is_set()):
            raise _Stopped

    check_length(model, len(prompt.ids), 1, "an answer")
    limit = int(model.lm.config.get_text_config().max_position_embeddings)
    room = min(max_tokens, limit - len(prompt.ids))
    try:
        yield from _generate(model, prompt, room, check, repetition, prefixes, weights)
    except _Stopped:
        return


def _generate(
    model: RecModel,
    prompt: Rendered,
    room: int,
    check: CancelCheck,
    repetition: float,
    prefixes: PrefixCache | None,
    weights: Int8Weights | None,
) -> Iterator[str]:
    if room < 1:
        return
    transformer = build_transformer(model.lm)
    first = prefill(model, transformer, [prompt], [room], prefixes, check)[0]
    steps, head = (transformer, prepacked_head(model.lm)) if weights is None else (weights.transformer, weights.head)
    control = sorted(model.renderer.control - {model.renderer.chat.stop})
    forbidden = torch.tensor(control, dtype=torch.long, device=model.device)
    said: list[int] = []
    text = _Text(model.renderer)
    hidden = first.hidden
    while True:
        check()
        logits = head(hidden).float().index_fill_(0, forbidden, -torch.inf)
        if repetition != 1.0:
            penalise_repetition(logits, said, repetition)
        token = int(logits.argmax())
        if token == model.renderer.chat.stop:
            return
        said.append(token)
        piece = text.add(token)
        if piece:
            yield piece
        if len(said) >= room:
            return
        x = model.word_embedding(torch.tensor([token], device=model.device)).float()
        hidden = steps.forward(x, [Chunk.following(first.cache, 1)], check=check)[0]


def penalise_repetition(logits: torch.Tensor, said: Sequence[int], growth: float) -> None:
    """Lower the logits float[words] of tokens that would lengthen a repetition in `said`, in place.

    For every earlier occurrence of the last n >= FREE_REPETITION tokens, the token that followed it loses
    PENALTY * growth ** (n - FREE_REPETITION).
    """
    longest: dict[int, int] = {}
    for end in range(FREE_REPETITION, len(said)):
        # compare the tokens before said[end] with the last tokens of `said`
        n = 0
        while n < end and said[end - 1 - n] == said[-1 - n]:
            n += 1
        if n >= FREE_REPETITION:
            longest[said[end]] = max(n, longest.get(said[end], 0))
    for token, n in longest.items():
        logits[token] -= PENALTY * growth ** (n - FREE_REPETITION)


class _Text:
    """Incremental detokenisation that works even if a tokenizer decodes the start of a text differently."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.ids: list[int] = []
        self.context = self.done = 0  # ids from `context` to `done` are decoded again only as context for later ids

    def add(self, token: int) -> str:
        """The text that a token adds; empty while a character is incomplete."""
        self.ids.append(token)
        before = self.renderer.decode_text(self.ids[self.context : self.done])
        now = self.renderer.decode_text(self.ids[self.context :])
        if now.endswith("\ufffd") or not now.startswith(before):
            return ""
        self.context, self.done = self.done, len(self.ids)
        return now[len(before) :]
