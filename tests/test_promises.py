"""Every promise has tests, and every test that the tables name is there and states something."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from mutation_list import MUTATIONS, Mutation

from llmrec.eval.reliability.faults import FAULTS
from llmrec.eval.reliability.promises import PROMISES, Claim

HERE = Path(__file__).parent
CLAIMS = [*((f"promise {number}", claim) for number, claim in PROMISES.items()), *FAULTS.items()]


@cache
def functions(file: Path) -> dict[str, ast.FunctionDef]:
    """The functions at the top of a file, by name."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def states(function: ast.FunctionDef, helpers: dict[str, ast.FunctionDef]) -> bool:
    """Whether a test can fail: an assertion, pytest.raises or a numpy comparison, in it or in a helper it calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Raise) and "AssertionError" in ast.dump(node):
            return True
        if isinstance(node, ast.Attribute) and (node.attr in {"raises", "fail"} or node.attr.startswith("assert_")):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in helpers:
            rest = {name: one for name, one in helpers.items() if name != node.func.id}
            if states(helpers[node.func.id], rest):
                return True
    return False


def test_there_are_twenty_five_promises() -> None:
    assert list(PROMISES) == list(range(1, 26))
    assert len({claim.words for claim in PROMISES.values()}) == 25


@pytest.mark.parametrize(("name", "claim"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_the_tests_of_a_claim_exist_and_state_something(name: str, claim: Claim) -> None:
    assert claim.tests, f"{name} has no test"
    assert len(set(claim.tests)) == len(claim.tests)
    for test in claim.tests:
        file, _, function = test.partition("::")
        assert function.startswith("test_")
        assert (HERE / file).is_file(), f"{name}: no file {file}"
        found = functions(HERE / file)
        assert function in found, f"{name}: {file} has no {function}"
        assert states(found[function], found), f"{name}: {test} states nothing"


@pytest.mark.parametrize(("name", "claim"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_the_variables_of_a_claim_are_read_by_its_tests(name: str, claim: Claim) -> None:
    files = {(HERE / test.partition("::")[0]).read_text("utf-8") for test in claim.tests}
    for variable in claim.more:
        assert variable.startswith("LLMREC_TEST_")
        assert any(variable in file for file in files), f"{name}: nothing reads {variable}"


@pytest.mark.parametrize(
    "number", [number for number, claim in PROMISES.items() if "one kind of machine" in claim.words]
)
def test_promises_of_equal_bits_are_tried_on_every_kernel(number: int) -> None:
    """`make kernels` runs what is marked."""
    for test in PROMISES[number].tests:
        file, _, name = test.partition("::")
        marks = [ast.unparse(one) for one in functions(HERE / file)[name].decorator_list]
        assert "pytest.mark.kernels" in marks, f"promise {number}: {test} is not run on other kernels"


def test_a_test_that_states_nothing_is_seen() -> None:
    tree = ast.parse("def helper(): pass\ndef test_a(): helper()\ndef test_b(): assert helper()")
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert not states(found["test_a"], found)
    assert states(found["test_b"], found)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[one.name for one in MUTATIONS])
def test_a_mutation_still_fits_the_code_and_names_a_test(mutation: Mutation) -> None:
    """`make mutations` makes them; here it is only seen that they could be made."""
    assert mutation.promise in PROMISES
    assert (HERE.parent / mutation.file).read_text("utf-8").count(mutation.old) == 1
    file, _, function = mutation.test.partition("::")
    assert function in functions(HERE.parent / file)


def test_ten_promises_or_more_are_broken_on_purpose() -> None:
    assert len({one.promise for one in MUTATIONS}) >= 10
