"""What the documents say of evidence is what evidence says of itself, and each test they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloister.evidence.compliance import CLAIMS_NOT_MADE
from cloister.evidence.summary import Summary
from cloister.evidence.verifier import CHECK_IDS

ROOT = Path(__file__).parents[2]
RECEIPTS = ROOT / "docs" / "explanation" / "what-a-receipt-proves.md"
EVIDENCE = ROOT / "docs" / "explanation" / "evidence.md"


def words(page: Path) -> str:
    """A page's text in one line."""
    return " ".join(page.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("claim", CLAIMS_NOT_MADE)
def test_every_claim_that_receipts_do_not_make_is_explained_word_for_word(claim: str) -> None:
    assert f"- {claim}" in words(RECEIPTS)


def section(page: Path, title: str) -> str:
    """What stands under a heading, up to the next."""
    return page.read_text(encoding="utf-8").split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_check_is_explained_in_its_order() -> None:
    lines = section(RECEIPTS, "The checks").splitlines()
    explained = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    assert tuple(explained) == CHECK_IDS


def test_every_part_of_the_summary_has_its_place_on_the_page() -> None:
    places = section(RECEIPTS, "Where to find what")
    assert [name for name in Summary.model_fields if name not in places] == []


def test_every_attack_that_is_explained_is_tried_by_a_test_of_that_name() -> None:
    named = re.findall(r"\| `(test_\w+)` \|$", EVIDENCE.read_text(encoding="utf-8"), re.MULTILINE)
    there = set()
    for module in (ROOT / "tests").rglob("test_*.py"):
        there.update(re.findall(r"^def (test_\w+)\(", module.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(named) >= 15
    assert [one for one in named if one not in there] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_page_that_is_linked_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
