"""finetune, app and eval stand on the library and do not know each other; text and markup have one way in and out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPS = ("finetune", "app", "eval")
FILES = sorted(p for folder in ("llmrec", *TOPS) for p in (ROOT / folder).glob("*.py"))


def imported(path):
    """Names of llmrec modules that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_imports_point_one_way(path):
    used = {top for name in imported(path) for top in TOPS if re.match(rf"llmrec\.{top}\b", name)}
    if path.parent.name == "app" and path.name.startswith("cli"):
        return  # the command line dispatches to all three, inside its verbs
    assert used <= {path.parent.name}, f"{path} imports {used}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_and_functions_stay_small(path):
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 500
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno < 50, f"{path.name}: {node.name}"


def test_text_becomes_ids_in_render_only():
    for path in FILES:
        if path.name in ("render.py", "embed.py"):  # MiniLM's ids never meet the language model's
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
