"""What the language model says is passed on only where the catalogue backs it."""

import pytest
from conftest import make_catalog

from llmrec.grounding import Checker

CHECKER = Checker(make_catalog())
SHOWN = [0, 2, 1]  # Funny Tale 0 (1990) and 2 (1992), comedies; Scary Tale 1 (1981), horror


@pytest.mark.parametrize(
    "sentence",
    [
        "I would start with Funny Tale 0 (1990), a comedy from 1990.",
        "Funny Tale 0 (1990) and Funny Tale 2 (1992) are comedy films.",
        "Funny Tale 0 fits best, being a comedy from 1990; after that I would take Scary Tale 1 (1981).",
        "There is comedy and horror in this list.",
    ],
)
def test_what_is_true_is_said(sentence: str) -> None:
    assert CHECKER.grounded(sentence, SHOWN)


@pytest.mark.parametrize(
    "sentence",
    [
        "Funny Tale 4 (1994) fits best.",  # not on display
        "Funny Tale 0 (1991) fits best.",
        "Funny Tale 0 is a horror film.",
        "Funny Tale 0 (1990) and Funny Tale 2 (1992) are comedy films from 1990.",  # true of one of the two
        "Funny Tale 0 and Scary Tale 1 are comedy films.",
        "I do not have Funny Tale 0 (1990), but I can look for something like it.",
        "I can look for films from 1990.",
        "I'm sorry, I can't help with that.",
    ],
)
def test_what_is_not_is_dropped(sentence: str) -> None:
    assert not CHECKER.grounded(sentence, SHOWN)
