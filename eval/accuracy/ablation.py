"""Ablations of the fusion: the hybrid with one component removed and the remaining weights refitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmrec.data.interactions import Split, fusion_users
from llmrec.progress import Say, counted, silent
from llmrec.ranker import Mask, Rows, Scores
from llmrec.ranking.fusion import FAMILIARITY, FAMILIARITY_PARTS, NON_NEGATIVE, PRIOR_WEIGHTS, Fusion, fit
from llmrec.ranking.fusion_candidates import sample_users, shortlists, whole_catalog
from llmrec.ranking.scorer import Scorer, fixed_threads
from llmrec.recommender import Recommender

LEAST_WEIGHT = 0.01  # components with a smaller weight have no measurable effect


def leave_one_component_out(
    recommender: Recommender, split: Split, seed: int, say: Say = silent
) -> Iterator[ComponentRanker]:
    """Yield a ranker `hybrid, no <part>` for every component with a non-zero weight, and for the familiarity feature.

    Familiarity is included because weights may depend on it. The weights are fitted on the same validation items as the
    model's own fusion, never on test items. `say` receives progress messages.
    """
    own, scorer = recommender.fusions["history"].weights, recommender.scorer
    used = [name for name in PRIOR_WEIGHTS if abs(own.get(name, 0.0)) >= LEAST_WEIGHT]
    used += [FAMILIARITY] if any(abs(own.get(name, 0.0)) >= LEAST_WEIGHT for name in FAMILIARITY_PARTS) else []
    users = sample_users(fusion_users(split), scorer, seed)
    if len(used) < 2 or not len(users):
        return
    histories, targets = [split.history(int(user), "valid") for user in users], split.valid[users]
    nothing = [""] * len(users)
    told = counted(histories, "the language model reads validation histories", say)
    if scorer.is_small:
        with fixed_threads(scorer.threads):
            llm = scorer.llm(told, nothing)
        of = whole_catalog(scorer.parts(histories, llm=llm), histories, targets)
    else:
        of = shortlists(scorer, told, nothing, targets, seed)
    for left_out in counted(used, "fitting the fusion without each part", say):
        gone = (
            FAMILIARITY_PARTS
            if left_out == FAMILIARITY
            else [name for name in own if name.partition("*")[0] == left_out]
        )
        prior = {
            name: pull
            for name, pull in {**PRIOR_WEIGHTS, **FAMILIARITY_PARTS}.items()
            if name in own and name not in gone
        }
        weights = fit(of.parts, of.targets, of.allowed, prior, positive=NON_NEGATIVE)
        yield ComponentRanker(f"hybrid, no {left_out}", scorer, weights)


class ComponentRanker:
    """A table row built from the scorer's components: a single component or a fusion of several."""

    def __init__(self, name: str, scorer: Scorer, fusion: Fusion) -> None:
        self.name, self._scorer, self.fusion = name, scorer, fusion

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.ranker.Ranker.rank`."""
        return self._scorer.rank(self.fusion, [self._scorer.query(one) for one in histories], k, allowed)
