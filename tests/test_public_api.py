"""What `import llmrec` offers: the public names, loaded when they are used, and last release's spellings."""

import importlib
import subprocess
import sys

import pytest

import llmrec

NAMES = {
    "Catalog": "llmrec.data.catalog",
    "Chat": "llmrec.dialogue.chat",
    "Filters": "llmrec.data.filters",
    "Item": "llmrec.data.catalog",
    "Recommender": "llmrec.recommender",
    "Request": "llmrec.data.requests",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_what_its_module_defines(name):
    assert getattr(llmrec, name) is getattr(importlib.import_module(NAMES[name]), name)
    assert name in dir(llmrec)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match="no attribute 'Recomender'; public are: Catalog, Chat, Filters"):
        _ = llmrec.Recomender


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'numpy', 'torch', 'transformers', 'gradio', 'pydantic'}"
    code = f"import sys, llmrec; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("old", "name"), [("recommend", "Recommender"), ("recommend", "Request"), ("chat", "Chat"), ("filters", "Filters")]
)
def test_the_spellings_of_the_last_release_work_and_warn(old, name):
    sys.modules.pop(f"llmrec.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"llmrec.{old} is llmrec."):
        module = importlib.import_module(f"llmrec.{old}")
    assert getattr(module, name) is getattr(llmrec, name)
