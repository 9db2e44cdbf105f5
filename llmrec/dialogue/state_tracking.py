"""Dialogue state tracking: updates a visitor's profile from the intent of a message."""

from __future__ import annotations

from dataclasses import replace

from llmrec.data.constraints import remove_value, remove_wanted
from llmrec.nlu.parser import Intent
from llmrec.nlu.state import Profile


def update_profile(profile: Profile, intent: Intent) -> Profile:
    """Return the profile with the opinions, constraints and wishes of one turn added."""
    if intent.topic == "reset":
        return Profile(user=profile.user, history=profile.history)
    if intent.kind in {"empty", "smalltalk", "outside"}:
        return profile
    if intent.kind == "more":
        profile = replace(profile, passed=tuple(dict.fromkeys((*profile.passed, *profile.rows))))
    for opinion, rows in (("seen", intent.seen), ("like", intent.liked), ("dislike", intent.disliked)):
        for row in rows:
            profile = profile.record_opinion(row, opinion)
    filters = profile.filters
    for attribute in intent.drop:
        filters = remove_wanted(filters, attribute)
    for attribute, value in intent.retracted:
        filters = remove_value(filters, attribute, value)
    wish = "" if "*" in intent.drop else profile.wish
    return replace(
        profile,
        filters=filters.merge(intent.filters),
        wish=intent.message or wish,
        k=intent.k or profile.k,
        focus=intent.about[0] if intent.about else profile.focus,
        options=intent.options,
        opinion=intent.opinion,
    )
