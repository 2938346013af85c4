"""Every property that is asked of the immune system has a test that bears its number; `properties.txt` lists
them, with the decision that restates one where its wording can't hold.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

LISTED = re.compile(r"(PIC-P[0-9]+) +\S.*?\.(?: Restated: ([0-9]{4}(?:, [0-9]{4})*)\.)?")
BEARS = re.compile(r"(PIC-P[0-9]+)\b")


def listed() -> dict[str, tuple[str, ...]]:
    """The properties, each with the decisions that restate it."""
    lines = (Path(__file__).parent / "properties.txt").read_text().splitlines()
    found = [LISTED.fullmatch(line) for line in lines]
    assert None not in found, [line for line, one in zip(lines, found, strict=True) if one is None]
    return {one[1]: tuple((one[2] or "").split(", ")) if one[2] else () for one in found if one is not None}


def documented() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "PIC-P" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield path, node, ast.get_docstring(node) or ""


@cache
def borne() -> dict[str, list[str]]:
    """The tests whose docstring begins with a property's number."""
    found: dict[str, list[str]] = {}
    for path, node, docstring in documented():
        number = BEARS.match(docstring)
        if number is not None:
            found.setdefault(number[1], []).append(f"{path.name}::{node.name}")
    return found


def test_the_list_has_each_property_once_and_the_twenty_of_the_seed() -> None:
    lines = (Path(__file__).parent / "properties.txt").read_text().splitlines()
    assert len(listed()) == len(lines)
    essential = {1, 2, 3, 4, 5, 6, 7, 11, 16, 18, 19, 21, 24, 38, 48, 49, 52, 56, 61, 65}
    assert {f"PIC-P{number}" for number in essential} <= listed().keys()


@pytest.mark.parametrize("number", listed())
def test_each_property_has_a_test_that_bears_its_number(number: str) -> None:
    assert borne().get(number), f"no test's docstring begins with {number}"


def test_no_test_bears_a_number_that_nobody_asked_for() -> None:
    assert borne().keys() - listed().keys() == set()


@pytest.mark.parametrize("number", [number for number, restated in listed().items() if restated])
def test_where_a_property_is_restated_the_decision_says_so(number: str) -> None:
    for decision in listed()[number]:
        (path,) = (ROOT / "docs" / "adr").glob(f"{decision}-*.md")
        _, _, restated = path.read_text(encoding="utf-8").partition("## Properties restated")
        named = {
            f"PIC-P{one}"
            for line in restated.splitlines()
            if line.startswith("- ")
            for one in re.findall(r"(?:PIC-P|\bP|Property )([0-9]+)", line)
        }
        assert number in named, f"decision {decision} doesn't restate {number}"
