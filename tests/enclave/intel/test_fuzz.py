"""Mutated quotes, collateral and event logs: a verdict or an AttestationError, and never anything else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from cloister.enclave import AttestationError, Evidence, Status
from cloister.enclave.attestation import CollateralDocument, CollateralKind, Tee
from cloister.enclave.attestation.collateral_kinds import examine, recognise
from cloister.enclave.attestation.intel.dcap import read_collateral
from cloister.enclave.attestation.intel.eventlog import read_event_log, replay
from tests.enclave.intel.scene import Scene, published
from tests.enclave.intel.test_eventlog import LOG
from tests.evidence.attacks.test_fuzz import HOSTILE, mutated
from tests.nightly import nightly_seed, spread

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

SCENE: Final = Scene()
QUOTE: Final = SCENE.evidence().report
SET: Final = published().data
NIGHT: Final = 40_000


def judge_quote(data: bytes) -> None:
    verdict = SCENE.verify(Evidence(Tee.INTEL_TDX, data))
    assert verdict.status is Status.UNTRUSTED or data[: len(QUOTE)] == QUOTE


def judge_with_set(data: bytes) -> None:
    """Collateral that says something else was not signed, so nothing it would allow is allowed."""
    document = CollateralDocument(CollateralKind.INTEL_DCAP, data)
    verdict = replace(SCENE, collateral=(document,)).verify(Evidence(Tee.INTEL_TDX, QUOTE))
    if verdict.status is Status.TRUSTED:
        assert read_collateral(data).tcb_info == read_collateral(SET).tcb_info


def judge_log(data: bytes) -> None:
    SCENE.verify(Evidence(Tee.INTEL_TDX, QUOTE, extras={"ccel": data}))
    with contextlib.suppress(AttestationError):
        replay(read_event_log(data))


def take_in(data: bytes) -> None:
    with contextlib.suppress(AttestationError):
        examine(recognise(data), SCENE.trust)
    for kind in CollateralKind:
        with contextlib.suppress(AttestationError):
            examine(CollateralDocument(kind, data), SCENE.trust)


TARGETS: Final[dict[str, tuple[Callable[[bytes], None], bytes]]] = {
    "quote": (judge_quote, QUOTE),
    "enclave's quote": (judge_quote, SCENE.enclave().report),
    "collateral": (judge_with_set, SET),
    "event log": (judge_log, LOG),
    "imported document": (take_in, SET),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_sample_itself_is_taken(name: str) -> None:
    judge, sample = TARGETS[name]
    judge(sample)


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_shapes_end_in_a_verdict_or_the_typed_error(name: str) -> None:
    judge, _ = TARGETS[name]
    for data in HOSTILE.values():
        judge(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_samples_end_in_a_verdict_or_the_typed_error(name: str) -> None:
    judge, sample = TARGETS[name]
    draw = random.Random(2026)
    for _ in range(100):
        judge(mutated(sample, draw))


@pytest.mark.nightly
@pytest.mark.parametrize("name", TARGETS)
def test_a_night_of_mutated_samples_ends_in_verdicts_and_typed_errors(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    judge, sample = TARGETS[name]
    for case in spread(range(NIGHT), record_property):
        judge(mutated(sample, random.Random(nightly_seed() * NIGHT + case)))
