"""Answers questions about items in one sentence each, from the catalogue alone."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec.data.catalog import Catalog
from llmrec.nlu.attribute_phrases import statement
from llmrec.nlu.item_questions import PREMISE, ItemQuestion
from llmrec.nlu.wording import end_sentence, join_words

_MOST = 3  # items answered about at once


def answer_question(catalog: Catalog, rows: Sequence[int], question: ItemQuestion) -> str:
    """Return the answers, one line per item; they say which fields are missing and add nothing to the catalogue.

    Args:
        catalog: the source of all answers.
        rows: the items asked about; empty if it is not clear which is meant.
        question: what is asked for.
    """
    if not rows and not question.unknown:
        return "Which one do you mean? Say its number or its title."
    lines = [_about(catalog, row, question) for row in rows[:_MOST]]
    if question.unknown:
        lines = [f"I do not know {join_words(list(question.unknown), 'or')}; the catalogue does not say."]
    elif question.missing and not question.fields:
        named = join_words([name.replace("_", " ") for name in question.missing], "or")
        lines = [f"This catalogue says nothing about {named}."]
    return "\n".join(lines)


def _about(catalog: Catalog, row: int, question: ItemQuestion) -> str:
    item, label = catalog[row], catalog.label(row)
    known, missing = list[str](), list[str]()
    for name in question.fields:
        value = item.attributes.get(name)
        if name == PREMISE:
            (known if item.text else missing).append(f"{label}: {item.text}" if item.text else "the story")
        elif value is not None and (said := statement(name, value)):
            known.append(end_sentence(f"{label} {said}"))
        else:
            missing.append(f"the {name.replace('_', ' ')}")
    if missing:
        known.append(end_sentence(f"The catalogue does not give {join_words(missing, 'or')} of {label}"))
    return " ".join(known)
