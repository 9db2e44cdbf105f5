"""Threads that wait sleep, whichever way llmrec is entered, unless the person said otherwise."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = ("OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")
# the command's module, then the library, a verb's numbers, and a process that ranks: each loads its OpenMP anew
ENTER = """
import sys
import llmrec.app.cli.main
assert "torch" not in sys.modules and "numpy" not in sys.modules
from llmrec.batch.process_pool import worker_pool
from llmrec.lm.runtime.onednn import can_prepack
can_prepack()
with worker_pool(1) as pool:
    pool.submit(can_prepack).result()
"""


def enter(code, **given):
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "true", **given}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, re.findall(r"OMP_WAIT_POLICY\s*=\s*'(\w+)'", done.stderr)


def test_openmp_waits_asleep_in_the_command_the_library_and_its_processes():
    policies = enter(ENTER)[1]
    assert len(policies) >= 2 and set(policies) == {"PASSIVE"}


def test_the_settings_stand_before_anything_can_read_them_and_yield_to_a_persons():
    code = f"import llmrec, os, sys; print(*(os.environ[n] for n in {OURS}), 'numpy' in sys.modules)"
    assert enter(code)[0].split() == ["PASSIVE", "4", "False"]
    assert enter(code, OMP_WAIT_POLICY="ACTIVE", OPENBLAS_THREAD_TIMEOUT="20")[0].split() == ["ACTIVE", "20", "False"]


def test_every_way_in_passes_the_settings():
    tree = ast.parse((ROOT / "llmrec" / "__init__.py").read_text("utf-8"))
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {getattr(node, "module", None) or node.names[0].name for node in imported}
    assert named == {"os", "importlib", "typing"}, "nothing that loads a library comes before the settings"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts and all(target.startswith("llmrec.") for target in scripts.values())
    for folder in ("llmrec", "app", "eval", "finetune"):
        for path in (ROOT / folder).rglob("*.py"):
            for given in re.findall(r"\benv=([^,)]+)", path.read_text("utf-8")):
                assert "os.environ" in given, f"{path.name}: a process that is started with env={given}"
