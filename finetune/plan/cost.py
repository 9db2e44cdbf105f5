"""Cost model of training: floating-point operations counted from the shapes, memory, and measured matrix rates.

Only necessary arithmetic is counted, at two operations per multiply-add: no padding, causal attention as half a square,
only logits that carry a loss, and no gradients for frozen weights. Norms, activations and the optimizer are not
counted; they are less than a hundredth of the total. The floor of a run is the time that these operations take at the
rate of a plain matrix product. Measured time divided by the floor shows how efficient an engine is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from llmrec.data.interactions import Split, fusion_users, model_selection_users
from llmrec.encoders.training import FULL_LIMIT, SAMPLE
from llmrec.finetune.data.packing import Pack
from llmrec.finetune.recipe import EngineSettings, Recipe
from llmrec.finetune.train.linear_cross_entropy import CHUNK
from llmrec.finetune.train.validation import BEAM_WIDTH
from llmrec.lm.model import ModelConfig
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.ranking.fusion import PRIOR_WEIGHTS
from llmrec.ranking.fusion_candidates import MAX_USERS, TOP_PER_PART, UNIFORM_SAMPLE
from llmrec.ranking.scorer import SMALL_TRIE_NODES
from llmrec.semantic_ids.rqvae import RqVaeConfig


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a Llama-style decoder.

    Attributes:
        hidden: width of the residual stream.
        layers: number of blocks.
        query: query heads times their width.
        key: key heads times their width.
        intermediate: width of the gated perceptron.
        words: rows of the word table.
        tied: whether the output head is the word table.
        context: largest number of positions.
    """

    hidden: int
    layers: int
    query: int
    key: int
    intermediate: int
    words: int
    tied: bool
    context: int

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """The sizes (in, out) of the linear layers of one block: q, k, v, o, gate, up, down."""
        h, q, k, i = self.hidden, self.query, self.key, self.intermediate
        return (h, q), (h, k), (h, k), (q, h), (h, i), (h, i), (i, h)

    @property
    def weights(self) -> int:
        """Number of weights in the body's linear layers; forward, a token takes two operations per weight."""
        return self.layers * sum(a * b for a, b in self.linears)

    @property
    def parameters(self) -> int:
        """Number of weights of the base model without the norms."""
        return self.weights + self.words * self.hidden * (1 if self.tied else 2)


def decoder_shape(config: Any) -> DecoderShape:
    """Return the sizes in a transformers configuration; for a multimodal model, those of its language part."""
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return DecoderShape(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        query=text.num_attention_heads * width,
        key=text.num_key_value_heads * width,
        intermediate=text.intermediate_size,
        words=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
        context=text.max_position_embeddings,
    )


@dataclass(frozen=True)
class AddedParameters:
    """Number of trained parameters in each group."""

    lora: int
    items: int
    adapter: int

    @property
    def total(self) -> int:
        """Number of all trained parameters."""
        return self.lora + self.items + self.adapter


def added_parameters(body: DecoderShape, settings: ModelConfig, depth: int, size: int, dim: int) -> AddedParameters:
    """Count what `RecModel` adds to a base model for `depth` levels of `size` codes and user vectors float[dim]."""
    lora = body.layers * settings.lora_rank * sum(a + b for a, b in body.linears)
    slots, width = settings.user_slots * body.hidden, settings.adapter_width
    adapter = 2 * dim + (dim + 1) * slots + (dim + 1) * width + width * slots
    return AddedParameters(lora, depth * size * body.hidden + depth, adapter)


def pack_flops(
    body: DecoderShape, settings: ModelConfig, size: int, pack: Pack, kl: float, recompute: bool
) -> dict[str, float]:
    """Count the operations of one forward and backward pass over a pack, by part.

    Args:
        body: sizes of the base model.
        settings: sizes of the added parts.
        size: codes per level.
        pack: the documents.
        kl: weight of the divergence from the base model; if it is above 0, the base model also reads the text
            documents.
        recompute: whether gradient checkpointing runs the body's forward pass twice.
    """
    t, forwards = pack.tokens, 2 if recompute else 1
    low = body.layers * settings.lora_rank * sum(a + b for a, b in body.linears)
    pairs = sum(n * (n + 1) / 2 for n in pack.lengths)
    attention = 4.0 * pairs * body.query * body.layers  # scores and values, forward
    slots, width = settings.user_slots * body.hidden, settings.adapter_width
    dim = pack.users.shape[1]
    return {
        "body": 2.0 * body.weights * t * (forwards + 1),  # the weights are frozen: no gradient for them
        "lora": 2.0 * low * t * (forwards + 2),
        "attention": attention * (forwards + 2),
        "items": 6.0 * sum(len(level) for level in pack.levels) * size * body.hidden,
        "words": (4.0 * len(pack.words) + (6.0 if kl else 4.0) * len(pack.text)) * body.words * body.hidden,
        "adapter": 6.0 * len(pack.users) * (dim * slots + dim * width + width * slots),
        "kl": _base_pass(body, pack) if kl else 0.0,
    }


def _base_pass(body: DecoderShape, pack: Pack) -> float:
    """Count the operations of the base model's forward pass over the text documents."""
    pairs, passed = 0.0, 0
    for n in pack.lengths:
        pairs += n * (n + 1) / 2 if passed >= pack.text_start else 0.0
        passed += n
    return 2.0 * body.weights * (pack.tokens - pack.text_start) + 4.0 * pairs * body.query * body.layers


def total_flops(parts: Mapping[str, float]) -> float:
    """Return the sum over all parts."""
    return sum(parts.values())


def frozen_flops(parts: Mapping[str, float]) -> float:
    """Return the operations of products with frozen weights, whose number format is `EngineSettings.products`."""
    return parts["body"] + parts["kl"]


def activation_floats(body: DecoderShape, rank: int) -> int:
    """Return how many numbers one block keeps per token for the backward pass.

    Each of the two norms keeps its input and one output, which q, k and v (or gate and up) share. Attention keeps
    query, key and value (repeated to all heads) and its result twice. The gated perceptron keeps gate, its activation,
    up and their product. Each LoRA layer keeps its low-rank product.
    """
    return 4 * body.hidden + 5 * body.query + 4 * body.intermediate + len(body.linears) * rank


def training_bytes(
    body: DecoderShape, rank: int, added: AddedParameters, tokens: int, engine: EngineSettings
) -> dict[str, int]:
    """Return the bytes held at the peak of a step over `tokens` tokens, by part, without the program itself.

    Trained parameters are float32 with a gradient and two moments. The base model and the activations use the recipe's
    number format. With gradient checkpointing, only the input of each block is kept, plus one block in full. NF4 takes
    half a byte per weight, and a tenth more for its scales. bfloat16 products need a copy of the frozen weights in that
    format.

    Args:
        body: sizes of the base model.
        rank: LoRA rank.
        added: trained parameters.
        tokens: tokens of one pack.
        engine: numerical settings.
    """
    four_bit = engine.quantize == "4bit"
    each = 2 if four_bit or engine.precision == "bfloat16" else 4
    block = activation_floats(body, rank)
    kept = body.layers * body.hidden + block if engine.gradient_checkpointing else body.layers * block
    return {
        "base": (body.parameters - body.weights) * each + round(body.weights * (0.55 if four_bit else each)),
        "copy": body.weights * 2 if engine.format == "bfloat16" else 0,
        "trained": added.total * 16,
        "activations": kept * tokens * each,
        "logits": 3 * CHUNK * body.words * 4,
    }


@torch.no_grad()
def matmul_rate(body: DecoderShape, tokens: int, seconds: float, matmul_dtype: MatmulDtype = "float32") -> float:
    """Measure plain matrix products at the shapes of one block, forward and backward, in operations per second.

    Repeats the forward products [tokens, in] x [in, out] and the products that give the gradients of the inputs for
    about `seconds`, at least once after one warm-up round, and takes the median round.
    """
    kind = torch.bfloat16 if matmul_dtype == "bfloat16" else torch.float32
    made = [(torch.randn(tokens, a), torch.randn(b, a), torch.randn(tokens, b)) for a, b in body.linears]
    pairs = [tuple(one.to(kind) for one in three) for three in made]
    operations = sum(4.0 * tokens * a * b for a, b in body.linears)
    rounds: list[float] = []
    end = time.perf_counter() + seconds
    while len(rounds) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        for x, weight, gradient in pairs:
            x @ weight.T
            gradient @ weight
        rounds.append(time.perf_counter() - start)
    return operations / statistics.median(rounds[1:])


# Share of a plain product's rate that each stage reaches. Measured with one thread on MovieLens-100k, in CPU time, at
# 45 GFLOP/s for plain products: 400 descriptions 2.7 s, an epoch of HSTU 5.4 s, codes .4 to .9 s, a fusion request
# .6 s. Replay is derived from 250 tokens/s of SmolLM2-135M. The others are guesses: validation decodes beams, and
# fitting the fusion weights consists of sums rather than matrix products.
REACHED: Mapping[str, float] = {
    "text": 0.8,
    "encoder": 0.45,
    "crossfit": 0.45,
    "semantic_ids": 0.25,
    "replay": 0.4,
    "validation": 0.3,
    "fusion": 0.75,
    "fusion weights": 0.01,
}
OF_THE_LANGUAGE_MODEL = ("replay", "fine-tuning", "validation", "fusion")  # run on its device: a GPU if there is one
_MINILM = 2.0 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # operations per token
_CHARACTERS = 4.0  # per token
_CUT = 256  # most tokens of a description
_AROUND = 24  # tokens of a prompt in addition to the items
_KMEANS = 4 * 30  # starts times rounds
_FITS, _ROUNDS, _EACH_NUMBER = 11, 60, 8.0  # fits per fusion, likelihood evaluations, operations per value


@dataclass(frozen=True)
class StageSizes:
    """The inputs that the operation counts of the stages depend on.

    Attributes:
        recipe: all settings.
        body: sizes of the base model.
        split: the interactions.
        items: number of items in the catalogue.
        new_texts: descriptions that have no vector yet.
    """

    recipe: Recipe
    body: DecoderShape
    split: Split
    items: int
    new_texts: Sequence[str]


def stage_operations(of: StageSizes) -> dict[str, float]:
    """Count the operations of every stage except fine-tuning, by name, without stages that the recipe does not use."""
    recipe = of.recipe
    encoder = _encoder(of)
    folds = recipe.traffic.folds
    replay = recipe.traffic.passages * recipe.traffic.passage_tokens if "replay" in recipe.traffic.shares else 0
    out = {
        "text": _MINILM * sum(min(len(text) / _CHARACTERS, _CUT) + 2 for text in of.new_texts),
        "encoder": encoder,
        "crossfit": encoder * max(0, folds - 1),  # each fold is fitted on the users of the others
        "semantic_ids": _semantic_ids(of),
        "replay": replay * 2.0 * (of.body.weights + of.body.words * of.body.hidden),
        "validation": _validation(of),
        "fusion": 2 * len(_asked(of)) * (_prompt(of) + _nodes(of)) * 2.0 * of.body.weights,
        "fusion weights": 2.0 * len(_asked(of)) * _columns(of) * len(PRIOR_WEIGHTS) * _FITS * _ROUNDS * _EACH_NUMBER,
    }
    return {name: count for name, count in out.items() if count or name in ("text", "encoder", "semantic_ids")}


def _encoder(of: StageSizes) -> float:
    """Count the operations of all epochs; training may stop earlier."""
    config, train = of.recipe.encoder, of.split.train
    targets = max(0, len(train) - len(train.users))
    softmax = config.negatives or (SAMPLE if of.items > FULL_LIMIT else of.items)
    each = 0.0
    for part in config.parts:
        each += 6.0 * softmax * part.dim + 6.0 * part.layers * 6 * part.dim**2
    return config.epochs * targets * each


def _semantic_ids(of: StageSizes) -> float:
    settings = of.recipe.semantic_ids
    dims = settings.text_dims + of.recipe.encoder.dim
    if settings.method == "kmeans":
        return 2.0 * of.items * settings.size * dims * settings.depth * _KMEANS
    config = RqVaeConfig()
    widths = (dims, *config.hidden, config.latent)
    weights = 2 * sum(a * b for a, b in pairwise(widths))
    return 6.0 * of.items * config.epochs * (weights + settings.depth * settings.size * config.latent)


def _prompt(of: StageSizes) -> float:
    """Return the mean number of tokens in a prompt."""
    lengths = np.diff(of.split.train.offsets).clip(max=of.recipe.traffic.window)
    shape = of.recipe.semantic_ids
    return float(lengths.mean() if len(lengths) else 0.0) * shape.depth + of.recipe.model.user_slots + _AROUND


def _validation(of: StageSizes) -> float:
    schedule = of.recipe.schedule
    if not schedule.validate_tokens:
        return 0.0
    users = min(schedule.validate_users, len(model_selection_users(of.split)))
    read = _prompt(of) + BEAM_WIDTH * (of.recipe.semantic_ids.depth - 1)
    times = max(1, schedule.tokens // schedule.validate_tokens)  # a shorter run validates at its end
    return times * users * read * 2.0 * of.body.weights


def _levels(of: StageSizes) -> list[int]:
    """Return the number of trie nodes at each level above the items."""
    shape = of.recipe.semantic_ids
    return [min(shape.size ** (level + 1), of.items) for level in range(shape.depth - 1)]


def _small(of: StageSizes) -> bool:
    return sum(_levels(of)) <= SMALL_TRIE_NODES


def _columns(of: StageSizes) -> int:
    """Return the number of items per request that the fusion weights are fitted on."""
    return of.items if _small(of) else min(of.items, TOP_PER_PART * (len(PRIOR_WEIGHTS) - 2) + UNIFORM_SAMPLE)


def _nodes(of: StageSizes) -> int:
    """Return the number of trie nodes that the language model reads per request."""
    return sum(min(level, _columns(of)) for level in _levels(of))


def _asked(of: StageSizes) -> np.ndarray:
    users = fusion_users(of.split)
    return users if _small(of) else users[:MAX_USERS]
