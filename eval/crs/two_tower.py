"""A small two-tower network: scores every film given the words and films so far, trained on mentions.

The query is the sum of three things: the films named so far (weighted by age and by who named them), the sentence
vectors of the latest turns, and the single words. A film is represented by its text vector, its attributes and a free
embedding, each in the same space, plus a bias initialised to its popularity. The loss is a softmax over the whole
catalogue with films named before masked out, so the network learns to predict the next new film.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from llmrec.data.catalog import Catalog
from llmrec.eval.crs.data import RECOMMENDER, SEEKER, CrsQuestions, Dialogue, Turn, questions_of
from llmrec.eval.crs.embeddings import CorpusVectors
from llmrec.ranker import Rows, Scores

NAMED = 12  # number of latest films of a context that are read
_WORD = re.compile(r"[a-z']+")
_NOT_NAMED = -1e4


@dataclass(frozen=True)
class TwoTowerSettings:
    """Sizes and training settings; the defaults were chosen on the validation split of ReDial.

    Attributes:
        dim: dimension of the shared space.
        dropout: dropout rate of inputs and queries.
        epochs: passes over the mentions.
        rate: peak learning rate of the one-cycle schedule.
        shrink: weight decay of the embeddings per step.
        seeker: weight of a film that the seeker names; films that the recommender names have weight 1.
        batch: mentions per step.
        word_count: minimum number of turns that contain a word for it to be used; an attribute value needs 3 films.
        seeds: number of networks that are averaged.
    """

    dim: int = 128
    dropout: float = 0.5
    epochs: int = 8
    rate: float = 3e-3
    shrink: float = 1e-3
    seeker: float = 0.5
    batch: int = 256
    word_count: int = 4
    seeds: int = 3


@dataclass(frozen=True, eq=False)
class TwoTowerInputs:
    """Contexts as arrays: `spoken` float32[q, 3 d], bags of words, and the films named, latest first.

    Attributes:
        spoken: what the seeker said, what the recommender said, the latest turn.
        words: int64, concatenated word numbers of all contexts.
        weights: float32, one per word.
        starts: int64[q + 1], offset of each context's words.
        named: int64[q, NAMED] rows, n where there is none.
        role: int64[q, NAMED], 1 where the seeker named the film.
    """

    spoken: torch.Tensor
    words: torch.Tensor
    weights: torch.Tensor
    starts: torch.Tensor
    named: torch.Tensor
    role: torch.Tensor

    def at(self, places: torch.Tensor) -> TwoTowerInputs:
        """Select the contexts at int64[p]."""
        lengths = (self.starts[1:] - self.starts[:-1])[places]
        starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        inside = torch.arange(int(starts[-1])) - torch.repeat_interleave(starts[:-1], lengths)
        chosen = torch.repeat_interleave(self.starts[:-1][places], lengths) + inside
        rest = (self.spoken[places], self.words[chosen], self.weights[chosen], starts)
        return TwoTowerInputs(*rest, self.named[places], self.role[places])


def word_numbers(dialogues: Sequence[Dialogue], least: int) -> dict[str, int]:
    """Number the words that occur in at least this many turns by decreasing count."""
    counts = Counter(word for one in dialogues for turn in one.turns for word in set(_words(turn)))
    kept = sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(kept)}


def two_tower_inputs(
    cases: CrsQuestions, vectors: CorpusVectors, numbers: dict[str, int], n_items: int, decay: float = 0.8
) -> TwoTowerInputs:
    """Build the network's inputs for each question; every later turn multiplies a turn's weight by `decay`."""
    q, d = len(cases), vectors.words.table.shape[1]
    spoken = np.zeros((q, 3, d), np.float32)
    named, role = np.full((q, NAMED), n_items), np.zeros((q, NAMED), np.int64)
    bags: list[tuple[list[int], list[float]]] = []
    for line, context in enumerate(cases.contexts()):
        bags.append(_read_words(context, spoken[line], vectors, numbers, decay))
        for place, (row, by_seeker) in enumerate(list(_named(context).items())[:NAMED]):
            named[line, place], role[line, place] = row, by_seeker
    spoken /= np.maximum(np.linalg.norm(spoken, axis=2, keepdims=True), 1.0)
    starts = np.concatenate([[0], np.cumsum([len(words) for words, _ in bags])]).astype(np.int64)
    words = np.array([number for one, _ in bags for number in one], np.int64)
    weights = np.array([weight for _, one in bags for weight in one], np.float32)
    arrays = (spoken.reshape(q, 3 * d), words, weights, starts, named, role)
    return TwoTowerInputs(*(torch.from_numpy(array) for array in arrays))


def _read_words(
    context: Sequence[Turn], spoken: Scores, vectors: CorpusVectors, numbers: dict[str, int], decay: float
) -> tuple[list[int], list[float]]:
    """Fill `spoken` float32[3, d] and return word numbers and weights; a word's number depends on who said it."""
    words: list[int] = []
    weights: list[float] = []
    for age, turn in enumerate(context[::-1]):
        seeker = turn.speaker == SEEKER
        vector = vectors.words.of([turn.words])[0] * min(1.0, len(turn.words) / 20)  # "ok" carries little meaning
        spoken[0 if seeker else 1] += vector * decay**age
        if age == 0:
            spoken[2] = vector
        known = sorted({numbers[word] for word in _words(turn) if word in numbers})
        words += [2 * number + seeker for number in known]
        weights += [decay**age] * len(known)
    return words, weights


def _words(turn: Turn) -> list[str]:
    return _WORD.findall(turn.words.casefold())


def _named(context: Sequence[Turn]) -> dict[int, bool]:
    """Rows named, latest first, and whether the seeker named them in that mention."""
    out: dict[int, bool] = {}
    for turn in reversed(context):
        for row in reversed(turn.rows):
            out.setdefault(row, turn.speaker == SEEKER)
    return out


class TwoTower(nn.Module):
    """The network.

    Args:
        texts: float32[n, d], text vectors of the films.
        values: numbers of each film's attribute values.
        n_words: number of distinct word numbers.
        bias: float32[n], initial biases of the films.
        settings: sizes.
    """

    texts: torch.Tensor
    values: torch.Tensor
    ends: torch.Tensor

    def __init__(
        self, texts: Scores, values: Sequence[Sequence[int]], n_words: int, bias: Scores, settings: TwoTowerSettings
    ) -> None:
        super().__init__()
        (n, d), dim = texts.shape, settings.dim
        flat = np.array([value for one in values for value in one], np.int64)
        ends = np.concatenate([[0], np.cumsum([len(one) for one in values])]).astype(np.int64)
        self.register_buffer("texts", torch.from_numpy(texts - texts.mean(axis=0)))
        self.register_buffer("values", torch.from_numpy(flat))
        self.register_buffer("ends", torch.from_numpy(ends))
        count = int(flat.max(initial=-1)) + 1
        self.projections = nn.ModuleList(nn.Linear(d, dim, bias=False) for _ in range(2))
        self.bags = nn.ModuleList(_table(max(count, 1), dim) for _ in range(2))
        self.free = nn.ModuleList(nn.Embedding(n, dim) for _ in range(2))
        self.spoken, self.words = nn.Linear(3 * d, dim), _table(max(n_words, 1), dim)
        for table in (*self.bags, *self.free, self.words):
            nn.init.normal_(table.weight, std=0.05)
        self.value_bias = _table(max(count, 1), 1)
        nn.init.zeros_(self.value_bias.weight)
        self.bias = nn.Parameter(torch.from_numpy(bias.astype(np.float32)))
        self.age, self.role = nn.Parameter(torch.linspace(0, -1.5, NAMED)), nn.Parameter(torch.zeros(2))
        self.dropout = nn.Dropout(settings.dropout)

    def _side(self, side: int) -> torch.Tensor:
        """float[n, dim]: embeddings of the films as answers (0) or as named films (1)."""
        text = self.dropout(self.projections[side](self.texts))
        attributes = self.bags[side](self.values, self.ends)
        return text + 0.5 * attributes + self.free[side].weight  # type: ignore[no-any-return]

    def forward(self, given: TwoTowerInputs) -> torch.Tensor:
        """float[q, n] scores."""
        answers, known = self._side(0), self._side(1)
        n = len(answers)
        weight = torch.exp(self.age + self.role[given.role]) * (given.named < n)
        if self.training:  # drop one named film in ten, so that the network relies on none
            weight = weight * (torch.rand_like(weight) > 0.1)
        taste = (known[given.named.clamp(max=n - 1)] * weight[..., None]).sum(1) / (weight.sum(1, keepdim=True) + 0.5)
        words = self.words(given.words, given.starts, per_sample_weights=given.weights)
        query = self.dropout(taste + self.spoken(self.dropout(given.spoken)) + 0.3 * words)
        return query @ answers.T + self.bias + self.value_bias(self.values, self.ends)[:, 0]  # type: ignore[no-any-return]


def _table(rows: int, dim: int) -> nn.EmbeddingBag:
    return nn.EmbeddingBag(rows, dim, mode="sum", include_last_offset=True)


def value_numbers(catalog: Catalog, least: int = 3) -> list[list[int]]:
    """Numbers of each film's attribute values; words need `least` films, numeric values are grouped by tens."""
    found: list[list[tuple[str, str]]] = []
    for item in catalog.items:
        own = [(name, word) for name, value in item.attributes.items() if isinstance(value, tuple) for word in value]
        tens = [(name, f"{value // 10}") for name, value in item.attributes.items() if isinstance(value, int)]
        found.append(own + tens)
    counts = Counter(one for own in found for one in own)
    numbers = {one: place for place, one in enumerate(sorted(one for one, count in counts.items() if count >= least))}
    return [[numbers[one] for one in own if one in numbers] for own in found]


@dataclass(frozen=True, eq=False)
class TwoTowerEnsemble:
    """Networks of several seeds, and their vocabulary."""

    nets: tuple[TwoTower, ...]
    numbers: dict[str, int]

    def log_probability(self, cases: CrsQuestions, vectors: CorpusVectors) -> Scores:
        """float32[q, n]: the mean of the networks' log-probabilities."""
        given = two_tower_inputs(cases, vectors, self.numbers, len(vectors.items))
        out = np.zeros((len(cases), len(vectors.items)), np.float32)
        with torch.inference_mode():
            for places in torch.arange(len(cases)).split(256):
                some = given.at(places)
                total = sum(torch.log_softmax(net(some), 1) for net in self.nets) / len(self.nets)
                out[places.numpy()] = total.numpy()  # type: ignore[union-attr]
        return out


def train_two_tower(
    dialogues: Sequence[Dialogue], catalog: Catalog, vectors: CorpusVectors, settings: TwoTowerSettings, seed: int
) -> TwoTowerEnsemble:
    """Train on every film that either speaker names for the first time."""
    cases = questions_of(dialogues, (RECOMMENDER, SEEKER))
    cases = cases.where(~cases.repeated)
    numbers = word_numbers(dialogues, settings.word_count)
    given = two_tower_inputs(cases, vectors, numbers, len(catalog))
    by = [cases.dialogues[d].turns[t].speaker for d, t in zip(cases.dialogue, cases.turn, strict=True)]
    recommended = np.array([speaker == RECOMMENDER for speaker in by], np.bool_)
    weights = np.where(recommended, 1.0, settings.seeker).astype(np.float32)
    bias = start_bias(cases.target[recommended], len(catalog))
    values = value_numbers(catalog)
    nets = []
    for number in range(settings.seeds):
        torch.manual_seed(seed + number)
        net = TwoTower(vectors.items, values, 2 * len(numbers), bias, settings)
        _fit(net, given, cases.target, weights, settings)
        nets.append(net.eval())
    return TwoTowerEnsemble(tuple(nets), numbers)


def start_bias(targets: Rows, n_items: int) -> Scores:
    """float32[n]: centred log popularity, with 0.3 added to every film's count."""
    counts = np.log(np.bincount(targets, minlength=n_items) + 0.3)
    return np.asarray(counts - counts.mean(), np.float32)


def _fit(net: TwoTower, given: TwoTowerInputs, targets: Rows, weights: Scores, settings: TwoTowerSettings) -> None:
    target, weight = torch.from_numpy(targets), torch.from_numpy(weights)
    optimiser = _optimiser(net, settings)
    # A tenth of the steps is warm-up, and OneCycleLR divides by one less than that number.
    steps = max(20, settings.epochs * -(-len(target) // settings.batch))
    rates = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.1)
    net.train()
    for _ in range(settings.epochs):
        for places in torch.randperm(len(target)).split(settings.batch):
            some = given.at(places)
            scores = net(some)
            spare = torch.cat([scores, scores.new_zeros(len(scores), 1)], 1)
            scores = spare.scatter(1, some.named, _NOT_NAMED)[:, :-1]
            losses = nn.functional.cross_entropy(scores, target[places], reduction="none")
            loss = (losses * weight[places]).sum() / weight[places].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def _optimiser(net: TwoTower, settings: TwoTowerSettings) -> torch.optim.Optimizer:
    """Strong weight decay for tables, little for projections; biases learn slowly and without decay."""
    tables: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        if name != "bias":
            (tables if name.startswith(("bags", "free", "words", "value_bias")) else rest).append(parameter)
    rate = settings.rate
    return torch.optim.AdamW(
        [
            {"params": tables, "lr": rate, "weight_decay": settings.shrink / rate},
            {"params": rest, "lr": rate, "weight_decay": settings.shrink / rate / 100},
            {"params": [net.bias], "lr": rate / 3, "weight_decay": 0.0},
        ]
    )
