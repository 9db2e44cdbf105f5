"""Lays the four packages out as they are installed, for tools that read source and cannot follow `package-dir`.

`python tests/source_tree.py DIR` makes `DIR/llmrec`: links to every module of `llmrec/`, and to `app`, `eval`,
`finetune` and `prompts` as sub-packages of it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOPS = ("app", "eval", "finetune", "prompts")


def lay_out(folder: Path) -> Path:
    """Make the tree anew and return it; what stood there before is removed."""
    package = folder / "llmrec"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    inside = [path for path in (ROOT / "llmrec").iterdir() if path.name != "__pycache__"]
    for path in (*inside, *(ROOT / top for top in TOPS)):
        (package / path.name).symlink_to(path, target_is_directory=path.is_dir())
    return package


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
