"""The documentation site has no dead ends: pages, modules and links are there (`make docs` builds it strictly)."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from llmrec.app.cli.main import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def test_the_navigation_leads_to_pages():
    named = [next(iter(one.values())) for one in SITE["nav"]]
    assert set(named) <= {page.name for page in PAGES} and len(set(named)) == len(named) and SITE["strict"] is True


@pytest.mark.parametrize("module", re.findall(r"^::: (\S+)$", (DOCS / "python.md").read_text(), re.MULTILINE))
def test_every_documented_module_is_there_and_says_what_it_is(module):
    assert (importlib.import_module(module).__doc__ or "").strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_and_to_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://", target):
            assert (DOCS / target).exists(), f"{page.name}: {target}"


VERBS = (
    "data prepare", "data append", "data check", "data export-traffic", "items add", "items remove", "items drift",
    "refresh", "export", "push", "card",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb):
    result = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0 and f"Example: llmrec {verb}" in " ".join(result.output.split())
