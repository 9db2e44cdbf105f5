"""Every way of running the layers equals transformers' own, token by token and as a tree."""

import pytest
import torch
from families import GENERIC, LEAN, make_bundle

from llmrec.lm.runtime.hf_backend import HFTransformer, build_transformer
from llmrec.lm.runtime.kv_cache import Chunk, KVCache
from llmrec.lm.runtime.transformer import NativeTransformer, is_native

ALL = LEAN | GENERIC


@pytest.fixture(scope="module", params=[(name, merge) for name in ALL for merge in (True, False)], ids=str)
def world(request):
    name, merge = request.param
    model = make_bundle(ALL[name], merge=merge)
    torch.manual_seed(5)
    return model, build_transformer(model.lm), torch.randn(3, 24, 32)


@torch.inference_mode()
def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_known_families_run_lean_and_others_do_not():
    for name, make in ALL.items():
        model = make_bundle(make)
        assert is_native(model.lm) == (name in LEAN)
        assert isinstance(build_transformer(model.lm), NativeTransformer if name in LEAN else HFTransformer)


@torch.inference_mode()
def test_a_sequence_at_once_in_pieces_and_beside_others(world):
    model, transformer, x = world
    expected = model.hidden(x)
    one = KVCache(transformer.layout, 24)
    close(transformer.forward(x[0], [Chunk.following(one, 24)]), expected[0])
    pieces = KVCache(transformer.layout, 30)
    for start, end in ((0, 11), (11, 12), (12, 13), (13, 24)):
        last = transformer.forward(x[0, start:end], [Chunk.following(pieces, end - start)], last_only=True)
        close(last, expected[0, end - 1 : end])
    several = [KVCache(transformer.layout, 24 + i) for i in range(3)]
    lengths = (24, 9, 17)
    rows = torch.cat([line[:n] for line, n in zip(x, lengths, strict=True)])
    chunks = [Chunk.following(cache, n) for cache, n in zip(several, lengths, strict=True)]
    last = transformer.forward(rows, chunks, last_only=True)
    close(last, torch.stack([expected[i, n - 1] for i, n in enumerate(lengths)]))
    assert [cache.length for cache in several] == list(lengths)


@torch.inference_mode()
def test_branches_see_their_ancestors_alone(world):
    model, transformer, x = world
    cache = KVCache(transformer.layout, 40)
    transformer.forward(x[0, :12], [Chunk.following(cache, 12)], last_only=True)
    # two levels: branches a, b, then a1, b1, b2
    level = torch.tensor([0, 0, 1, 1, 1])
    seen = torch.eye(5, dtype=torch.bool)
    seen[2, 0] = seen[3, 1] = seen[4, 1] = True
    visible = torch.cat([torch.ones(5, 12, dtype=torch.bool), seen], dim=1)
    found = transformer.forward(x[1, :5], [Chunk(cache, level + 12, visible)])
    for branch, path in enumerate([[0], [1], [0, 2], [1, 3], [1, 4]]):
        alone = model.hidden(torch.cat([x[0, :12], x[1, path]])[None])[0, -1]
        close(found[branch], alone)


@torch.inference_mode()
def test_it_can_be_given_up_before_any_layer(world):
    _, transformer, x = world

    def refuse():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        transformer.forward(x[0], [Chunk.following(KVCache(transformer.layout, 24), 24)], check=refuse)
