"""What the documents say of receipts is what receipts say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.evidence.compliance import CLAIMS_NOT_MADE
from cloister.evidence.verifier import CHECK_IDS

EXPLANATION = Path(__file__).parents[2] / "docs" / "explanation" / "what-a-receipt-proves.md"


@pytest.mark.parametrize("claim", CLAIMS_NOT_MADE)
def test_every_claim_that_receipts_do_not_make_is_explained_word_for_word(claim: str) -> None:
    assert f"- {claim}" in " ".join(EXPLANATION.read_text(encoding="utf-8").split())


def test_every_check_is_explained_in_its_order() -> None:
    lines = EXPLANATION.read_text(encoding="utf-8").splitlines()
    explained = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    assert tuple(explained) == CHECK_IDS
