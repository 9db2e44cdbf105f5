"""finetune, app and eval stand on the library and do not know each other; text and markup have one way in and out."""

import ast
import os
import re
import tomllib
from pathlib import Path

import pytest
from source_tree import ROOT, lay_out

TOPS = ("finetune", "app", "eval")
FILES = sorted(p for folder in ("llmrec", *TOPS) for p in (ROOT / folder).rglob("*.py"))
NAMES = {path: path.relative_to(ROOT).as_posix() for path in FILES}
TO_IDS = ("llmrec/lm/rendering.py", "llmrec/encoders/text.py")  # MiniLM's ids never meet the language model's


def imported(path):
    """Names of llmrec modules that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_imports_point_one_way(path):
    used = {top for name in imported(path) for top in TOPS if re.match(rf"llmrec\.{top}\b", name)}
    if NAMES[path].startswith("app/cli"):
        return  # the command line dispatches to all three, inside its verbs
    assert used <= {NAMES[path].partition("/")[0]}, f"{path} imports {used}"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_files_and_functions_stay_small(path):
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 500
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno < 50, f"{path.name}: {node.name}"


def test_text_becomes_ids_in_render_only():
    for path in FILES:
        if NAMES[path] in TO_IDS:
            continue
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\.encode\([^)]*add_special_tokens|apply_chat_template|tokenizer\(", source), path
    assert "split_special_tokens" not in "".join(p.read_text(encoding="utf-8") for p in FILES)


def test_nothing_unpickles_or_evaluates():
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        assert not re.search(
            r"\bimport pickle|\bpickle\.load|torch\.load\(|(?<![.\w])eval\(|(?<![.\w])exec\(", source
        ), path
        assert "trust_remote_code=True" not in source, path


def test_the_checkers_see_every_module(tmp_path):
    """What mypy and import-linter read is what is installed: each module under the name that it is imported by."""
    package = lay_out(tmp_path)
    walked = os.walk(package, followlinks=True)
    seen = {Path(folder, name).resolve() for folder, _, names in walked for name in names}
    assert set(FILES) <= seen
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["mypy"]["mypy_path"] == "build/tree" and settings["mypy"]["packages"] == ["llmrec"]
    folders = {"/".join((top, *path.parent.relative_to(ROOT / top).parts)) for top in ("llmrec", *TOPS, "prompts")
               for path in (ROOT / top).rglob("*.py")}  # fmt: skip
    installed = {name.removeprefix("llmrec.").replace(".", "/") for name in settings["setuptools"]["packages"]}
    assert folders == {
        name if name.partition("/")[0] in (*TOPS, "llmrec", "prompts") else f"llmrec/{name}" for name in installed
    }


def test_files_that_are_read_at_run_time_are_declared():
    """A wheel holds what package-data names: style sheets, scripts, templates, recipes and tasks."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "package-data"
    ]
    named = set()
    for package, patterns in declared.items():
        inner = package.removeprefix("llmrec.").replace(".", "/")
        folder = inner if inner.partition("/")[0] in (*TOPS, "prompts") else package.replace(".", "/")
        named |= {path for pattern in patterns for path in (ROOT / folder).glob(pattern)}
    kinds = {".yaml", ".jsonl", ".css", ".js", ".json", ".typed", ".txt"}
    there = {path for top in ("llmrec", *TOPS, "prompts") for path in (ROOT / top).rglob("*") if path.suffix in kinds}
    assert {path for path in there if "results" not in path.parts} == named
