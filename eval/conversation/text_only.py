"""Recommendation from one sentence: a new visitor describes a taste, and the held-out film must be found.

The sentence is generated from the last five films of the train part that a user of the log rated well: once with their
titles, once with only their genres and years. It is sent to the chat by a new visitor, without an id or a history. The
text look-up gets the same sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Split, leave_one_out
from llmrec.encoders.item_knn import item_counts
from llmrec.errors import DataError
from llmrec.eval.chat_client import ask_chat, with_caching_scorer
from llmrec.eval.metrics import bootstrap_ci, per_user, ranks_of
from llmrec.eval.ranked_lists import target_users
from llmrec.inner_product import inner
from llmrec.nlu.attribute_phrases import kinds_of
from llmrec.nlu.wording import fits_domain, join_words
from llmrec.progress import progress_bar
from llmrec.ranker import Rows, Scores, top_k
from llmrec.recommender import Recommender

Interval = tuple[float, float, float]  # value, low, high
FILMS = 5  # number of films that the sentence is generated from
LIKED = 4.0  # lowest rating that counts as good
K = 10
# The suite's own wordings; {titles} is a list of titles, {tags} of genres, {years} a span of years.
BY_TITLE = (
    "I loved {titles}.",
    "My favourites are {titles}. What should I watch next?",
    "Lately I enjoyed {titles}, and I would like more in that vein.",
    "Something for a person who likes {titles}, please.",
    "I liked {titles}. Any suggestions?",
)
BY_FIELDS = (
    "I like {tags} from {years}.",
    "Mostly I watch {tags}, from {years}. What do you suggest?",
    "I am in the mood for {tags} from {years}.",
)
KINDS = ("titles", "fields")
MODEL, LOOKUP, POPULAR = "words only", "text look-up", "popularity"


@dataclass(frozen=True, eq=False)
class Case:
    """One visitor.

    Attributes:
        user: number in the log.
        films: rows that the sentence is generated from, oldest first.
        known: all rows that the user had before the held-out one.
        target: the held-out row.
        sentences: by kind, "titles" and "fields".
    """

    user: int
    films: tuple[int, ...]
    known: Rows
    target: int
    sentences: dict[str, str]


@dataclass(frozen=True, eq=False)
class TextOnlyLists:
    """Lists of K rows for one sentence; if a ranker shows no scores, they follow the order of the list."""

    rows: Rows
    scores: Scores
    named: float = np.nan


def measure_text_only(
    recommender: Recommender, limit: int | None = None, seed: int = 0
) -> tuple[dict[str, dict[str, Interval]], str]:
    """Measure a model trained on the leave-one-out train part, and text look-up on the same sentences.

    Args:
        recommender: the product, queried as a visitor does, through `chat.Chat`.
        limit: number of users, drawn by seed; all when None.
        seed: random seed for the wordings and the bootstrap.

    Returns:
        Row -> metric -> (value, low, high), "words only" with the ratio `over_text_lookup`; and a description of how it
        was measured.

    Raises:
        DataError: no user rated a film of the train part well.
    """
    split = leave_one_out(recommender.interactions)
    cases = visitors(recommender.catalog, split, limit, seed)
    recommender = with_caching_scorer(recommender)  # the same sentence is sent twice, with and without seen items
    common = item_counts(split.train, len(recommender.catalog)).astype(np.float32)
    found: dict[tuple[str, str, bool], list[TextOnlyLists]] = {}
    with progress_bar() as progress:
        for case in progress.track(cases, description="words only"):
            for kind in KINDS:
                for filtered in (True, False):
                    for name, answer in _answers(recommender, common, case, kind, filtered).items():
                        found.setdefault((name, kind, filtered), []).append(answer)
    targets = np.array([case.target for case in cases], np.int64)
    rows = _rows(found, targets, seed)
    return rows, _told(cases, recommender.catalog)


def visitors(catalog: Catalog, split: Split, limit: int | None, seed: int) -> list[Case]:
    """All users with a held-out item and at least one well-rated item to mention."""
    rng = np.random.default_rng(seed)
    cases = []
    for user in target_users(split, "test", limit, seed):
        mine = split.train.user == user
        rows, values = split.train.row[mine], split.train.value[mine]
        films = tuple(int(row) for row in rows[values >= LIKED][-FILMS:])
        if films:
            sentences = {"titles": by_titles(catalog, films, rng), "fields": by_fields(catalog, films, rng)}
            known = split.history(int(user), "test")
            cases.append(Case(int(user), films, known, int(split.test[user]), sentences))
    if not cases:
        raise DataError(f"no user has a film rated {LIKED:g} or better in the train part: nothing to write about")
    return cases


def _fitting(phrases: Sequence[str], catalog: Catalog) -> list[str]:
    """The wordings whose verbs fit the catalogue's kind of item."""
    return [phrase for phrase in phrases if fits_domain(phrase, catalog.domain)]


def by_titles(catalog: Catalog, films: Sequence[int], rng: np.random.Generator) -> str:
    """Write the sentence that names the films."""
    return str(rng.choice(_fitting(BY_TITLE, catalog))).format(titles=join_words([catalog.label(row) for row in films]))


def by_fields(catalog: Catalog, films: Sequence[int], rng: np.random.Generator) -> str:
    """Write the sentence that names no film, only their three most frequent attribute words and the years they span."""
    words = [word for row in films for _, word in kinds_of(catalog[row])]
    tags = [word.casefold() for word, _ in Counter(words).most_common(3)] or [catalog.domain]
    years = [year for row in films if isinstance(year := catalog[row].attributes.get("year"), int)]
    span = " to ".join(str(year) for year in sorted({min(years), max(years)})) if years else "any time"
    return str(rng.choice(_fitting(BY_FIELDS, catalog))).format(tags=f"{join_words(tags)} {catalog.domain}", years=span)


def _answers(
    recommender: Recommender, common: Scores, case: Case, kind: str, filtered: bool
) -> dict[str, TextOnlyLists]:
    """All rankers' lists for a sentence; `filtered` removes the user's known items other than the films named."""
    catalog, sentence = recommender.catalog, case.sentences[kind]
    free = np.ones(len(catalog), np.bool_)
    if filtered:
        free[case.known] = False
    if kind == "titles":
        free[list(case.films)] = False
    embedder = recommender.scorer.embedder
    if embedder is None:
        raise DataError("this model reads no words: there is no embedder to look texts up with")
    out = {}
    for name, scores in (
        (LOOKUP, inner(embedder.encode([sentence]), recommender.scorer.text)),
        (POPULAR, common[None]),
    ):
        rows, values = top_k(scores, K + 1, free)
        out[name] = TextOnlyLists(rows[0], values[0])
    candidates = tuple(int(row) for row in np.flatnonzero(free)) if filtered else None
    reply = ask_chat(recommender, sentence, candidates=candidates, k=K)
    listed = np.full(K + 1, -1, np.int64)
    listed[: len(reply.rows)] = reply.rows
    named = float(np.mean(np.isin(case.films, reply.profile.liked)))
    out[MODEL] = TextOnlyLists(listed, -np.arange(K + 1, dtype=np.float32), named)
    return out


def _rows(
    found: dict[tuple[str, str, bool], list[TextOnlyLists]], targets: Rows, seed: int
) -> dict[str, dict[str, Interval]]:
    """Metrics of every row; titles and filtered lists have plain names, the other variants are in the metric's name."""
    rows: dict[str, dict[str, Interval]] = {}
    recall: dict[tuple[str, str], np.ndarray] = {}
    for (name, kind, filtered), answers in found.items():
        listed, scores = np.stack([one.rows for one in answers]), np.stack([one.scores for one in answers])
        values = per_user(ranks_of(listed, targets, scores), ks=[K])
        end = ("" if kind == "titles" else "/genres and years") + ("" if filtered else "/seen not filtered")
        metrics = rows.setdefault(name, {})
        for metric in (f"recall@{K}", f"ndcg@{K}"):
            metrics[metric + end] = _span(values[metric], seed)
        if name == MODEL and kind == "titles" and filtered:
            metrics["titles_understood"] = _span(np.array([one.named for one in answers]), seed)
        if filtered:
            recall[name, kind] = values[f"recall@{K}"]
    for kind, metric in zip(KINDS, ("over_text_lookup", "over_text_lookup/genres and years"), strict=True):
        ratio = _ratio(recall[MODEL, kind], recall[LOOKUP, kind], seed)
        if ratio is not None:
            rows[MODEL][metric] = ratio
    return rows


def _span(values: np.ndarray, seed: int) -> Interval:
    return (float(values.mean()), *bootstrap_ci(values, seed))


def _ratio(ours: np.ndarray, theirs: np.ndarray, seed: int, n: int = 1000) -> Interval | None:
    """Ratio of two means over the same users with a bootstrap interval; None where the denominator is 0."""
    if theirs.sum() == 0:
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(ours), (n, len(ours)))
    below = theirs[drawn].sum(axis=1)
    ratios = ours[drawn].sum(axis=1)[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [0.025, 0.975])
    value = float(ours.mean() / theirs.mean())
    return value, min(float(low), value), max(float(high), value)


def _told(cases: Sequence[Case], catalog: Catalog) -> str:
    things, count = catalog.domain, sum(len(case.films) for case in cases)
    return (
        f"{len(cases)} users of the log as new visitors: one sentence from the last {FILMS} {things} of the train part "
        f"that they rated {LIKED:g} or better ({count} in all), typed into the chat, no id and no history given; the "
        f"held-out item is to be among {K}, all {len(catalog)} ranked; what the user knew before it is left out of "
        "every row's list but where it says `seen not filtered`: a stranger's list cannot leave out what was not said. "
        "Text look-up: likeness of the very same sentence to the catalogue's descriptions, titles named left out"
    )
