"""The decoding benchmark as a picture: how many times faster than `generate`, by beams, prompt length and users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmrec.eval.bench.decode import Cell


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Write an SVG of speed-ups: a panel for each number of users, a line for each length of prompt."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    users = sorted({cell.users for cell in cells})
    figure, panels = pyplot.subplots(1, len(users), figsize=(4.5 * len(users), 3.6), sharey=True, squeeze=False)
    for panel, number in zip(panels[0], users, strict=True):
        for length in sorted({cell.length for cell in cells}):
            line = sorted((c for c in cells if c.users == number and c.length == length), key=lambda c: c.beams)
            panel.plot([c.beams for c in line], [c.speedup for c in line], marker="o", label=f"{length} tokens")
        panel.set(title=f"{number} user{'s' if number > 1 else ''}", xlabel="beams", yscale="log")
        panel.set_xticks(sorted({cell.beams for cell in cells}))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("times faster than generate")
    panels[0][0].legend(title="prompt", frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})  # the same numbers give the same file
    pyplot.close(figure)
