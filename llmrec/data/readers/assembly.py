"""Joins items and events into a catalogue and an interaction log, by rules that all readers share."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from llmrec.data.catalog import Catalog, Item
from llmrec.data.ids import IdVariants, first_collision
from llmrec.data.interactions import Interactions
from llmrec.data.readers.common import Event, Report
from llmrec.data.time_units import refuse_mixed_units
from llmrec.errors import DataError

_KEPT_FOR_TRAINING = 3  # interactions; a user with fewer has no target, see `interactions.leave_one_out`
_MOST_LOST = 0.05  # share of interactions that may be lost without explicit consent
_SHOWN = 3  # examples of each kind in a message


@dataclass(frozen=True)
class JoinRules:
    """Exceptions to the join rules, granted by a user who knows the data.

    Attributes:
        accept_loss: allow that more than 5 % of the interactions are with items that are not in the catalogue.
        exact_ids: treat `1.0` and `1`, or `007` and `7`, as different ids.
    """

    accept_loss: bool = False
    exact_ids: bool = False


DEFAULT_RULES = JoinRules()


def assemble(
    items: list[Item],
    events: Iterable[Event],
    domain: str,
    notes: tuple[str, ...] = (),
    dropped: Mapping[str, int] | None = None,
    source: str = "",
    known: int = 0,
    rules: JoinRules = DEFAULT_RULES,
) -> tuple[Catalog, Interactions, Report]:
    """Join items and events into a catalogue and interactions; the report counts what was dropped or changed.

    - An id that does not exist as written means the known id with the same canonical form (see `ids`). Known ids are
      those of the items in the catalogue and of the users in the known interactions.
    - Interactions with unknown items are dropped, and so are exact repeats of user, item and time. The same user and
      item at another time is kept, because people watch and buy things more than once.
    - Interactions are sorted by time; ties keep the order of the file.
    - A user with fewer than 3 interactions is kept and trained on, but has no target.

    Args:
        items: the items of the catalogue.
        events: the interactions; they are streamed, and about 32 bytes of each are kept.
        domain: a plural noun for the items.
        notes: remarks of the reader.
        dropped: what the reader itself left out, by reason; read after the events are consumed.
        source: where the events come from, for messages.
        known: how many of the first events were already part of the data; they are with these items, and more events
            must follow.
        rules: exceptions to the rules above.

    Raises:
        DataError: there are no items, or no interactions with any of them; more than 5 % of the interactions are with
            unknown items; two items or two users have forms of one id; times are in two units. The message names what
            is wrong.
    """
    catalog, place = Catalog(items, domain), f"{source}: " if source else ""
    if not known and not rules.exact_ids:
        refuse_colliding_ids("item", (item.id for item in catalog.items), place)
    log = _collect(catalog, events, known, rules, place)
    first = _first_of_each(log.columns)
    repeated = len(log.value) - len(first)
    lost = {"unknown item": log.unknown, "repeated user, item and time": repeated, **(dropped or {})}
    lost = {name: n for name, n in lost.items() if n}
    if len(first) <= known:
        raise DataError(place + _unusable(catalog, known, lost, log.strange))
    refuse_mixed_units(log.columns[2], known, source)
    said = [*notes, *_loss_notes(catalog, log, known, rules, place), *_rename_notes(log)]
    who, what, when = (column[first] for column in log.columns)
    interactions = Interactions.build([log.users[one] for one in who], what, when, log.value[first])
    counts = {"items": len(catalog), "users": len(interactions.users), "interactions": len(interactions)}
    return catalog, interactions, Report(counts, lost, (*said, *_log_notes(interactions, who, when)))


def refuse_colliding_ids(what: str, ids: Iterable[str], place: str = "") -> None:
    """Refuse distinct ids that share a canonical form; `what` is the kind of the ids, such as "item".

    Raises:
        DataError: two ids collide; the message begins with `place` and names both.
    """
    if found := first_collision(ids):
        differ = "write every id in one way, or say with --exact-ids that these are two"
        raise DataError(f"{place}{what} ids {found[0][:60]!r} and {found[1][:60]!r} are two forms of one; {differ}")


@dataclass
class _Log:
    """Events as arrays, with counts of what was left out or renamed.

    Attributes:
        users: user number -> id, in the order of the file.
        columns: user numbers, rows and times, int64[m] each.
        value: float32[m].
        unknown: number of interactions with unknown items.
        strange: the first few unknown items.
        losers: number of users who lose all their new interactions, because every item in them is unknown.
        total: number of users with new interactions.
        renamed: "item" or "user" -> id as written -> the known id that it means.
    """

    users: list[str] = field(default_factory=list)
    columns: list[np.ndarray] = field(default_factory=list)
    value: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    unknown: int = 0
    strange: dict[str, None] = field(default_factory=dict)
    losers: int = 0
    total: int = 0
    renamed: dict[str, dict[str, str]] = field(default_factory=lambda: {"item": {}, "user": {}})

    def meant(self, what: str, id: str, forms: IdVariants, place: str) -> str | None:
        """Return the known id that `id` is another form of, and record the change; None when there is none.

        Raises:
            DataError: `id` is another form of several known ids.
        """
        found = forms.variants(id)
        if len(found) > 1:
            several = " and of ".join(repr(one[:60]) for one in found[:_SHOWN])
            raise DataError(f"{place}{what} id {id[:60]!r} is another form of {several}; write it as one of them")
        if not found:
            return None
        self.renamed[what][id] = found[0]
        return found[0]


def _collect(catalog: Catalog, events: Iterable[Event], known: int, rules: JoinRules, place: str) -> _Log:
    log, losers = _Log(), set[str]()
    rows = {item.id: row for row, item in enumerate(catalog.items)}
    numbers: dict[str, int] = {}
    items, earlier = IdVariants([] if rules.exact_ids else list(rows)), IdVariants([])
    user, row, time, value = array("q"), array("q"), array("q"), array("f")
    for n, event in enumerate(events):
        if n == known:
            earlier = IdVariants([] if rules.exact_ids else list(numbers))
        if (at := rows.get(event.item)) is None:
            if (meant := log.meant("item", event.item, items, place)) is None:
                log.unknown += 1
                losers.add(event.user)
                if len(log.strange) < _SHOWN:
                    log.strange[event.item] = None
                continue
            at = rows[event.item] = rows[meant]
        if (who := numbers.get(event.user)) is None:
            meant = log.meant("user", event.user, earlier, place)
            who = numbers[event.user] = len(log.users) if meant is None else numbers[meant]
            if meant is None:
                log.users.append(event.user)
        user.append(who)
        row.append(at)
        time.append(event.time)
        value.append(event.value)
    log.columns, log.value = [np.array(one) for one in (user, row, time)], np.array(value)
    kept = set(user[known:])
    log.losers = sum(numbers.get(one) not in kept for one in losers)
    log.total = len(kept) + log.losers
    if not rules.exact_ids:
        refuse_colliding_ids("user", log.users[len(set(user[:known])) :], place)
    return log


def _unusable(catalog: Catalog, known: int, lost: Mapping[str, int], strange: Mapping[str, None]) -> str:
    """Return the message for events of which nothing can be used; `strange` holds the first unknown items."""
    what = f"no usable interactions with the {len(catalog)} {catalog.domain}"
    said = [f"adds nothing to {known} interactions" if known else what]
    said.append(f"left out: {format_counts(lost)}" if lost else "there are none in it")
    if strange and len(catalog):
        said.append(f"e.g. item {next(iter(strange))[:60]!r}; the items' ids look like {catalog[0].id[:60]!r}")
    return "; ".join(said)


def _loss_notes(catalog: Catalog, log: _Log, known: int, rules: JoinRules, place: str) -> Iterator[str]:
    """Yield a note on interactions with unknown items, if any; raises DataError when there are too many."""
    if not log.unknown:
        return
    total = len(log.value) - known + log.unknown
    items = ", ".join(repr(one[:60]) for one in log.strange)
    said = (
        f"{log.unknown} of {total} interactions ({log.unknown / total:.1%}) are with items that the catalogue does not "
        f"have, e.g. {items}; the items' ids look like {catalog[0].id[:60]!r}; {log.losers} of {log.total} users "
        f"({log.losers / max(1, log.total):.1%}) lose all of theirs"
    )
    if log.unknown > _MOST_LOST * total and not rules.accept_loss:
        raise DataError(f"{place}{said}; correct the ids, or say with --accept-loss that these may be left out")
    yield said


def _rename_notes(log: _Log) -> Iterator[str]:
    """Yield notes on ids that were read as known ids of the same form."""
    for what, found in log.renamed.items():
        if found:
            shown = ", ".join(f"{one[:60]!r} as {known[:60]!r}" for one, known in list(found.items())[:_SHOWN])
            yield f"{len(found)} {what} ids are written in another form than the known ones: read {shown}"


def format_counts(lost: Mapping[str, int]) -> str:
    """Format counts by name for people: `2 of unknown item, 1 of event of weight 0`."""
    return ", ".join(f"{n} of {name}" for name, n in lost.items())


def _first_of_each(columns: list[np.ndarray]) -> np.ndarray:
    """int64[m]: ascending indices of the first occurrence of every distinct (user, row, time)."""
    if not len(columns[0]):
        return np.zeros(0, np.int64)
    order = np.lexsort(columns)  # stable: equals keep the order of the file
    new = np.ones(len(order), bool)
    new[1:] = np.any([np.diff(column[order]) != 0 for column in columns], axis=0)
    return np.sort(order[new])


def _log_notes(x: Interactions, user: np.ndarray, time: np.ndarray) -> list[str]:
    """Return remarks on the log for the user, with numbers; `user` and `time` are int64[m] in the order of the file."""
    order = np.argsort(user, kind="stable")
    backward = int(((np.diff(user[order]) == 0) & (np.diff(time[order]) < 0)).sum())
    few = int((np.diff(x.offsets) < _KEPT_FOR_TRAINING).sum())
    found = []
    if backward:
        found.append(f"{backward} interactions stood before an earlier one of the same user: sorted by time")
    if few:
        found.append(f"{few} users with fewer than {_KEPT_FOR_TRAINING} interactions: trained on, without a target")
    return found
