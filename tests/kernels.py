"""Runs the tests marked `kernels` with every kernel of OpenBLAS, several numbers of threads, and fewer instructions.

Usage: kernels.py [--kernel NAME] [--threads N]. Prints a table; exits with 1 when a test fails anywhere. What this
processor cannot run is passed over, and the table says so.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
KERNELS = ("Haswell", "SkylakeX", "Zen", "Sandybridge", "Prescott")
THREADS = (1, 2, 4)
# torch's own kernels and oneDNN's as on a processor without AVX-512
LESS: tuple[Mapping[str, str], ...] = ({"ATEN_CPU_CAPABILITY": "avx2"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"})
PYTEST = (sys.executable, "-m", "pytest", "-m", "kernels", "-p", "no:cacheprovider")
# multiplies with numpy's OpenBLAS and inverts with scipy's, then tells whose kernels these were
PROBE = """
import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_info
x = np.random.default_rng(0).normal(size=(65, 65))
linalg.inv(x @ x.T + x.astype(np.float32) @ x.astype(np.float32).T + np.eye(65))
print(*sorted({one["architecture"] for one in threadpool_info() if one["internal_api"] == "openblas"}))
"""


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Attributes:
        named: the settings.
        said: the closing line of pytest, or why there was no run.
        failed: names of tests, or the end of the output where there are none.
        seconds: that it took.
    """

    named: str
    said: str
    failed: tuple[str, ...] = ()
    seconds: float = 0.0


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's, without what would stand in the way of the settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "OPENBLAS_", "OMP_", "MKL_"))
    }
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", **settings}


def passed_over(kernels: Sequence[str]) -> dict[str, str]:
    """Why a kernel is not run here, empty where it is: the processor cannot, or OpenBLAS takes one that is run anyway.

    What OpenBLAS says that it took may have another name: its build for Prescott calls itself Katmai.
    """
    taken: dict[str, str] = {}
    why: dict[str, str] = {}
    for kernel in kernels:
        found = subprocess.run(
            [sys.executable, "-c", PROBE],
            env=environment({"OPENBLAS_CORETYPE": kernel}),
            capture_output=True,
            text=True,
        )
        if found.returncode:
            why[kernel] = "passed over: this processor cannot run it"
        else:
            own = taken.setdefault(found.stdout.strip(), kernel)
            why[kernel] = "" if own == kernel else f"passed over: this build of OpenBLAS takes {own} for it"
    return why


def files() -> list[str]:
    """The files that hold marked tests: collecting the others in every run would take most of the time."""
    done = subprocess.run(
        [*PYTEST, "--collect-only", str(ROOT / "tests")], env=environment({}), cwd=ROOT, capture_output=True, text=True
    )
    found = sorted({line.split("::")[0] for line in done.stdout.splitlines() if "::" in line})
    if done.returncode or not found:
        sys.exit(
            f"no test is marked `kernels`, or they cannot be collected:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return found


def run(settings: Mapping[str, str], tests: list[str]) -> Outcome:
    """The marked tests with these settings."""
    named, started = ", ".join(f"{name}={value}" for name, value in settings.items()), time.monotonic()
    done = subprocess.run([*PYTEST, *tests], env=environment(settings), cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    failed = tuple(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE))
    if done.returncode and not failed:
        failed = (f"pytest ended with {done.returncode}: {' | '.join(lines[-3:])}",)
    return Outcome(named, lines[-1].strip("= "), failed, time.monotonic() - started)


def main() -> int:
    """Run the whole matrix, or one kernel or number of threads of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", choices=KERNELS, help="this kernel of OpenBLAS alone")
    parser.add_argument("--threads", type=int, choices=THREADS, help="this number of threads alone")
    asked = parser.parse_args()
    kernels = KERNELS if asked.kernel is None else (asked.kernel,)
    threads = THREADS if asked.threads is None else (asked.threads,)
    tests = files()
    why = passed_over(kernels)
    todo: list[Mapping[str, str]] = [
        {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": str(n), "OMP_NUM_THREADS": str(n)}
        for kernel in kernels
        for n in threads
        if not why[kernel]
    ]
    todo += LESS if asked.kernel is None else ()
    outcomes = [Outcome(f"OPENBLAS_CORETYPE={kernel}", reason) for kernel, reason in why.items() if reason]
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        outcomes += pool.map(lambda settings: run(settings, tests), todo)
    wide = max(len(one.named) for one in outcomes)
    for one in outcomes:
        print(f"{one.named:{wide}}  {'FAILED' if one.failed else 'ok' if one.seconds else '-':6}  {one.said}")
        print("".join(f"    {name}\n" for name in one.failed), end="")
    return int(any(one.failed for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
