"""Breaks promises on purpose: each mutation is made in a copy of the project, and the tests named must then fail.

Usage: python tests/mutations.py [PART OF A NAME ...]; `make mutations` tries all. A mutation that no test notices, or
whose text is no longer in the code, makes the exit code 1. The copy is temporary; the tree is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutation_list import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("llmrec", "app", "eval", "finetune", "prompts", "tests")
FILES = ("pyproject.toml", "constraints.txt", "constraints-hashed.txt", ".importlinter", "README.md")
SECONDS = 300


def copy(target: Path) -> None:
    """A copy of what the tests need, without results and caches."""
    leave = shutil.ignore_patterns("__pycache__", "results", ".*_cache", ".hypothesis")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, ignore=leave)
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)


# Puts the packages of the copy before the installed ones, as the installation maps them.
BOOT = """
import sys
from importlib.util import spec_from_file_location, module_from_spec
from pathlib import Path
root = Path(sys.argv.pop(1))
sys.path.insert(0, str(root))
import llmrec
assert Path(llmrec.__file__).is_relative_to(root), llmrec.__file__
for name in ("finetune", "app", "eval", "prompts"):
    full, folder = f"llmrec.{name}", root / name
    spec = spec_from_file_location(full, folder / "__init__.py", submodule_search_locations=[str(folder)])
    module = module_from_spec(spec)
    sys.modules[full] = module
    spec.loader.exec_module(module)
    setattr(llmrec, name, module)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def notices(root: Path, test: str) -> tuple[int, str]:
    """(pytest's exit code, the last line it printed) of one test in the copy; 1 means that it failed."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BOOT, str(root), "-x", "-q", "-p", "no:cacheprovider", "--no-header", test]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"not over after {SECONDS} s"
    return done.returncode, (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]


def attempt(root: Path, mutation: Mutation) -> str:
    """Make one mutation, run its test, put the file back; '' when it was noticed, else what went wrong."""
    path = root / mutation.file
    sound = path.read_text("utf-8")
    if mutation.old not in sound:
        return f"{mutation.file} no longer holds {mutation.old.strip()[:60]!r}"
    try:
        path.write_text(sound.replace(mutation.old, mutation.new), "utf-8")
        code, last = notices(root, mutation.test)
    finally:
        path.write_text(sound, "utf-8")
    return "" if code == 1 else f"not noticed: pytest ended with {code} ({last})"


def main(wanted: list[str]) -> int:
    """Try the mutations whose name, file or promise holds one of the words; all without words."""
    chosen = [
        one for one in MUTATIONS if not wanted or any(word in f"{one.promise} {one.name} {one.file}" for word in wanted)
    ]
    if not chosen:
        print(f"no mutation is called anything like {' or '.join(wanted)}", file=sys.stderr)
        return 1
    failed = 0
    with tempfile.TemporaryDirectory(prefix="llmrec-mutations-") as folder:
        copy(Path(folder))
        for one in chosen:
            started = time.monotonic()
            wrong = attempt(Path(folder), one)
            failed += bool(wrong)
            verdict = wrong or f"caught by {one.test.partition('::')[2]}"
            print(f"promise {one.promise:2}: {one.name}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} mutations were noticed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
