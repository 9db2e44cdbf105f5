"""Writes constraints-hashed.txt: every version of constraints.txt with the sha256 of each of its files on PyPI.

Usage: python tests/lock.py, with `uv` installed; `make lock` does both. Installing with hashes:
    pip install --no-deps --require-hashes -r constraints-hashed.txt
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# constraints.txt with the sha256 of every file of each release; written by `make lock`, not by hand.\n"
# torch's wheels without CUDA are not on PyPI; this is the one that the project is tested with.
CPU_TORCH = {
    "2.13.0": (
        "# torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl, of PyTorch's own index, is the last of its hashes",
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    )
}


def main() -> int:
    """Ask PyPI for the hashes and write the file; 1 when torch is pinned to a version without a known CPU wheel."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "hashed.txt"
        command = [
            "uv",
            "pip",
            "compile",
            "constraints.txt",
            "--no-deps",
            "--generate-hashes",
            "--no-header",
            "--quiet",
            "--universal",  # keeps what only a later Python or another system needs, with its marker
        ]
        command += ["--no-annotate", "--python-version", "3.11.9", "-o", str(made)]
        subprocess.run(command, cwd=ROOT, check=True)
        text = made.read_text("utf-8")
    return write(text)


def write(text: str) -> int:
    """Add the header and the hash of the CPU wheel to what uv made."""
    out, version = [HEADER], ""
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            version = line.split("==")[1].split()[0] if line.startswith("torch==") else ""
        out.append(line + "\n")
        if version and line.startswith(" ") and not line.endswith("\\"):
            if version not in CPU_TORCH:
                print(f"no hash of a CPU wheel of torch {version} is known; add it to tests/lock.py", file=sys.stderr)
                return 1
            remark, digest = CPU_TORCH[version]
            out[-1] = f"{line} \\\n    --hash=sha256:{digest}\n"
            out.insert(1, remark + "\n")
    (ROOT / "constraints-hashed.txt").write_text("".join(out), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
