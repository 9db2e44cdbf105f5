"""What each part of the fusion earns: the hybrid without it, the weights of the others fitted again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmrec.eval.accuracy_parts import Parts, PartsRanker
from llmrec.fusion import POSITIVE, PRIOR, Fusion, fit
from llmrec.interactions import Split, fusing_users
from llmrec.rank import unseen
from llmrec.recommend import Recommender

USERS = 500  # the shipped model's weights come from 471; of a large log that many, drawn by seed
LEAST = 0.01  # a part with a smaller weight changes nothing that could be measured


def without_each(recommender: Recommender, split: Split, parts: Parts, seed: int) -> Iterator[PartsRanker]:
    """Yield `hybrid, no <part>` for every part that has a weight.

    The weights are fitted on the validation items that the model's own fusion was fitted on, never on test items.
    """
    own = recommender.fusions["history"].weights
    used = [name for name in PRIOR if abs(own.get(name, 0.0)) >= LEAST]
    users = fusing_users(split)
    if len(users) > USERS:
        users = np.sort(np.random.default_rng([seed, 11]).choice(users, USERS, replace=False))
    if len(used) < 2 or not len(users):
        return
    histories = [split.history(int(user), "valid") for user in users]
    known = recommender.scorer.parts(histories)
    for left_out in used:
        rest = [name for name in own if name != left_out]
        prior = {name: PRIOR[name] for name in rest}
        positive = [name for name in rest if name in POSITIVE]
        allowed = unseen(histories, len(recommender.catalog))
        refitted: Fusion = fit(known, split.valid[users], allowed, prior, positive=positive)
        yield PartsRanker(f"hybrid, no {left_out}", parts, refitted)
