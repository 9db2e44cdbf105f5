"""Run by `make wheel-check` with the Python of a clean environment: what an installed package must be able to do.

No part of the test suite: it needs a wheel that was built and installed. Nothing is fetched.
"""

import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

OPTIONAL = ("ray", "matplotlib", "datasets")
DATA = {
    "llmrec": "py.typed",
    "llmrec.prompts": "talk.yaml",
    "llmrec.app": "theme.css",
    "llmrec.finetune": "recipes/smoke.yaml",
}


def main() -> None:
    """Import everything, find the data files, prepare and check a small catalogue; the first failure ends it."""
    import llmrec

    root = Path(llmrec.__file__).parent
    assert "site-packages" in root.parts, f"not the installed package: {root}"
    names = [one.name for one in pkgutil.walk_packages(llmrec.__path__, "llmrec.")]
    assert {f"llmrec.{top}" for top in ("finetune", "app", "eval", "prompts")} <= set(names)
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            assert (error.name or "").split(".")[0] in OPTIONAL, f"{name}: {error}"
    for package, name in DATA.items():
        assert files(package).joinpath(name).is_file(), f"{package} has no {name}"
    with tempfile.TemporaryDirectory() as folder:
        commands(Path(folder))
    print(f"{len(names)} modules, data files and commands are there: {root}")


def commands(folder: Path) -> None:
    """The command itself, from its own script, away from any source tree."""
    (folder / "items.csv").write_text("item_id,title,price\n" + "".join(f"i{n},Thing {n},{n}.5\n" for n in range(20)))
    rows = "".join(f"u{u},i{(u + s) % 20},{s}\n" for u in range(12) for s in range(5))
    (folder / "log.csv").write_text("user_id,item_id,at\n" + rows)
    llmrec = str(Path(sys.executable).with_name("llmrec"))
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    tables = ["--items", "items.csv", "--interactions", "log.csv", "--number", "price", "--time", "at"]
    for words, code, said in (
        (["--help"], 0, "recommend"),
        (["train", "--help"], 0, "Example"),
        (["data", "prepare", "--source", "table", *tables, "--out", "data"], 0, "items 20"),
        (["data", "check", "data"], 0, "few-targets"),
        (["data", "check", "nowhere"], 2, "error: "),
        (["recommend", "--message", "cheap"], 2, "the shipped one is not beside this installation"),
    ):
        done = subprocess.run([llmrec, *words], cwd=folder, capture_output=True, text=True, env=offline)
        assert done.returncode == code and said in done.stdout + done.stderr, (words, done.stdout, done.stderr)


if __name__ == "__main__":
    main()
