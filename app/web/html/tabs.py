"""HTML of the tabs Compare, Batch and Model. Escaping and its rules are those of `present`.

Pictures are inline SVG in percentages: the page's sanitiser takes `viewBox` away, and percentages fit any width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from llmrec.app.web.html.cards import field, hint

if TYPE_CHECKING:
    from llmrec.app.web.batch import Outcome
    from llmrec.app.web.compare import Column, Line
    from llmrec.app.web.model_view import Group, Point, Result
    from llmrec.data.catalog import Catalog

_LINES = 50  # requests whose lists are shown
_TOP = 3  # items shown of each
Points = Sequence[tuple[float, float]]


def wrong(words: str) -> str:
    """A line that says what is wrong."""
    return f'<div class="notice" role="alert">{field(words)}</div>'


def columns(found: Sequence[Column], notices: Sequence[str]) -> str:
    """The four ways of answering, side by side; one below the other on a narrow page."""
    said = "".join(f'<div class="notice">{field(notice)}</div>' for notice in notices)
    return f'{said}<div class="versus">{"".join(_column(one) for one in found)}</div>'


def _column(one: Column) -> str:
    rows = "".join(_line(place, line) for place, line in enumerate(one.lines, 1))
    state = f"{one.seconds:.2f} s" if one.ended else "working\N{HORIZONTAL ELLIPSIS}"
    if one.ended and not one.lines:
        rows = f'<li class="sub">{field(one.note or "It listed nothing.")}</li>'
    elif one.note:
        rows += f'<li class="sub">{field(one.note)}</li>'
    return (
        f'<section class="way"><h3>{field(one.name)}</h3><div class="sub">{field(one.how)}</div>'
        f'<ol class="way-list">{rows}</ol><div class="sub time">{field(state)}</div></section>'
    )


def _line(place: int, line: Line) -> str:
    mark = ""
    if line.row < 0:
        mark = '<span class="mark bad">not in the catalogue</span>'
    elif not line.fits:
        mark = '<span class="mark bad">not what was asked for</span>'
    why = f'<span class="sub">{field(line.reason)}</span>' if line.reason else ""
    return f'<li><span class="place">{place}</span><span class="what">{field(line.title)} {mark}{why}</span></li>'


def batch(catalog: Catalog, outcome: Outcome, measured: Mapping[str, float], plots: str) -> str:
    """How far a batch is, and at its end its measures, plots and lists."""
    done = f"{len(outcome.answers)} of {outcome.total} requests, {outcome.seconds:.1f} s"
    if not outcome.ended:
        return f'<div class="sub" role="status">{field(done)}</div>{bar(len(outcome.answers), outcome.total)}'
    counted = [f"{name.replace('_', ' ')}: {count}" for name, count in sorted(outcome.counts.items()) if count]
    said = "".join(hint(words) for words in (*outcome.notes, *counted))
    return f"{said}{measures(measured)}{plots}{_lists(catalog, outcome)}"


def bar(done: int, total: int) -> str:
    """A bar of progress."""
    return f'<progress value="{int(done)}" max="{max(int(total), 1)}"></progress>'


def measures(found: Mapping[str, float]) -> str:
    """Numbers with their names, as tiles."""
    tiles = "".join(
        f'<div class="tile"><div class="number">{field(number(value))}</div><div class="sub">{field(name)}</div></div>'
        for name, value in found.items()
    )
    return f'<div class="tiles">{tiles}</div>'


def number(value: float) -> str:
    """A number for people: whole ones with thousands, others to four digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4g}"


def _lists(catalog: Catalog, outcome: Outcome) -> str:
    rows = ""
    for answer in outcome.answers[:_LINES]:
        titles = "; ".join(f"{n}. {catalog.label(one.row)}" for n, one in enumerate(answer.items[:_TOP], 1))
        place = "" if answer.place is None else ("not listed" if answer.place == 0 else str(answer.place))
        asked = answer.row.message or (f"user {answer.row.user_id}" if answer.row.user_id else "items")
        cells = (str(answer.row.request_id)[:60], asked[:80], titles or "nothing left", place)
        rows += f"<tr>{''.join(f'<td>{field(cell)}</td>' for cell in cells)}</tr>"
    left = len(outcome.answers) - _LINES
    more = hint(f"{left} more requests are ranked and not shown.") if left > 0 else ""
    return table(("request", "goes by", f"first {_TOP} items", "place of the target"), rows) + more


def table(heads: Sequence[str], rows: str, caption: str = "") -> str:
    """A table that scrolls sideways on a narrow page; `rows` is HTML of this file."""
    top = "".join(f'<th scope="col">{field(head)}</th>' for head in heads)
    said = f"<caption>{field(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'


def bars(title: str, values: Sequence[tuple[str, int]]) -> str:
    """Horizontal bars with their counts; empty without values."""
    most = max((count for _, count in values), default=0)
    if not most:
        return ""
    lines = "".join(
        f'<div class="bar-name">{field(name)}</div><div class="bar"><span style="width:{100 * count / most:.1f}%">'
        f'</span></div><div class="bar-count">{count:,}</div>'
        for name, count in values
    )
    return f'<section class="plot"><h3>{field(title)}</h3><div class="bars">{lines}</div></section>'


def facts(found: Sequence[tuple[str, str]]) -> str:
    """Names and what is known of them."""
    rows = "".join(f"<dt>{field(name)}</dt><dd>{field(value)}</dd>" for name, value in found)
    return f'<dl class="facts">{rows}</dl>'


def sid_map(catalog: Catalog, points: Sequence[Point], total: int) -> str:
    """Every item a dot with its title, in the colour of its first code."""
    by_code: dict[int, list[Point]] = {}
    for point in points:
        by_code.setdefault(point.code, []).append(point)
    dots = "".join(
        f'<g style="fill:{colour(code)}">{"".join(_dot(catalog, one) for one in own)}</g>'
        for code, own in sorted(by_code.items())
    )
    shown = "" if len(points) == total else f" {len(points):,} of {total:,} are drawn."
    words = (
        "Each dot is an item where its semantic ID puts it: two principal components of its codes' centroids. "
        f"One colour is one first code. Point at a dot for its title.{shown}"
    )
    return f'{hint(words)}<svg class="sid-map"><title>Map of the semantic IDs</title>{dots}</svg>'


def _dot(catalog: Catalog, one: Point) -> str:
    # as wide as the picture less the dots at its edges
    x, y = 1.5 + 97 * one.x, 1.5 + 97 * (1 - one.y)
    return f'<circle cx="{x:.1f}%" cy="{y:.1f}%" r="3.5"><title>{field(catalog.label(one.row))}</title></circle>'


def colour(code: int) -> str:
    """A colour for a code: hues a golden angle apart, in three lightnesses that are seen on light and dark."""
    return f"hsl({code * 137.508 % 360:.0f} 55% {(44, 54, 62)[code % 3]}%)"


def groups(catalog: Catalog, found: Sequence[Group]) -> str:
    """What the largest first codes hold."""
    rows = ""
    for one in found:
        swatch = f'<span class="swatch" style="background:{colour(one.code)}"></span>{one.code}'
        common = ", ".join(f"{tag} {share:.0%}" for tag, share in one.tags) or "nothing in particular"
        some = "; ".join(catalog.label(row) for row in one.rows)
        rows += f"<tr><td>{swatch}</td><td>{one.size}</td><td>{field(common)}</td><td>{field(some)}</td></tr>"
    return table(("first code", "items", "what most of them are", "some of them"), rows)


def curves(found: Mapping[str, Points]) -> str:
    """A picture for each series over the tokens trained on."""
    return "".join(_curve(name, points) for name, points in sorted(found.items()))


def _curve(name: str, points: Points) -> str:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    wide, tall = max(xs[-1] - xs[0], 1e-9), max(high - low, 1e-9)
    at = [(100 * (x - xs[0]) / wide, 4 + 92 * (1 - (y - low) / tall)) for x, y in points]
    lines = "".join(
        f'<line x1="{a:.2f}%" y1="{b:.2f}%" x2="{c:.2f}%" y2="{d:.2f}%"></line>' for (a, b), (c, d) in pairwise(at)
    )
    ends = f"from {number(ys[0])} to {number(ys[-1])}, lowest {number(low)}, highest {number(high)}"
    return (
        f'<section class="plot"><h3>{field(name)}</h3>'
        f'<svg class="curve"><title>{field(f"{name}: {ends}")}</title>{lines}</svg>'
        f'<div class="sub">{field(f"{ends}; {number(xs[0])} to {number(xs[-1])} tokens")}</div></section>'
    )


def results(found: Sequence[Result], unread: Sequence[str]) -> str:
    """A table for each result file, with intervals and where it comes from."""
    said = "".join(hint(line) for line in unread)
    return said + "".join(_result(one) for one in found)


def _result(one: Result) -> str:
    rows = ""
    for name, values in one.rows:
        cells = "".join(f"<td>{_estimate(value)}</td>" for value in values)
        rows += f'<tr><th scope="row">{field(name)}</th>{cells}</tr>'
    wanted = "".join(
        f'<tr><th scope="row">{field(name.replace("_", " "))}</th>'
        f"<td>{field('not measured' if value is None else number(value))}</td></tr>"
        for name, value in one.targets
    )
    tables = table(("", *one.metrics), rows) if one.metrics else ""
    targets = table(("target", "value"), wanted) if wanted else ""
    heading = f"<h3>{field(f'{one.name}: {one.dataset}')}</h3>"
    return f'<section class="result">{heading}{tables}{targets}{hint(one.source)}</section>'


def _estimate(value: tuple[float, float, float] | None) -> str:
    if value is None:
        return field("\N{EM DASH}")
    mean, low, high = value
    interval = f' <span class="sub">{field(f"{number(low)} to {number(high)}")}</span>' if low != high else ""
    return f"{field(number(mean))}{interval}"
