import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmrec.encoders import losses
from llmrec.encoders.losses import cross_entropy, sampled_cross_entropy


def parts(users=50, items=200, dim=8, seed=0, double=True):
    torch.manual_seed(seed)
    kind = torch.float64 if double else torch.float32
    u, w, b = (torch.randn(*s, dtype=kind).requires_grad_() for s in ((users, dim), (items, dim), (items,)))
    return u, w, b, torch.randint(0, items, (users,))


@pytest.mark.parametrize("piece", [1, 200, 7 * 200, 10**9])
def test_pieces_are_the_whole_softmax(monkeypatch, piece):
    monkeypatch.setattr(losses, "DENSE_LIMIT", 0)
    monkeypatch.setattr(losses, "CHUNK_LOGITS", piece)
    u, w, b, targets = parts()
    expected = F.cross_entropy(u @ w.T + b, targets)
    wanted = torch.autograd.grad(expected * 3, (u, w, b))
    loss = cross_entropy(u, w, b, targets)
    found = torch.autograd.grad(loss * 3, (u, w, b))
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_pieces_bear_large_logits(monkeypatch):
    monkeypatch.setattr(losses, "DENSE_LIMIT", 0)
    u, w, b, targets = parts(double=False)
    with torch.no_grad():
        u *= 100
    loss = cross_entropy(u, w, b, targets)
    torch.testing.assert_close(loss, F.cross_entropy(u @ w.T + b, targets), rtol=1e-5, atol=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (u, w, b)))


def test_the_sample_is_right_on_average():
    u, w, b, targets = parts(users=20, items=30)
    with torch.no_grad():
        for one in (u, w, b):
            one *= 0.5
    q = torch.arange(1.0, 31.0, dtype=torch.float64)
    q /= q.sum()
    torch.manual_seed(1)
    wanted = torch.autograd.grad(F.cross_entropy(u @ w.T + b, targets), w)[0]
    found, losses, rounds = torch.zeros_like(w), [], 300
    for _ in range(rounds):
        sample = torch.multinomial(q, 400, replacement=True)
        loss = sampled_cross_entropy(u, w, b, targets, sample, q.log())
        losses.append(float(loss.detach()))
        found += torch.autograd.grad(loss, w)[0] / rounds
    assert np.mean(losses) == pytest.approx(float(F.cross_entropy(u @ w.T + b, targets).detach()), abs=0.01)
    assert float((found - wanted).norm() / wanted.norm()) < 0.05
    wrong = torch.zeros_like(w)  # as if the draws had been even: the correction is what makes it right
    for _ in range(rounds):
        sample = torch.multinomial(q, 400, replacement=True)
        even = torch.full((30,), -np.log(30.0), dtype=torch.float64)
        wrong += torch.autograd.grad(sampled_cross_entropy(u, w, b, targets, sample, even), w)[0] / rounds
    assert float((wrong - wanted).norm() / wanted.norm()) > 0.1
