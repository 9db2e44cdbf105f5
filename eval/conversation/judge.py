"""Judges answers against the suite's own record of what the simulated user meant.

Lists are judged by the catalogue's fields, opinions by the visible profile, texts by `grounding.text`. Only what a
person sees of the product is used: lists, texts, remarks, the profile and the filters on display.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.eval.conversation.simulation import PlayedTurn
from llmrec.eval.conversation.user_state import OPINIONS
from llmrec.eval.grounding.text import TextCheck

_ASKED = re.compile(r"[^.!?\n]*\?")


@dataclass(frozen=True)
class Verdict:
    """One measure of one turn; `wrong` describes the error."""

    metric: str
    value: float
    wrong: str = ""


def judge_turn(check: TextCheck, turn: PlayedTurn) -> list[Verdict]:
    """Compute all measures of a turn."""
    found = [Verdict("crashed", float(bool(turn.answer.error)), turn.answer.error)]
    if turn.answer.error:
        return found
    if turn.step.act == "undo":
        return [*found, *_undone(check.catalog, turn)]
    found += [
        *_list(check.catalog, turn),
        *_opinions(check.catalog, turn),
        *_understood(check.catalog, turn),
        *_texts(check, turn),
    ]
    if turn.step.answer == "question":
        asked = _questions(check.catalog, turn)
        found.append(_told("clarifying_asked", asked == 1, f"asked {asked} questions"))
    elif turn.step.answer == "list":
        found.append(Verdict("asked_without_need", float(_questions(check.catalog, turn) > 0)))
    if turn.step.opinion in {"about", "why"}:
        found.append(_answered(check.catalog, turn))
    if turn.step.act == "aside":
        found.append(_told("declined", turn.answer.rows is None and bool(turn.answer.facts), "listed items"))
    if turn.step.answer == "unknown":
        said = turn.answer.facts + " ".join(turn.answer.notices)
        silent = turn.step.named.casefold() not in said.casefold()
        found.append(_told("unknown_said", not silent, f"did not say that {turn.step.named} is not here"))
    return found


def _told(metric: str, right: bool, wrong: str) -> Verdict:
    return Verdict(metric, float(right), "" if right else wrong)


def _list(catalog: Catalog, turn: PlayedTurn) -> Iterator[Verdict]:
    """Check constraints, exclusions, list length, and the message when nothing fits."""
    rows, after = turn.answer.rows, turn.after
    if rows is None:
        if turn.step.answer == "list":
            yield Verdict("listed", 0.0, "no list came")
        return
    yield Verdict("listed", 1.0)
    gone = _labels(catalog, after.hidden)
    again = [row for row in rows if catalog.label(row) in gone]
    yield Verdict("excluded_shown_again", float(len(again)), _names(catalog, "shown again", again))
    left = len(_labels(catalog, np.flatnonzero(after.available(catalog)).tolist()) - gone)
    if not left:
        said = " ".join(turn.answer.notices)
        yield _told("relaxed_said", bool(rows) and bool(said), "nothing fits, and that is not said")
        return
    fitting = after.fitting(catalog)
    broken = [row for row in rows if not fitting[row]]
    yield Verdict("satisfied", 1 - len(broken) / len(rows) if rows else 0.0, _names(catalog, "breaks", broken))
    if turn.step.answer == "list":
        yield _told("as_long_as_asked", len(rows) == min(after.count, left), f"{len(rows)} of {after.count}")


def _labels(catalog: Catalog, rows: Iterable[int]) -> set[str]:
    return {catalog.label(row) for row in rows}


def _names(catalog: Catalog, what: str, rows: Sequence[int]) -> str:
    return f"{what}: {'; '.join(catalog.label(row) for row in rows[:3])}" if rows else ""


def _opinions(catalog: Catalog, turn: PlayedTurn) -> Iterator[Verdict]:
    """Check whether the profile holds exactly the opinions given, separately for titles and list positions.

    Titles are compared, not rows: a catalogue may list a film twice, and a visitor cannot say which one was meant.
    """
    step, profile, after = turn.step, turn.answer.profile, turn.after
    held = {"like": profile.liked, "dislike": profile.disliked, "seen": profile.seen}
    meant = {"like": after.liked, "dislike": after.disliked, "seen": after.seen}
    pairs = [(name, _labels(catalog, held[name]), _labels(catalog, meant[name])) for name in OPINIONS]
    wrong = "; ".join(f"{name} {sorted(has)} for {sorted(should)}" for name, has, should in pairs if has != should)
    right = not wrong
    if step.opinion in OPINIONS:
        metric = "references_resolved" if step.places or step.act == "which" else "titles_understood"
        yield Verdict(metric, float(right), wrong)
        if step.slipped:
            yield Verdict("misspelt_understood", float(right), wrong)
    else:
        yield Verdict("opinions_kept", float(right), wrong)


def _understood(catalog: Catalog, turn: PlayedTurn) -> Iterator[Verdict]:
    """Check whether the filters on display admit exactly the items that the visitor meant."""
    mask, meant = catalog.where(turn.answer.profile.filters), turn.after.fitting(catalog)
    same = bool((mask == meant).all())
    wrong = f"filters {turn.answer.profile.filters.describe() or 'none'}"
    yield Verdict("filters_as_meant", float(same), "" if same else wrong)
    if turn.step.side and turn.step.places:
        yield Verdict("references_resolved", float(same), "" if same else wrong)


def _undone(catalog: Catalog, turn: PlayedTurn) -> Iterator[Verdict]:
    """Check whether an undo restored the previous state."""
    profile, after = turn.answer.profile, turn.after
    same = profile.rows == after.shown and bool((catalog.where(profile.filters) == after.fitting(catalog)).all())
    same = same and [set(p) for p in (profile.liked, profile.disliked, profile.seen)] == [
        set(p) for p in (after.liked, after.disliked, after.seen)
    ]
    yield _told("undone", same, "something of the turn stayed")


def _answered(catalog: Catalog, turn: PlayedTurn) -> Verdict:
    """Check whether a question about items was answered about these items and no other item of the list."""
    rows = turn.before.pointed(turn.step.places)
    said = turn.answer.facts
    if not rows:
        named = any(catalog.label(row) in said for row in turn.before.shown)
        return _told("explained", turn.answer.rows is None and named, "no item of the list is explained")
    opened = [
        row for row in turn.before.shown if any(line.startswith(catalog.label(row)) for line in said.splitlines())
    ]
    right = turn.answer.rows is None and _labels(catalog, opened) == _labels(catalog, rows)
    return Verdict("references_resolved", float(right), "" if right else f"speaks of {_names(catalog, '', opened)}")


def _questions(catalog: Catalog, turn: PlayedTurn) -> int:
    """Number of question marks in the reply, not counting those in titles."""
    said = " ".join((turn.answer.facts, turn.answer.words, *turn.answer.notices))
    for title in [item.title for item in catalog.items if "?" in item.title]:
        said = re.sub(re.escape(title), "", said, flags=re.IGNORECASE)
    return said.count("?")


def _texts(check: TextCheck, turn: PlayedTurn) -> Iterator[Verdict]:
    """Check that titles named are on the list or the visitor's own; titles offered in a question are not claims."""
    answer, after = turn.answer, turn.after
    known = [*after.hidden, *turn.before.shown, *_typed(check, turn)]
    shown = after.shown
    told = " ".join(_claimed(text, turn.step.named) for text in (answer.facts, *answer.notices))
    by_program = check.findings(told, shown, known)
    reasons = [one for row, text in zip(answer.rows or (), answer.reasons, strict=False)
               for one in check.findings(text, [row], known).off_list]  # fmt: skip
    spoken = check.findings(answer.words, shown)
    off = (*by_program.off_list, *reasons, *spoken.off_list)
    yield Verdict("off_list_titles", float(len(off)), f"names {'; '.join(off)}" if off else "")
    if answer.words:
        yield Verdict("titles_in_words", float(spoken.titles))
        wrong = "; ".join(spoken.contradicted)
        yield Verdict("contradicted_claims", float(len(spoken.contradicted)), wrong)
        sentences = len(re.findall(r"[.!?](?:\s|$)", answer.words))
        yield Verdict("at_most_three_sentences", float(sentences <= 3), "" if sentences <= 3 else f"{sentences}")


def _claimed(text: str, named: str) -> str:
    """The text without its questions.

    If the chat should have asked about a title, a text that ends with a question mark counts as a question in full.
    """
    if named and text.rstrip().endswith("?"):
        return ""
    return _ASKED.sub(" ", text.replace(named, "this") if named else text)


def _typed(check: TextCheck, turn: PlayedTurn) -> list[int]:
    """Rows that the visitor named, whose title appears in the message, or whose title is the one asked about."""
    same = [row for row, item in enumerate(check.catalog.items) if item.title == turn.step.named]
    named = {row for one in check.mentions(turn.step.text) for row in one.rows}
    return [*turn.step.rows, *named, *same]
