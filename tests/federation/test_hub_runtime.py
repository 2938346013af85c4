"""The hub's side of a job: admission on evidence, and what it states about rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from cloister.core.clock import Clock
from cloister.enclave.attestation import Evidence, Tee
from cloister.enclave.tensors import tensors_sha256
from cloister.evidence.predicates import AttestationVerdict, RoundAggregated, Violation
from cloister.federation.node import AggregatedRound, ReleasedUpdate, SiteFailure
from tests.conftest import START as NOON
from tests.federation.nodes import a_job
from tests.federation.parties import DELTA, MEASUREMENT, Federation

JOB = a_job(rounds=2, privacy={"delta": DELTA})


@pytest.fixture
def parties(tmp_path: Path, clock: Clock) -> Iterator[Federation]:
    made = Federation(JOB, tmp_path, clock, measurements={"south": bytes(48)})
    yield made
    made.close()


def test_a_site_that_runs_the_agreed_code_is_admitted_and_the_verdict_is_stated(parties: Federation) -> None:
    hub, site = parties.hub(), parties.site("north")
    challenge = hub.challenge("north")
    admission = hub.admit("north", challenge, site.quote(challenge))
    assert (admission.admitted, admission.reason) == (True, "")
    (statement,) = parties.statements("hub")
    verdict = statement.predicate
    assert isinstance(verdict, AttestationVerdict)
    assert (verdict.site, verdict.status, verdict.simulated) == ("north", "TRUSTED", True)
    assert verdict.measurement == MEASUREMENT.hex()
    assert "SIMULATED" in verdict.platform.upper()


def test_a_site_with_another_measurement_is_refused_and_the_evidence_is_kept(parties: Federation) -> None:
    hub, site = parties.hub(), parties.site("south")
    challenge = hub.challenge("south")
    admission = hub.admit("south", challenge, site.quote(challenge))
    assert (admission.admitted, admission.reason) == (False, "attestation.measurement")
    (statement,) = parties.statements("hub")
    assert isinstance(statement.predicate, AttestationVerdict)
    assert statement.predicate.status == "UNTRUSTED"


def test_an_answer_counts_once(parties: Federation) -> None:
    hub, site = parties.hub(), parties.site("north")
    challenge = hub.challenge("north")
    evidence = site.quote(challenge)
    assert hub.admit("north", challenge, evidence).admitted
    assert hub.admit("north", challenge, evidence).reason == "attestation.replay"


def test_an_answer_to_another_challenge_is_refused(parties: Federation) -> None:
    hub, site = parties.hub(), parties.site("north")
    evidence = site.quote(hub.challenge("north"))
    assert hub.admit("north", hub.challenge("north"), evidence).reason == "attestation.key_binding"


def test_one_site_cannot_answer_for_another(parties: Federation) -> None:
    hub = parties.hub()
    challenge = hub.challenge("west")
    evidence = parties.site("north").quote(challenge)
    assert not hub.admit("west", challenge, evidence).admitted


@pytest.mark.parametrize(
    "spoil",
    [
        lambda evidence: None,
        lambda evidence: b"",
        lambda evidence: b"{}",
        lambda evidence: evidence + b" ",
        lambda evidence: Evidence(Tee.AMD_SEV_SNP, bytes(1184), Evidence.decode(evidence).chain).encode(),
        lambda evidence: Evidence(Tee.AMD_SEV_SNP, Evidence.decode(evidence).report, ()).encode(),
    ],
)
def test_an_answer_that_is_no_evidence_is_refused_and_that_is_stated(
    parties: Federation, spoil: Callable[[bytes], bytes | None]
) -> None:
    hub, site = parties.hub(), parties.site("north")
    challenge = hub.challenge("north")
    admission = hub.admit("north", challenge, spoil(site.quote(challenge)))
    assert not admission.admitted
    assert admission.reason.startswith("attestation.")
    (statement,) = parties.statements("hub")
    assert isinstance(statement.predicate, Violation)
    assert statement.predicate.rule == admission.reason


def test_an_answer_that_comes_too_late_is_refused(tmp_path: Path) -> None:
    now = [NOON]

    def clock() -> datetime:
        return now[0]

    parties = Federation(JOB, tmp_path, clock)
    hub, site = parties.hub(), parties.site("north")
    challenge = hub.challenge("north")
    evidence = site.quote(challenge)
    now[0] += timedelta(seconds=61)
    assert hub.admit("north", challenge, evidence).reason == "attestation.nonce"
    parties.close()


def test_a_round_is_stated_with_hashes_shares_and_the_absent(parties: Federation) -> None:
    hub = parties.hub()
    hub.site_failed(SiteFailure("south", 0, "ledger.budget_exceeded"))
    before = hub.initial_weights()
    after = {name: value + np.float32(1) for name, value in before.items()}
    updates = {site: ReleasedUpdate(after, tensors_sha256(after)) for site in ("north", "west")}
    metrics = hub.aggregated(AggregatedRound(0, updates, {"north": 120.0, "west": 60.0}, before, after))
    violation, aggregated = (statement.predicate for statement in parties.statements("hub"))
    assert isinstance(violation, Violation)
    assert isinstance(aggregated, RoundAggregated)
    assert aggregated.weights == {"north": pytest.approx(2 / 3), "west": pytest.approx(1 / 3)}
    assert aggregated.absent == {"south": "ledger.budget_exceeded in round 0"}
    assert aggregated.model_sha256_before == tensors_sha256(before)
    assert aggregated.model_sha256_after == tensors_sha256(after)
    assert set(metrics) == {"accuracy"}
    assert hub.weights == after
