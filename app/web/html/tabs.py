"""HTML of the tabs Compare, Batch and Model, with the escaping rules of `cards`.

Pictures are inline SVG with coordinates in percent: the page's sanitiser removes `viewBox`, and percentages fit any
width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from llmrec.app.web.html.cards import escaped, muted_line

if TYPE_CHECKING:
    from llmrec.app.web.batch import BatchResult
    from llmrec.app.web.compare import ComparisonColumn, ComparisonEntry
    from llmrec.app.web.model_view import CodeGroup, MapPoint, ResultTable
    from llmrec.data.catalog import Catalog

_LINES = 50  # requests whose lists are shown
_TOP = 3  # items shown per request
Points = Sequence[tuple[float, float]]


def error_line(words: str) -> str:
    """Return an error message."""
    return f'<div class="notice" role="alert">{escaped(words)}</div>'


def comparison_columns(found: Sequence[ComparisonColumn], notices: Sequence[str]) -> str:
    """Return the answers of the four methods side by side, or one below the other on a narrow page."""
    said = "".join(f'<div class="notice">{escaped(notice)}</div>' for notice in notices)
    return f'{said}<div class="versus">{"".join(_column(one) for one in found)}</div>'


def _column(one: ComparisonColumn) -> str:
    rows = "".join(_line(place, line) for place, line in enumerate(one.lines, 1))
    state = f"{one.seconds:.2f} s" if one.ended else "working\N{HORIZONTAL ELLIPSIS}"
    if one.ended and not one.lines:
        rows = f'<li class="sub">{escaped(one.note or "It listed nothing.")}</li>'
    elif one.note:
        rows += f'<li class="sub">{escaped(one.note)}</li>'
    return (
        f'<section class="way"><h3>{escaped(one.name)}</h3><div class="sub">{escaped(one.how)}</div>'
        f'<ol class="way-list">{rows}</ol><div class="sub time">{escaped(state)}</div></section>'
    )


def _line(place: int, line: ComparisonEntry) -> str:
    mark = ""
    if line.row < 0:
        mark = '<span class="mark bad">not in the catalogue</span>'
    elif not line.fits:
        mark = '<span class="mark bad">does not meet the request</span>'
    why = f'<span class="sub">{escaped(line.reason)}</span>' if line.reason else ""
    return f'<li><span class="place">{place}</span><span class="what">{escaped(line.title)} {mark}{why}</span></li>'


def batch_results(catalog: Catalog, outcome: BatchResult, measured: Mapping[str, float], plots: str) -> str:
    """Return the progress of a batch, and at its end its metrics, plots and lists."""
    done = f"{len(outcome.answers)} of {outcome.total} requests, {outcome.seconds:.1f} s"
    if not outcome.ended:
        return (
            f'<div class="sub" role="status">{escaped(done)}</div>{progress_bar(len(outcome.answers), outcome.total)}'
        )
    counted = [f"{name.replace('_', ' ')}: {count}" for name, count in sorted(outcome.counts.items()) if count]
    said = "".join(muted_line(words) for words in (*outcome.notes, *counted))
    return f"{said}{metric_tiles(measured)}{plots}{_lists(catalog, outcome)}"


def progress_bar(done: int, total: int) -> str:
    """Return a progress bar."""
    return f'<progress value="{int(done)}" max="{max(int(total), 1)}"></progress>'


def metric_tiles(found: Mapping[str, float]) -> str:
    """Return numbers with their names, as tiles."""
    tiles = "".join(
        f'<div class="tile"><div class="number">{escaped(format_number(value))}</div>'
        f'<div class="sub">{escaped(name)}</div></div>'
        for name, value in found.items()
    )
    return f'<div class="tiles">{tiles}</div>'


def format_number(value: float) -> str:
    """Format a number for people: integers with thousands separators, others to four digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4g}"


def _lists(catalog: Catalog, outcome: BatchResult) -> str:
    rows = ""
    for answer in outcome.answers[:_LINES]:
        titles = "; ".join(f"{n}. {catalog.label(one.row)}" for n, one in enumerate(answer.items[:_TOP], 1))
        place = "" if answer.place is None else ("not listed" if answer.place == 0 else str(answer.place))
        asked = answer.row.message or (f"user {answer.row.user_id}" if answer.row.user_id else "items")
        cells = (str(answer.row.request_id)[:60], asked[:80], titles or "nothing left", place)
        rows += f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in cells)}</tr>"
    left = len(outcome.answers) - _LINES
    more = muted_line(f"{left} more requests are ranked and not shown.") if left > 0 else ""
    return table(("request", "goes by", f"first {_TOP} items", "place of the target"), rows) + more


def table(heads: Sequence[str], rows: str, caption: str = "") -> str:
    """Return a table that scrolls sideways on a narrow page; `rows` is HTML made by this module."""
    top = "".join(f'<th scope="col">{escaped(head)}</th>' for head in heads)
    said = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'


def bar_chart(title: str, values: Sequence[tuple[str, int]]) -> str:
    """Return horizontal bars with their counts; empty without values."""
    most = max((count for _, count in values), default=0)
    if not most:
        return ""
    lines = "".join(
        f'<div class="bar-name">{escaped(name)}</div><div class="bar"><span style="width:{100 * count / most:.1f}%">'
        f'</span></div><div class="bar-count">{count:,}</div>'
        for name, count in values
    )
    return f'<section class="plot"><h3>{escaped(title)}</h3><div class="bars">{lines}</div></section>'


def fact_list(found: Sequence[tuple[str, str]]) -> str:
    """Return a list of (name, value) pairs."""
    rows = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in found)
    return f'<dl class="facts">{rows}</dl>'


def semantic_id_map(catalog: Catalog, points: Sequence[MapPoint], total: int) -> str:
    """Return the map of the semantic IDs: each item is a dot with its title, in the colour of its first code."""
    by_code: dict[int, list[MapPoint]] = {}
    for point in points:
        by_code.setdefault(point.code, []).append(point)
    dots = "".join(
        f'<g style="fill:{code_colour(code)}">{"".join(_dot(catalog, one) for one in own)}</g>'
        for code, own in sorted(by_code.items())
    )
    shown = "" if len(points) == total else f" {len(points):,} of {total:,} are drawn."
    words = (
        "Each dot is an item where its semantic ID puts it: two principal components of its codes' centroids. "
        f"One colour is one first code. Point at a dot for its title.{shown}"
    )
    return f'{muted_line(words)}<svg class="sid-map"><title>Map of the semantic IDs</title>{dots}</svg>'


def _dot(catalog: Catalog, one: MapPoint) -> str:
    # leave a margin for the dots at the edges
    x, y = 1.5 + 97 * one.x, 1.5 + 97 * (1 - one.y)
    return f'<circle cx="{x:.1f}%" cy="{y:.1f}%" r="3.5"><title>{escaped(catalog.label(one.row))}</title></circle>'


def code_colour(code: int) -> str:
    """Return a colour for a code: hues a golden angle apart, in three lightnesses visible on light and dark."""
    return f"hsl({code * 137.508 % 360:.0f} 55% {(44, 54, 62)[code % 3]}%)"


def code_groups(catalog: Catalog, found: Sequence[CodeGroup]) -> str:
    """Return a table of the largest first codes and their items."""
    rows = ""
    for one in found:
        swatch = f'<span class="swatch" style="background:{code_colour(one.code)}"></span>{one.code}'
        common = ", ".join(f"{tag} {share:.0%}" for tag, share in one.tags) or "no common tag"
        some = "; ".join(catalog.label(row) for row in one.rows)
        rows += f"<tr><td>{swatch}</td><td>{one.size}</td><td>{escaped(common)}</td><td>{escaped(some)}</td></tr>"
    return table(("first code", "items", "most common tags", "examples"), rows)


def learning_curves(found: Mapping[str, Points]) -> str:
    """Return a plot for each series, over the number of training tokens."""
    return "".join(_curve(name, points) for name, points in sorted(found.items()))


def _curve(name: str, points: Points) -> str:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    wide, tall = max(xs[-1] - xs[0], 1e-9), max(high - low, 1e-9)
    at = [(100 * (x - xs[0]) / wide, 4 + 92 * (1 - (y - low) / tall)) for x, y in points]
    lines = "".join(
        f'<line x1="{a:.2f}%" y1="{b:.2f}%" x2="{c:.2f}%" y2="{d:.2f}%"></line>' for (a, b), (c, d) in pairwise(at)
    )
    first, last, least, most = (format_number(y) for y in (ys[0], ys[-1], low, high))
    ends = f"from {first} to {last}, lowest {least}, highest {most}"
    return (
        f'<section class="plot"><h3>{escaped(name)}</h3>'
        f'<svg class="curve"><title>{escaped(f"{name}: {ends}")}</title>{lines}</svg>'
        f'<div class="sub">{escaped(f"{ends}; {format_number(xs[0])} to {format_number(xs[-1])} tokens")}</div>'
        "</section>"
    )


def result_tables(found: Sequence[ResultTable], unread: Sequence[str]) -> str:
    """Return a table for each result file, with intervals and provenance."""
    said = "".join(muted_line(line) for line in unread)
    return said + "".join(_result(one) for one in found)


def _result(one: ResultTable) -> str:
    rows = ""
    for name, values in one.rows:
        cells = "".join(f"<td>{_estimate(value)}</td>" for value in values)
        rows += f'<tr><th scope="row">{escaped(name)}</th>{cells}</tr>'
    wanted = "".join(
        f'<tr><th scope="row">{escaped(name.replace("_", " "))}</th>'
        f"<td>{escaped('not measured' if value is None else format_number(value))}</td></tr>"
        for name, value in one.targets
    )
    tables = table(("", *one.metrics), rows) if one.metrics else ""
    targets = table(("target", "value"), wanted) if wanted else ""
    heading = f"<h3>{escaped(f'{one.name}: {one.dataset}')}</h3>"
    return f'<section class="result">{heading}{tables}{targets}{muted_line(one.source)}</section>'


def _estimate(value: tuple[float, float, float] | None) -> str:
    if value is None:
        return escaped("\N{EM DASH}")
    mean, low, high = value
    interval = (
        f' <span class="sub">{escaped(f"{format_number(low)} to {format_number(high)}")}</span>' if low != high else ""
    )
    return f"{escaped(format_number(mean))}{interval}"
