"""Saves a conversation as text in the visitor's browser or in a file, and restores it.

A restored conversation is trusted only if its seal is valid: an HMAC over the state, with a key that stays on the
server. So the roles, replies and lists of a restored conversation are those that this server gave. From a file without
a valid seal, only the visitor's own opinions are taken: which items they like, dislike or know.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import os
import secrets
import tempfile
import zlib
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from llmrec.app.server.guard import Visit
from llmrec.data.constraints import constraints
from llmrec.data.filters import Filters
from llmrec.dialogue.chat import Chat
from llmrec.errors import RequestError
from llmrec.nlu.state import Profile, Turn
from llmrec.recommender import Recommendation

LONGEST = 48_000  # characters, so that it fits into a request body when it is sent back
_MOST_STATE = 4_000_000  # most bytes after decompression
_KEY_BYTES = 32
_OPINIONS = {"liked": "like", "disliked": "dislike", "seen": "seen"}
_log = logging.getLogger(__name__)


def server_key(path: Path) -> bytes:
    """Return the server's key, created on first use and readable by its owner only.

    If it cannot be written, a key for this process only is returned, and conversations saved earlier cannot be
    restored.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _whole_key(path) or _made_key(path)
    except OSError as error:
        _log.warning("no key can be kept at %s (%s): kept conversations end with this server", path, error.strerror)
        return secrets.token_bytes(32)


def _whole_key(path: Path) -> bytes | None:
    key = path.read_bytes() if path.exists() else b""
    return key if len(key) == _KEY_BYTES else None


def _made_key(path: Path) -> bytes:
    """Write a new key atomically: with a key cut off by a full disk or a killed process, anybody could forge a seal."""
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(made, path)
        except FileExistsError:  # from another server that starts now, or incomplete
            if _whole_key(path) is None:
                os.replace(made, path)
        return path.read_bytes()
    finally:
        with suppress(FileNotFoundError):
            os.unlink(made)


def seal(visit: Visit, chat: Chat, key: bytes) -> str:
    """Return the conversation as opaque text of at most `LONGEST` characters; the oldest turns are dropped first."""
    turns = list(visit.turns)
    while True:
        state = {
            "catalog": chat.catalog.fingerprint,
            "profile": _profile_out(visit.profile),
            "turns": [[turn.user, turn.reply, list(turn.notices), _profile_out(turn.before)] for turn in turns],
        }
        packed = zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)
        sealed = base64.b64encode(_tag(packed, key) + packed).decode()
        if len(sealed) <= LONGEST or not turns:
            return sealed
        del turns[: max(1, len(turns) // 4)]


def restore(visit: Visit, sealed: str, chat: Chat, key: bytes) -> None:
    """Put a sealed conversation into a session.

    Raises:
        RequestError: the conversation was not sealed by this server, or belongs to another catalogue or version; the
            session is unchanged.
    """
    state = _opened(sealed, key)
    if state.get("catalog") != chat.catalog.fingerprint:
        raise RequestError("that conversation is about another catalogue than this one")
    try:
        profile = _profile_in(state["profile"], chat)
        turns = [Turn(user, reply, tuple(notes), _profile_in(old, chat)) for user, reply, notes, old in state["turns"]]
    except (KeyError, TypeError, ValueError):
        raise RequestError("that conversation was kept by another version of this program") from None
    visit.switch_user(profile.user, profile.history)
    visit.profile, visit.asked, visit.seconds = profile, None, ()
    visit.turns.extend(turns[: chat.limits.turns])


def export_conversation(visit: Visit, chat: Chat, key: bytes) -> str:
    """Return the conversation as readable JSON, which `import_conversation` reads back."""
    profile, catalog = visit.profile, chat.catalog
    opinions = {
        name: [{"id": catalog[row].id, "title": catalog.label(row)} for row in getattr(profile, name)]
        for name in _OPINIONS
    }
    shown = [{"id": catalog[item.row].id, "title": catalog.label(item.row)} for item in profile.shown]
    whole = {
        "llmrec": 1,
        "conversation": [{"you": turn.user, "llmrec": turn.reply} for turn in visit.turns],
        **opinions,
        "constraints": [one.label for one in constraints(profile.filters)],
        "list": shown,
        "sealed": seal(visit, chat, key),
    }
    return json.dumps(whole, ensure_ascii=False, indent=1)


def import_conversation(visit: Visit, text: str, chat: Chat, key: bytes) -> str:
    """Restore an exported conversation; returns a note for the visitor, or ''.

    Raises:
        RequestError: the text is not an exported conversation, or its seal is not valid and it has no opinions.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or "llmrec" not in given:
        raise RequestError("that file is not a conversation exported from here")
    try:
        restore(visit, str(given.get("sealed", "")), chat, key)
        return ""
    except RequestError as error:
        taken = _opinions_in(visit, given, chat)
        if not taken:
            raise
        return f"Only opinions were taken from that file ({taken}): {error}"


def _opinions_in(visit: Visit, given: dict[str, Any], chat: Chat) -> int:
    ids = {item.id: row for row, item in enumerate(chat.catalog.items)}
    taken = 0
    for name, opinion in _OPINIONS.items():
        listed = given.get(name)
        for one in listed[:1_000] if isinstance(listed, list) else ():
            row = ids.get(one["id"]) if isinstance(one, dict) and isinstance(one.get("id"), str) else None
            if row is not None:
                chat.record_opinion(visit, row, opinion)
                taken += 1
    return taken


def _tag(packed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, packed, "sha256")


def _opened(sealed: str, key: bytes) -> dict[str, Any]:
    try:
        raw = base64.b64decode(sealed, validate=True) if len(sealed) <= LONGEST else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) < 32 or not hmac.compare_digest(raw[:32], _tag(raw[32:], key)):
        raise RequestError("that conversation was changed, or kept by another server")
    state = json.loads(zlib.decompressobj().decompress(raw[32:], _MOST_STATE))
    return state if isinstance(state, dict) else {}


def _profile_out(profile: Profile) -> dict[str, Any]:
    """Return a profile as plain values, without the user's history, which is looked up again by the user's id."""
    plain = {one.name: getattr(profile, one.name) for one in fields(profile) if one.name != "history"}
    shown = [[item.row, item.score, item.source, item.reason] for item in profile.shown]
    return {**plain, "filters": asdict(profile.filters), "shown": shown}


def _profile_in(plain: dict[str, Any], chat: Chat) -> Profile:
    known = {one.name for one in fields(Profile)}
    values = {name: _frozen(value) for name, value in plain.items() if name in known}
    parts = {name: {key: _frozen(value) for key, value in part.items()} for name, part in plain["filters"].items()}
    user = str(plain["user"])
    history = chat.recommender.history_of(user) if user else ()
    shown = tuple(Recommendation(*item) for item in plain["shown"])
    return Profile(**{**values, "history": history, "filters": Filters(**parts), "shown": shown})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
