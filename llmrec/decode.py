"""Items and words out of the language model.

`items`: beams over the trie with one prefill for any number of beams. The beams of a request are not copies of its
prompt: they are further tokens of the same sequence, and a tree mask lets each see the prompt and its own ancestors
alone. A level's log-probabilities are a softmax over the children that exist in the catalogue (logits plus the trie's
prior), the same normalisation as in training; a filter removes items from the result and changes no score. The last
level needs no forward pass: its codes are scored from the beams' hidden states. Paths of the trie are all that can come
out.

`stream`: words, greedily, with limits on tokens and wall-clock time and a stop that stops.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from llmrec.errors import RequestError
from llmrec.model import RecModel
from llmrec.render import Rendered
from llmrec.trie import Trie


@dataclass(frozen=True, eq=False)
class Decoded:
    """Rows int64[m], best first, and their log-probabilities float32[m]; m may be less than was asked for."""

    rows: np.ndarray
    scores: np.ndarray


@torch.inference_mode()
def items(
    model: RecModel,
    trie: Trie,
    prompts: Sequence[Rendered],
    k: int,
    beams: int | None = None,
    allowed: Sequence[np.ndarray | None] | None = None,
) -> list[Decoded]:
    """The k best items for each prompt.

    Args:
        model: the bundle; merged or not.
        trie: the catalogue's paths.
        prompts: rendered conversations, of any lengths.
        k: how many items; fewer come back when fewer are allowed or reached.
        beams: paths kept a level; None keeps all, which makes the ranking exact (teacher-forced scoring of all items).
        allowed: bool[n] for each prompt, or None for no filter.

    Raises:
        RequestError: k or beams below 1, or a prompt longer than the model's context.
    """
    if k < 1 or (beams is not None and beams < 1):
        raise RequestError(f"k and beams must be at least 1, got k={k}, beams={beams}")
    if not prompts:
        return []
    open_nodes = [trie.narrow(a) for a in (allowed or [None] * len(prompts))]
    cache, last, tree = _prefill(model, prompts, trie.depth)
    # state of the beams: node and score, [b, beams]; node -1 is no beam
    node = np.zeros((len(prompts), 1), np.int64)
    score = torch.zeros(len(prompts), 1)
    hidden = last[:, None]
    for level in range(trie.depth):
        width = k if level == trie.depth - 1 else beams
        child, total = _expand(model, trie, open_nodes, level, node, score, hidden)
        score, flat = _best(total, width)
        parent = torch.div(flat, trie.size, rounding_mode="floor")
        node = np.take_along_axis(child, flat.numpy(), axis=1)
        node = np.where(torch.isfinite(score).numpy(), node, -1)
        if level < trie.depth - 1:
            code = (flat % trie.size).to(model.device) + model.vocab.base + level * trie.size
            hidden = tree.step(model, cache, code, parent)
    return [_decoded(trie, n, s) for n, s in zip(node, score.numpy(), strict=True)]


def _expand(
    model: RecModel,
    trie: Trie,
    open_nodes: list[list[np.ndarray]],
    level: int,
    node: np.ndarray,
    score: torch.Tensor,
    hidden: torch.Tensor,
) -> tuple[np.ndarray, torch.Tensor]:
    """Children int[b, beams * size] and their scores float32[b, beams * size], -inf where closed or absent."""
    b, width = node.shape
    child = trie.children(level, np.maximum(node, 0).reshape(-1)).reshape(b, width, trie.size)
    child[node < 0] = -1
    logits = model.level_logits(hidden, level).float().cpu() + torch.from_numpy(trie.priors(level, child))
    logp = torch.log_softmax(logits, dim=-1).nan_to_num(nan=-torch.inf)
    is_open = np.stack([nodes[level][np.maximum(c, 0)] for nodes, c in zip(open_nodes, child, strict=True)])
    keep = torch.from_numpy((child >= 0) & is_open)
    total = (score[..., None] + logp).masked_fill(~keep, -torch.inf)
    return child.reshape(b, -1), total.reshape(b, -1)


def _best(total: torch.Tensor, width: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The best `width` of each line, trailing columns without any finite score cut; stable, so ties go by position."""
    finite = int(torch.isfinite(total).sum(dim=1).max())
    width = max(1, min(finite, total.shape[1] if width is None else width))
    score, flat = torch.sort(total, dim=1, descending=True, stable=True)
    return score[:, :width], flat[:, :width]


def _decoded(trie: Trie, node: np.ndarray, score: np.ndarray) -> Decoded:
    kept = node >= 0
    rows, scores = trie.row(node[kept]), score[kept]
    order = np.lexsort((rows, -scores))  # ties by row, as every ranker does
    return Decoded(rows[order], scores[order].astype(np.float32))


class _Tree:
    """Attention and positions of the beam tokens that follow a shared prompt."""

    def __init__(self, pad: torch.Tensor, lengths: torch.Tensor, dtype: torch.dtype) -> None:
        self.visible = pad[:, None, :]  # bool[b, 1, t]: which cached tokens a query may see
        self.next = lengths  # int[b]: the position of the next token
        self.dtype = dtype

    def step(self, model: RecModel, cache: DynamicCache, tokens: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
        """One level of beam tokens int[b, w] whose ancestors are `parent` int[b, w]; hidden states float[b, w, h]."""
        b, w = tokens.shape
        seen = self.visible
        if seen.shape[1] > 1:
            seen = seen.gather(1, parent.to(seen.device)[..., None].expand(b, w, seen.shape[2]))
        own = torch.eye(w, dtype=torch.bool, device=seen.device).expand(b, w, w)
        self.visible = torch.cat([seen.expand(b, w, -1), own], dim=2)
        hidden = model.hidden(
            model.embed(tokens, torch.zeros(0, model.adapter.dim, device=tokens.device)),
            attention_mask=_additive(self.visible, self.dtype),
            position_ids=self.next[:, None].expand(b, w),
            past_key_values=cache,
            use_cache=True,
        )
        self.next = self.next + 1
        return hidden


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """bool[b, q, t] -> float[b, 1, q, t], 0 where visible and the lowest number elsewhere."""
    lowest = torch.finfo(dtype).min
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, lowest)[:, None]


def _prefill(model: RecModel, prompts: Sequence[Rendered], more: int) -> tuple[DynamicCache, torch.Tensor, _Tree]:
    """Run the prompts (left padded); the cache, the last hidden states float[b, h] and the tree mask."""
    lengths = torch.tensor([len(p.ids) for p in prompts], device=model.device)
    longest = int(lengths.max())
    limit = int(model.lm.config.max_position_embeddings)
    if longest + more > limit:
        raise RequestError(f"the prompt has {longest} tokens; with {more} for the item the context holds {limit}")
    ids = torch.zeros(len(prompts), longest, dtype=torch.long, device=model.device)
    for line, prompt in zip(ids, prompts, strict=True):
        line[longest - len(prompt.ids) :] = torch.from_numpy(prompt.ids)
    pad = torch.arange(longest, device=model.device)[None] >= longest - lengths[:, None]
    users = torch.from_numpy(np.concatenate([p.users for p in prompts])).to(model.device)
    embeds = model.embed(ids, users)
    kwargs = {}
    if len(prompts) > 1 and int(lengths.min()) < longest:  # one length needs no mask: the fast causal kernel
        causal = torch.ones(longest, longest, dtype=torch.bool, device=model.device).tril()
        own = torch.eye(longest, dtype=torch.bool, device=model.device)  # a padding token sees itself: no 0 / 0
        kwargs["attention_mask"] = _additive(causal & pad[:, None, :] | own, embeds.dtype)
        kwargs["position_ids"] = (pad.long().cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.lm.config)
    hidden = model.hidden(embeds, past_key_values=cache, use_cache=True, **kwargs)
    return cache, hidden[:, -1], _Tree(pad, lengths, embeds.dtype)


@torch.inference_mode()
def stream(
    model: RecModel,
    prompt: Rendered,
    max_tokens: int = 80,
    seconds: float = 20.0,
    stop: threading.Event | None = None,
    repetition: float = 1.15,
) -> Iterator[str]:
    """Words one piece at a time, greedy with a penalty on what was already said (`repetition`, Keskar et al. 2019).

    Ends at the end-of-turn marker, after `max_tokens`, after `seconds`, or as soon as `stop` is set.
    """
    deadline = time.monotonic() + seconds
    ids = torch.from_numpy(prompt.ids)[None].to(model.device)
    cache = DynamicCache(config=model.lm.config)
    embeds = model.embed(ids, torch.from_numpy(prompt.users).to(model.device))
    said: list[int] = []
    written = ""
    control = torch.tensor(sorted(model.renderer.control - {model.renderer.chat.stop}), device=model.device)
    while len(said) < max_tokens and time.monotonic() < deadline and not (stop is not None and stop.is_set()):
        hidden = model.hidden(embeds, past_key_values=cache, use_cache=True)
        logits = model.word_logits(hidden[0, -1]).float()
        logits[control] = -torch.inf
        if said:
            used = torch.tensor(sorted(set(said)), device=model.device)
            values = logits[used]
            logits[used] = torch.where(values > 0, values / repetition, values * repetition)
        token = int(logits.argmax())
        if token == model.renderer.chat.stop:
            break
        said.append(token)
        text = model.renderer.text(said)
        if not text.endswith("\ufffd") and text.startswith(written):  # half a character waits for its other half
            if text != written:
                yield text[len(written) :]
            written = text
        embeds = model.words(torch.tensor([[token]], device=model.device))
