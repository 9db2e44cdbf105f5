"""MiniLM's arithmetic on a tiny random BERT: mean of the last states, normalised, whatever the neighbours."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from llmrec.encoders.text import MiniLM
from llmrec.errors import WeightsError

WORDS = ["a", "film", "about", "toys", "and", "war", "in", "space", "old", "new", "funny", "sad"]


@pytest.fixture(scope="module")
def parts():
    vocab = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    raw = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = BertConfig(vocab_size=len(vocab), max_position_embeddings=64, **size)
    return BertModel(config).eval(), tokenizer


TEXTS = [" ".join(np.random.default_rng(n).choice(WORDS, 1 + n % 7)) for n in range(41)]


def test_a_vector_is_the_normalised_mean_of_the_last_states(parts):
    model, tokenizer = parts
    vectors = MiniLM(model, tokenizer).encode(TEXTS)
    assert vectors.shape == (41, 32) and vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy().astype(np.float64)
        mean = states.mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.kernels
def test_a_vector_does_not_depend_on_its_neighbours(parts):
    embedder = MiniLM(*parts)
    whole = embedder.encode(TEXTS)
    assert np.array_equal(embedder.encode(TEXTS[::-1])[::-1], whole), "to the last bit"
    assert all(np.array_equal(embedder.encode([text])[0], row) for text, row in zip(TEXTS, whole, strict=True))
    assert len({row.tobytes() for row in whole}) > 30, "and different texts differ"


def test_edges(parts):
    embedder = MiniLM(*parts, max_tokens=8)
    assert embedder.encode([]).shape == (0, 32)
    assert np.isfinite(embedder.encode(["", "\0", "zzz"])).all()
    long, cut = embedder.encode([" ".join(WORDS * 3), " ".join(WORDS[:6])])
    assert np.array_equal(long, cut), "cut to 8 tokens with both ends"
    assert (embedder.dim, embedder.name) == (32, "minilm-l6-v2")


@pytest.mark.kernels
def test_load_from_a_directory_without_network(parts, tmp_path, monkeypatch):
    model, tokenizer = parts
    model.save_pretrained(tmp_path / "enc")
    tokenizer.save_pretrained(tmp_path / "enc")
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("network"))
    again = MiniLM.load(tmp_path / "enc")
    assert np.array_equal(again.encode(TEXTS), MiniLM(model, tokenizer).encode(TEXTS))
    with pytest.raises(WeightsError, match="no sentence encoder at"):
        MiniLM.load(tmp_path)
