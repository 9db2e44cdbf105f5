"""Charts of the report: bars with intervals, lines and points, as SVG with reproducible bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.errors import RequestError
from llmrec.eval.result_file import Estimate
from llmrec.storage.artifacts import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Names come from result files: they are drawn literally, not parsed as formulas. A fixed salt makes SVG ids
# reproducible.
_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.hashsalt": "llmrec",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
}
_BESIDE: Mapping[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "fontsize": 8, "frameon": False}
_MARKS = "osD^vP"  # there are more names than colours
Point = tuple[float, float]


def bars(path: Path, labels: Sequence[str], series: Mapping[str, Sequence[Estimate | None]], unit: str) -> None:
    """Horizontal bars with 95 % intervals, grouped by label; None leaves a gap.

    Args:
        path: SVG file to write.
        labels: one per group, the first on top.
        series: name to one estimate per label.
        unit: axis label.
    """
    height = 0.8 / max(len(series), 1)

    def draw(axes: Axes) -> None:
        for place, (name, values) in enumerate(series.items()):
            shown = [(i, value) for i, value in enumerate(values) if value is not None]
            means = np.array([value.mean for _, value in shown])
            # Rounding can move a mean outside its interval by the last digit; matplotlib refuses negative lengths.
            low = np.maximum(means - [value.ci95[0] for _, value in shown], 0.0)
            high = np.maximum(np.array([value.ci95[1] for _, value in shown]) - means, 0.0)
            where = [i + (place - (len(series) - 1) / 2) * height for i, _ in shown]
            axes.barh(where, means, height, xerr=[low, high], label=name, error_kw={"lw": 0.8, "ecolor": "#444"})
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        if len(series) > 1:
            axes.legend(**_BESIDE)

    _write(path, draw, 1.0 + 0.22 * len(labels) * (1 + 0.6 * (len(series) - 1)))


def lines(path: Path, series: Mapping[str, Sequence[Point]], across: str, up: str) -> None:
    """Draw a line for each name through its (x, y) points."""

    def draw(axes: Axes) -> None:
        for name, points in series.items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".", lw=1, label=name)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.legend(**_BESIDE)

    _write(path, draw, 3.2)


def points(path: Path, series: Mapping[str, Point], across: str, up: str) -> None:
    """Draw a mark for each (x, y), with a legend beside the axes."""

    def draw(axes: Axes) -> None:
        for place, (name, (x, y)) in enumerate(series.items()):
            axes.scatter([x], [y], s=28, marker=_MARKS[place % len(_MARKS)], label=name)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.legend(**_BESIDE)

    _write(path, draw, 3.6)


def _write(path: Path, draw: Callable[[Axes], None], height: float) -> None:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise RequestError(
            "matplotlib is not installed, and the report has pictures: pip install 'llmrec[eval]'"
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = io.BytesIO()
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(8.0, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(sink, format="svg", metadata={"Date": None})
    write_bytes_atomic(path, sink.getvalue())
