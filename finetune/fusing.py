"""The last stage: fusion weights for requests without and with words, from validation items that chose nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llmrec.artifacts import fingerprint_arrays
from llmrec.finetune.stages import Inputs, key, stage
from llmrec.finetune.wishes import wish
from llmrec.fusion import POSITIVE, PRIOR, Fusion, fit_or_keep
from llmrec.interactions import fusing_users
from llmrec.rank import unseen
from llmrec.scoring import Scorer, fixed_threads


def fit_fusions(inputs: Inputs, scorer: Scorer) -> tuple[dict[str, Fusion], dict[str, float]]:
    """Weights by kind of request, and their cross-validated gain over the encoder alone in nats a target.

    For "words" each validation item is asked for by a wish made from its own fields.
    """
    split, catalog = inputs.split, inputs.catalog
    users = fusing_users(split)
    histories = [split.history(int(u), "valid") for u in users]
    targets = split.valid[users]
    rng = np.random.default_rng([inputs.recipe.seed, 7])
    asked = [f"Recommend {wish(catalog, int(t), rng)[0]}." for t in targets]
    fusions, gains = {}, {}
    for kind, said in (("history", [""] * len(users)), ("words", asked)):
        parts = _parts(inputs, scorer, kind, histories, said)
        prior = {name: weight for name, weight in PRIOR.items() if name in parts}
        positive = [name for name in prior if name in POSITIVE]
        fusions[kind], gains[kind] = fit_or_keep(parts, targets, unseen(histories, len(catalog)), prior, positive)
        inputs.say(f"fusion ({kind}): {dict(fusions[kind].weights)}, {gains[kind]:+.4f} nats over the encoder alone")
    return fusions, gains


def _parts(
    inputs: Inputs, scorer: Scorer, kind: str, histories: Sequence[np.ndarray], said: Sequence[str]
) -> dict[str, np.ndarray]:
    """Scores of the parts; the language model's are a stage of their own, since it reads every history."""

    def score() -> Mapping[str, np.ndarray]:
        inputs.say(f"fusion: the language model reads {len(histories)} validation histories ({kind})")
        with fixed_threads():
            return {"llm": scorer.llm(histories, said)}

    fingerprint = key(
        weights=fingerprint_arrays(**{n: t.numpy() for n, t in scorer.model.added_state().items()}),
        text=fingerprint_arrays(text=scorer.text),
        histories=[h.tolist() for h in histories],
        said=list(said),
        window=scorer.window,
        prior=fingerprint_arrays(prior=scorer.popularity),
    )
    return scorer.parts(histories, said, stage(inputs, f"scores-{kind}", fingerprint, score)["llm"])
