"""The documentation site has no dead ends: pages, modules and links are there (`make docs` builds it strictly)."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from llmrec.app.cli.main import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def leaves(nav: Any) -> Iterator[str]:
    """Pages of the navigation, at any depth."""
    for entry in nav:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else leaves(target)


def test_the_navigation_leads_to_every_page_once():
    assert sorted(leaves(SITE["nav"])) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)
    assert SITE["strict"] is True


@pytest.mark.parametrize("module", re.findall(r"^::: (\S+)$", (DOCS / "python.md").read_text(), re.MULTILINE))
def test_every_documented_module_is_there_and_says_what_it_is(module):
    assert (importlib.import_module(module).__doc__ or "").strip()


def anchors(page: Path) -> set[str]:
    """What GitHub and MkDocs both call the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_and_to_pictures_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([\w-]+))?[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://", target):
            path = page.parent / target if target else page
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(path), f"{page.name}: {target}#{anchor}"


TEXTS = [page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *PAGES)]


@pytest.mark.parametrize("name", sorted({name for text in TEXTS for name in re.findall(r"`(llmrec(?:\.\w+)+)`", text)}))
def test_every_dotted_name_on_a_page_is_there(name):
    pkgutil.resolve_name(name)


def test_every_source_file_on_a_page_is_there():
    files = {name for text in TEXTS for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml|json|jsonl|md))`", text)}
    assert files and not [name for name in sorted(files) if not (ROOT / name).exists()]


VERBS = (
    "data prepare", "data append", "data check", "data export-traffic", "items add", "items remove", "items drift",
    "refresh", "export", "push", "card",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb):
    result = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0 and f"Example: llmrec {verb}" in " ".join(result.output.split())
