"""The page of promises names tests that exist, and every promise has its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "reference" / "immune-semantics.md"
PROMISE = re.compile(r"^- (?P<promise>.+\.) `(?P<file>test_\w+\.py)::(?P<test>test_\w+)`$")


def _promises() -> list[re.Match[str]]:
    promised, _, _ = PAGE.read_text().partition("## What it can't do")
    lines = [line for line in promised.splitlines() if line.startswith("-")]
    found = [PROMISE.match(line) for line in lines]
    assert None not in found, [line for line, match in zip(lines, found, strict=True) if match is None]
    return [match for match in found if match]


def _tests(file: str) -> set[str]:
    tree = ast.parse((HERE / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_promise_names_one_test_that_exists_and_no_two_the_same() -> None:
    promises = _promises()
    assert len(promises) >= 39
    named = [(one["file"], one["test"]) for one in promises]
    assert len(set(named)) == len(named)
    assert [one for one in named if one[1] not in _tests(one[0])] == []


def test_no_test_of_semantics_is_without_a_promise() -> None:
    named = {one["test"] for one in _promises()}
    for file in ("test_signatures.py", "test_kinds.py", "test_descriptors.py", "test_blocking.py"):
        assert {name for name in _tests(file) if name.startswith("test_")} - named == set()
