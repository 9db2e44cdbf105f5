"""Logs the metrics of a run to the screen, to a JSON Lines file and to experiment trackers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from llmrec.finetune.train.loop import State
from llmrec.finetune.train.trackers import Log
from llmrec.progress import Say


class MetricsLog:
    """Metrics of one run, one JSON object per line: `step`, `tokens`, `seconds`, and losses or `ndcg10`.

    Args:
        path: the file; on resuming, lines after the resumed step are dropped, so that no step appears twice.
        total: tokens of the whole run, for the estimate of the time left.
        say: prints a line.
        log: passes the same values to trackers, or None.
    """

    def __init__(self, path: Path, total: int, say: Say, log: Log | None = None) -> None:
        self.path, self.total, self.say, self.log = path, total, say, log

    def resume(self, state: State) -> None:
        """Drop lines that were written after the checkpoint that the run resumes from."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if int(json.loads(line)["step"]) <= state.step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # the incomplete last line of a killed run
        self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def losses(self, state: State, means: Mapping[str, float]) -> None:
        """Record and print the mean losses since the last call."""
        self._record(state, means)
        rate = state.tokens / max(state.seconds, 1e-9)
        left = max(0.0, self.total - state.tokens) / max(rate, 1e-9) / 60  # the last pack may exceed the total
        kinds = "  ".join(f"{n} {v:.3f}" for n, v in means.items() if not n.startswith("task/"))
        tasks = " ".join(f"{n.removeprefix('task/')} {v:.2f}" for n, v in means.items() if n.startswith("task/"))
        self.say(f"step {state.step}  {kinds}  | {tasks} |  {rate:.0f} tokens/s  {left:.0f} min left of fine-tuning")

    def validation(self, state: State, ndcg10: float) -> None:
        """Record and print a validation result."""
        self._record(state, {"ndcg10": ndcg10})
        self.say(f"step {state.step}  validation ndcg@10 {ndcg10:.4f} (best so far {max(state.best, ndcg10):.4f})")

    def _record(self, state: State, values: Mapping[str, float]) -> None:
        line = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 1), **values}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.log is not None:
            self.log({**values, "tokens": state.tokens}, state.step)
