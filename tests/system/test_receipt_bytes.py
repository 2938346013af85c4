"""One flipped bit anywhere in a real job's receipt is refused by a named check."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.nightly import nightly_seed, spread
from tests.system.conftest import MainJob
from tests.system.tampering import judge

STRIDE = 101
"""Neighbouring bytes mostly share a field; every round of a night begins at another one."""


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_flipped_bit_anywhere_in_a_real_receipt_is_refused_by_name(
    main_job: MainJob, record_property: Callable[[str, object], None]
) -> None:
    receipt = main_job.outcome.receipt.read_bytes()
    draw = random.Random(nightly_seed())
    survivors = []
    for place in spread(range(nightly_seed() % STRIDE, len(receipt), STRIDE), record_property):
        changed = bytearray(receipt)
        changed[place] ^= 1 << draw.randrange(8)
        verdict = judge(main_job.outcome, receipt=bytes(changed))
        if verdict.accepted or not verdict.failures:
            survivors.append(place)
    assert survivors == []
