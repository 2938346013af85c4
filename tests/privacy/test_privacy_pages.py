"""What the pages on privacy say is so: tests they name exist, figures follow, every limit is explained."""

from __future__ import annotations

import ast
import math
import re
from functools import lru_cache
from xml.etree import ElementTree

import pytest

from cloister.policy.manifest import PrivacyGuardrails
from cloister.privacy.budget import HARD_STOP_EPSILON
from tests.conftest import ROOT

BOUNDARY = (ROOT / "docs" / "PRIVACY_BOUNDARY.md").read_text()
EXPLANATION = (ROOT / "docs" / "explanation" / "differential-privacy.md").read_text()


@lru_cache(maxsize=1)
def names_of_tests() -> frozenset[str]:
    return frozenset(
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )


@pytest.mark.parametrize("page", [BOUNDARY, EXPLANATION], ids=["boundary", "explanation"])
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", page))
    assert named
    assert named <= names_of_tests()


def test_what_an_attacker_can_learn_follows_from_epsilon() -> None:
    rows = re.findall(
        r"^\| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$", EXPLANATION, re.MULTILINE
    )
    assert len(rows) == 6
    for epsilon, *beliefs in rows:
        odds = math.exp(float(epsilon))
        for prior, belief in zip((0.01, 0.1, 0.5), beliefs, strict=True):
            after = prior * odds / (1 - prior + prior * odds)
            assert f"{100 * after:.1f}" == belief


def test_every_limit_of_a_manifest_is_explained_and_the_hard_stop_is_the_codes() -> None:
    for name in PrivacyGuardrails.model_fields:
        assert f"`{name}`" in BOUNDARY, name
    assert f"above {HARD_STOP_EPSILON}" in BOUNDARY
    assert f"stops at {HARD_STOP_EPSILON:g} " in EXPLANATION


@pytest.mark.parametrize("name", ["privacy-boundary", "privacy-step", "epsilon"])
def test_a_picture_stands_alone_and_can_be_read_aloud(name: str) -> None:
    path = ROOT / "docs" / "img" / f"{name}.svg"
    picture = ElementTree.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    for part in ("title", "desc"):
        found = picture.find(f"{space}{part}")
        assert found is not None
        assert found.text
    assert picture.get("aria-labelledby") == "title desc"
    text = path.read_text()
    assert "<script" not in text
    assert "href" not in text
    assert f"img/{name}.svg" in BOUNDARY + EXPLANATION
