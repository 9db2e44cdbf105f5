"""A toy world whose right answer is known: 12 items, 2 tastes, a tiny random Llama with a tokenizer made here."""

from __future__ import annotations

import offline  # noqa: F401  # isort: skip

import errno
import hashlib
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmrec.data.catalog import Catalog, Item
from llmrec.data.interactions import Interactions
from llmrec.encoders.config import EncoderConfig
from llmrec.encoders.sequential import EncoderNet, SequenceEncoder
from llmrec.lm.model import ModelConfig, RecModel
from llmrec.semantic_ids.residual_kmeans import SemanticIds, fit

os.environ.setdefault("LLMREC_FEEDBACK", "off")  # no test may write where a person's feedback lies

GENRES = ("Comedy", "Horror")

# Every attempt to leave this machine, by whatever library: refused and noted (promise 21).
NETWORK: list[str] = []


class NetworkRefused(OSError):
    """What a test gets that reaches beyond this machine."""


def _stay_here(event: str, given: tuple[Any, ...]) -> None:
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = given[1]
        host = address[0] if isinstance(address, tuple) else None  # a path, of a Unix socket, is here
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = given[0]
    else:
        return
    if host is None or _is_here(host):
        return
    # "connecting" a datagram socket sends nothing: libraries do it to learn their own address
    if not (event == "socket.connect" and given[0].type & socket.SOCK_DGRAM == socket.SOCK_DGRAM):
        NETWORK.append(f"{event} {str(host)[:100]}")
    raise NetworkRefused(errno.ENETUNREACH, f"a test reached for {host!r}")


def _is_here(host: str | bytes) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return name in {"", "localhost"}
    return address.is_loopback or address.is_unspecified


sys.addaudithook(_stay_here)


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine() -> Iterator[None]:
    """Fail a test that reached beyond this machine, even where the code took the refusal in its stride."""
    before = len(NETWORK)
    yield
    tried = NETWORK[before:]
    del NETWORK[before:]
    assert not tried, f"the network was tried: {tried}"


class HashEmbedder:
    """Texts to vectors by hashed words: alike texts get alike vectors, nothing to download."""

    dim = 16
    name = "hash"

    def encode(self, texts):
        out = np.zeros((len(texts), self.dim), np.float32)
        for line, text in zip(out, texts, strict=True):
            for word in text.lower().replace(",", " ").replace(".", " ").split():
                line[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little") % self.dim] += 1
            line /= max(np.linalg.norm(line), 1e-9)
        return out


def make_catalog(n: int = 12) -> Catalog:
    """Even rows are comedies of the 1990s, odd rows horror films of the 1980s."""
    items = []
    for row in range(n):
        taste = row % 2
        attributes = {"genre": (GENRES[taste],), "year": 1990 + row % 10 if taste == 0 else 1980 + row % 10}
        items.append(Item(f"i{row}", f"{'Funny' if taste == 0 else 'Scary'} Tale {row}", "", attributes))
    return Catalog(items, domain="films")


def make_interactions(users: int = 40, n: int = 12, length: int = 5, seed: int = 0) -> Interactions:
    """Each user walks through the items of one taste in row order from a random start: the next item is certain."""
    rng = np.random.default_rng(seed)
    ids, rows, times = [], [], []
    for user in range(users):
        own = np.arange(user % min(n, 2), n, 2)
        start = int(rng.integers(len(own)))
        for step in range(min(length, len(own))):
            ids.append(f"u{user}")
            rows.append(int(own[(start + step) % len(own)]))
            times.append(step)
    return Interactions.build(ids, rows, times, np.ones(len(rows), np.float32))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, plus the control tokens of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>")


def make_lm(words: int, hidden: int = 32, layers: int = 2, seed: int = 0, context: int = 1024) -> LlamaForCausalLM:
    """A random Llama small enough to train in seconds."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=words, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None, pad_token_id=None, initializer_range=0.15,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def make_encoder(n: int, dim: int = 8, seed: int = 0) -> SequenceEncoder:
    """An untrained encoder with visible differences between items."""
    torch.manual_seed(seed)
    net = EncoderNet(n, EncoderConfig(dim=dim, layers=1, heads=2, max_len=20, dropout=0.0))
    with torch.no_grad():
        net.item.weight.normal_(std=0.5)
        net.bias.normal_(std=0.1)
    return SequenceEncoder(net)


def make_ids(n: int, depth: int = 2, size: int = 4, seed: int = 0, dims: int = 6) -> SemanticIds:
    """Codes of random vectors."""
    return fit(np.random.default_rng(seed).normal(size=(n, dims)), depth, size, seed)


def make_model(n: int = 12, depth: int = 2, size: int = 4, seed: int = 0, slots: int = 2) -> RecModel:
    """A whole bundle with random weights everywhere, LoRA included, so that nothing is trivially zero."""
    tokenizer = make_tokenizer()
    model = RecModel(
        make_lm(len(tokenizer), seed=seed), tokenizer, make_ids(n, depth, size, seed), make_encoder(n, seed=seed),
        ModelConfig(lora_rank=4, lora_alpha=8, user_slots=slots, adapter_width=16),
    )  # fmt: skip
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.trainable().items():
            parameter.normal_(std=0.3 if "lora_" not in name else 0.1)
    return model


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """12 items, 2 tastes."""
    return make_catalog()


@pytest.fixture(scope="session")
def interactions() -> Interactions:
    """40 users of one taste each."""
    return make_interactions()


@pytest.fixture(scope="session")
def model() -> RecModel:
    """A random bundle over 12 items; tests must not change it."""
    return make_model()


@pytest.fixture(autouse=True, scope="module")
def _cache_home_is_put_back() -> Iterator[None]:
    """The toy model's loader runs in processes of its own and in this one, and sets where caches lie."""
    before = os.environ.get("LLMREC_HOME")
    yield
    if before is None:
        os.environ.pop("LLMREC_HOME", None)
    else:
        os.environ["LLMREC_HOME"] = before
