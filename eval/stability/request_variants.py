"""Requests of the stability suite and their variants, drawn by seed from users with a held-out item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Split
from llmrec.data.titles import title_key
from llmrec.eval.kind_attribute import kind_attribute
from llmrec.eval.metrics import Rows
from llmrec.eval.stability import paraphrases
from llmrec.eval.stability.paraphrases import Nouns
from llmrec.nlu.wording import join_words

Kind = Literal["next", "candidates", "attributes", "named"]
Group = Literal["order", "paraphrase", "noise", "irrelevant"]
KINDS: tuple[Kind, ...] = ("next", "candidates", "attributes", "named")
GROUPS: tuple[Group, ...] = ("order", "paraphrase", "noise", "irrelevant")

CANDIDATES = 20
NAMED = 5
ORDERS = 4
ASIDES = 3
_PLAIN_WORDS = 4


@dataclass(frozen=True)
class Case:
    """One request of one user.

    Attributes:
        kind: `next` asks for anything, `candidates` ranks a given list, `attributes` asks for values of the target (its
            decade and one or two of its tags), `named` is a new visitor who names the user's latest items.
        user: user number in the split.
        history: the user's items known to the chat, oldest first; empty for `named`.
        target: the held-out row.
        candidates: rows to rank, including the target, in their original order; empty for a full ranking.
        named: rows named in the message, in their original order.
        wish: three wordings of the attributes: original, with its alternatives swapped, and with synonyms; or ''.
        phrasing: index of the original phrasing.
    """

    kind: Kind
    user: int
    history: tuple[int, ...]
    target: int
    candidates: tuple[int, ...] = ()
    named: tuple[int, ...] = ()
    wish: tuple[str, str, str] = ("", "", "")
    phrasing: int = 0


@dataclass(frozen=True)
class Variant:
    """One wording of a case.

    Attributes:
        group: what was changed; `paraphrase` for the original, which is one phrasing among equals.
        name: identifies the change across cases, e.g. `paraphrase-03`.
        text: the message.
        candidates: the candidates in the order in which they are listed.
        named: the named items in the order in which they are listed.
    """

    group: Group
    name: str
    text: str
    candidates: tuple[int, ...] = ()
    named: tuple[int, ...] = ()


def draw_cases(catalog: Catalog, split: Split, users: Rows, seed: int) -> list[Case]:
    """Draw one case of every kind for each user that allows it; a case depends only on seed and user."""
    nouns = Nouns.of(catalog)
    plain = plain_titles(catalog)
    cases: list[Case] = []
    for place, user in enumerate(users.tolist()):
        rng = np.random.default_rng([seed, user])
        history, target = split.history(user, "test"), int(split.test[user])
        past = tuple(int(row) for row in history)
        if target in past:
            continue  # the target cannot be shown again, so no answer is right
        phrasing = place % len(paraphrases.PHRASINGS["next"])
        cases.append(Case("next", user, past, target, phrasing=phrasing))
        rivals = np.setdiff1d(np.arange(len(catalog)), [*past, target])
        drawn = rng.choice(rivals, min(CANDIDATES - 1, len(rivals)), replace=False)
        listed = tuple(rng.permutation([*drawn.tolist(), target]).tolist())
        cases.append(Case("candidates", user, past, target, candidates=listed, phrasing=phrasing))
        wish = _wish(catalog, target, nouns, rng)
        if wish:
            cases.append(Case("attributes", user, past, target, wish=wish, phrasing=phrasing))
        named = tuple(dict.fromkeys(row for row in past if row in plain))[-NAMED:]
        if len(named) > 1:
            cases.append(Case("named", user, (), target, listed, named=named, phrasing=phrasing))
    return cases


def plain_titles(catalog: Catalog) -> frozenset[int]:
    """Rows whose title can be listed in a sentence: short, without punctuation, and not shared with another item."""
    keys = [title_key(item.title) for item in catalog.items]
    return frozenset(
        row
        for row, item in enumerate(catalog.items)
        if keys.count(keys[row]) == 1
        and len(item.title.split()) <= _PLAIN_WORDS
        and not set(item.title) & set(',&/()[]!?:;."')
        and not {"and", "or"} & set(keys[row].split())
    )


def _wish(catalog: Catalog, target: int, nouns: Nouns, rng: np.random.Generator) -> tuple[str, str, str] | None:
    """The target's decade and one of its tags, or (every other time) a choice between that tag and another one."""
    fields = catalog[target].attributes
    name = kind_attribute(catalog)
    own = fields.get(name) if name is not None else None
    if name is None or not isinstance(own, tuple):
        return None
    first = str(rng.choice(own))
    others = [value for value in catalog.values(name) if value != first]
    values = [first, str(rng.choice(others))] if others and rng.integers(2) else [first]
    year = fields.get("year")
    words = []
    for order, other in ((values, False), (values[::-1], False), (values, True)):
        things = " or ".join(nouns.of_value(value, other) for value in order)
        since = f" from {paraphrases.decade(int(year) // 10 * 10, other)}" if isinstance(year, int) else ""
        words.append(things + since)
    return words[0], words[1], words[2]


def variants(catalog: Catalog, case: Case, seed: int) -> list[Variant]:
    """The original first, then every variant of the case."""
    rng = np.random.default_rng([seed, case.user, KINDS.index(case.kind)])
    nouns = Nouns.of(catalog)
    told = [_fill(catalog, nouns, phrase, case) for phrase in paraphrases.PHRASINGS[case.kind]]
    text = told[case.phrasing]

    def said(group: Group, name: str, words: str) -> Variant:
        return Variant(group, name, words, case.candidates, case.named)

    out = [said("paraphrase", f"paraphrase-{case.phrasing:02}", text)]
    out += [
        said("paraphrase", f"paraphrase-{place:02}", words)
        for place, words in enumerate(told)
        if place != case.phrasing
    ]
    out += _orders(catalog, nouns, case, rng)
    other = paraphrases.synonyms(paraphrases.PHRASINGS[case.kind][case.phrasing])
    out += [
        said("noise", "typos-1", paraphrases.typos(text, rng)),
        said("noise", "typos-2", paraphrases.typos(text, rng)),
        said("noise", "synonyms", _fill(catalog, nouns.other, other, case, case.wish[2])),
        said("noise", "lower-case", text.lower()),
        said("noise", "upper-case", text.upper()),
        said("noise", "no-marks", paraphrases.bare(text)),
        said("noise", "more-marks", paraphrases.emphatic(text)),
    ]
    picked = rng.choice(len(paraphrases.ASIDES), ASIDES, replace=False).tolist()
    asides = [(f"aside-{n}", paraphrases.ASIDES[one], n == 1) for n, one in enumerate(picked, start=1)]
    out += [said("irrelevant", name, paraphrases.with_aside(text, aside, before)) for name, aside, before in asides]
    return out


def _orders(catalog: Catalog, nouns: Nouns, case: Case, rng: np.random.Generator) -> list[Variant]:
    """The same list in other orders; among candidates, the target appears once in every quarter of the list."""
    phrase = paraphrases.PHRASINGS[case.kind][case.phrasing]
    text = _fill(catalog, nouns, phrase, case)
    if case.kind == "candidates":
        rivals = [row for row in case.candidates if row != case.target]
        out = []
        for quarter, slots in enumerate(np.array_split(np.arange(len(case.candidates)), ORDERS), start=1):
            mixed = rng.permutation(rivals).tolist()
            mixed.insert(int(rng.choice(slots)) if len(slots) else 0, case.target)
            out.append(Variant("order", f"order-{quarter}", text, tuple(mixed)))
        return out
    if case.kind == "named":
        orders = [tuple(rng.permutation(case.named).tolist()) for _ in range(ORDERS)]
        return [
            Variant("order", f"order-{n}", _fill(catalog, nouns, phrase, case, named=one), case.candidates, one)
            for n, one in enumerate(orders, start=1)
        ]
    if case.kind == "attributes" and case.wish[1] != case.wish[0]:
        return [Variant("order", "order-1", _fill(catalog, nouns, phrase, case, wish=case.wish[1]))]
    return []


def _fill(
    catalog: Catalog,
    nouns: Nouns,
    phrase: str,
    case: Case,
    wish: str | None = None,
    named: Sequence[int] | None = None,
) -> str:
    slots: Mapping[str, str] = {
        "wish": case.wish[0] if wish is None else wish,
        "titles": join_words([catalog[row].title for row in (case.named if named is None else named)]),
    }
    return nouns.fill(phrase, **slots)
