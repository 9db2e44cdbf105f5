"""Every way of running the layers equals transformers' own, token by token and as a tree."""

import pytest
import torch
from families import GENERIC, LEAN, make_bundle

from llmrec.lm.runtime.hf_backend import GenericBody, body_of
from llmrec.lm.runtime.kv_cache import KeyValues, Part
from llmrec.lm.runtime.transformer import LeanBody, is_lean

ALL = LEAN | GENERIC


@pytest.fixture(scope="module", params=[(name, merge) for name in ALL for merge in (True, False)], ids=str)
def world(request):
    name, merge = request.param
    model = make_bundle(ALL[name], merge=merge)
    torch.manual_seed(5)
    return model, body_of(model.lm), torch.randn(3, 24, 32)


@torch.inference_mode()
def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_known_families_run_lean_and_others_do_not():
    for name, make in ALL.items():
        model = make_bundle(make)
        assert is_lean(model.lm) == (name in LEAN)
        assert isinstance(body_of(model.lm), LeanBody if name in LEAN else GenericBody)


@torch.inference_mode()
def test_a_sequence_at_once_in_pieces_and_beside_others(world):
    model, body, x = world
    expected = model.hidden(x)
    one = KeyValues(body.layout, 24)
    close(body.forward(x[0], [Part.following(one, 24)]), expected[0])
    pieces = KeyValues(body.layout, 30)
    for start, end in ((0, 11), (11, 12), (12, 13), (13, 24)):
        last = body.forward(x[0, start:end], [Part.following(pieces, end - start)], last_only=True)
        close(last, expected[0, end - 1 : end])
    several = [KeyValues(body.layout, 24 + i) for i in range(3)]
    lengths = (24, 9, 17)
    rows = torch.cat([line[:n] for line, n in zip(x, lengths, strict=True)])
    parts = [Part.following(memory, n) for memory, n in zip(several, lengths, strict=True)]
    last = body.forward(rows, parts, last_only=True)
    close(last, torch.stack([expected[i, n - 1] for i, n in enumerate(lengths)]))
    assert [memory.length for memory in several] == list(lengths)


@torch.inference_mode()
def test_branches_see_their_ancestors_alone(world):
    model, body, x = world
    memory = KeyValues(body.layout, 40)
    body.forward(x[0, :12], [Part.following(memory, 12)], last_only=True)
    # two levels: branches a, b, then a1, b1, b2
    level = torch.tensor([0, 0, 1, 1, 1])
    seen = torch.eye(5, dtype=torch.bool)
    seen[2, 0] = seen[3, 1] = seen[4, 1] = True
    visible = torch.cat([torch.ones(5, 12, dtype=torch.bool), seen], dim=1)
    found = body.forward(x[1, :5], [Part(memory, level + 12, visible)])
    for branch, path in enumerate([[0], [1], [0, 2], [1, 3], [1, 4]]):
        alone = model.hidden(torch.cat([x[0, :12], x[1, path]])[None])[0, -1]
        close(found[branch], alone)


@torch.inference_mode()
def test_it_can_be_given_up_before_any_layer(world):
    _, body, x = world

    def refuse():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        body.forward(x[0], [Part.following(KeyValues(body.layout, 24), 24)], check=refuse)
