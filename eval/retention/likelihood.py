"""Log-probabilities of running text under the language model; for continuations of a context see `continuations`.

The definitions are those of lm-evaluation-harness (`loglikelihood`, `loglikelihood_rolling`), whose library is not
used. It would add forty packages to replace the few lines that remain after tokens are scored. Scoring has to be our
own in any case: text becomes ids in `lm.rendering`, logits come from the model's own head (without item tokens), and
the continuations of one context are scored in one pass.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from llmrec.errors import DataError
from llmrec.lm.model import RecModel

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SCORING = 1  # incremented whenever the same tokens would get other scores or replies
TOKENS = 2048  # tokens per batch: enough rows for matrix products to reach full speed on a few cores


def read_text(path: Path) -> str:
    """Read a UTF-8 file, decompressed if its name ends in .gz or .bz2.

    Raises:
        DataError: the file is missing, or its content does not match its name.
    """
    unpack: Callable[[bytes], bytes] = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)
    try:
        return unpack(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def document_start(model: RecModel) -> int:
    """The id with which documents began in pre-training; without it a text's first words are scored as mid-text."""
    known = model.tokenizer.get_added_vocab()
    return int(known.get("<|endoftext|>", known.get("<bos>", model.renderer.chat.stop)))


def text_blocks(model: RecModel, text: str, blocks: int | None, length: int, seed: int) -> Ints:
    """int64[b, length]: a text split into blocks of ids without the rest; `blocks` of them drawn by the seed, in order.

    Raises:
        DataError: the text is shorter than one block.
    """
    ids = np.asarray(model.renderer.encode_text(text), np.int64)
    whole = ids[: len(ids) // length * length].reshape(-1, length)
    if not len(whole):
        raise DataError(f"the text has {len(ids)} tokens; one block needs {length}")
    if blocks is None or blocks >= len(whole):
        return whole
    return whole[np.sort(np.random.default_rng(seed).choice(len(whole), blocks, replace=False))]


@torch.inference_mode()
def block_nll(model: RecModel, blocks: Ints, progress: Callable[[int], None] | None = None) -> Floats:
    """Nats per token given the preceding tokens in its block: float32[b, length], for int64[b, length].

    Each block is read as a document: the first token follows the document start.
    """
    start = np.full((len(blocks), 1), document_start(model), np.int64)
    ids = torch.from_numpy(np.concatenate([start, blocks], axis=1))
    size = max(1, TOKENS // ids.shape[1])
    out = np.empty(blocks.shape, np.float32)
    for first in range(0, len(ids), size):
        part = ids[first : first + size].to(model.device)
        hidden = model.hidden(model.word_embedding(part[:, :-1]), use_cache=False)
        for row, (h, targets) in enumerate(zip(hidden, part[:, 1:], strict=True), first):
            out[row] = word_nll(model, h, targets).cpu().numpy()  # logits of one block at a time: 100 MB, not 400
        if progress is not None:
            progress(min(first + size, len(ids)))
    return out


def word_nll(model: RecModel, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p of the words int[t] at hidden states float[t, h]: float32[t]."""
    return functional.cross_entropy(model.word_logits(hidden).float(), targets, reduction="none")


def wikitext_nll(
    model: RecModel, text: str | Path | Sequence[str], blocks: int | None = 40, length: int = 512, seed: int = 0
) -> Floats:
    """Nats per token on running text: float32[b, length].

    Args:
        model: for the base model's values, call this inside `with model.base_only()` on an unmerged model.
        text: a file (plain, .gz, .bz2), or its lines including line ends.
        blocks: number of blocks, drawn by the seed; None takes all.
        length: tokens per block.
        seed: random seed for the draw; the same seed gives the same blocks, so that two models can be compared
            pairwise.

    Raises:
        DataError: the text is shorter than one block.
    """
    words = read_text(Path(text)) if isinstance(text, str | Path) else "".join(text)
    return block_nll(model, text_blocks(model, words, blocks, length, seed))
