"""Whatever the job: its receipt is dated, signed and proven in logs, and lacks nothing; or there is none.

Property P14 of the requirements: a finished execution yields a time-stamped, signed receipt with proofs of
privacy, of execution and of inclusion in a log.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from cloister.core.canonical import parse
from cloister.evidence.compliance import COMPLIANCE_STATEMENTS
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    Destruction,
    Evaluation,
    Incident,
    JobOpened,
    ManifestAccepted,
    Predicate,
    Release,
    RequestDecided,
    RoundAggregated,
    Settlement,
    UpdateReleased,
)
from cloister.evidence.scoring import improvement_score
from tests.evidence.attacks.edits import Body, detail
from tests.evidence.synthetic import (
    ACCURACY,
    BASELINE,
    HUB,
    START,
    Step,
    SyntheticJob,
    digest,
    failing,
    resealed,
    verify,
)
from tests.nightly import needs

PARTS = 6
NAMES = ("amsterdam", "basel", "cork", "delhi")
REQUIRED_OF_SITE: tuple[type[Predicate], ...] = (
    ManifestAccepted,
    RequestDecided,
    DataCommitment,
    BudgetSpend,
    UpdateReleased,
)
REQUIRED_OF_HUB: tuple[type[Predicate], ...] = (
    JobOpened,
    AttestationVerdict,
    RoundAggregated,
    Evaluation,
    Release,
)

DESTRUCTION: Step = (
    Destruction,
    {
        "what": "records",
        "method": "removed",
        "artifacts": [digest("records")],
        "checks": [{"name": "no-file-left", "outcome": "passed", "detail": ""}],
        "simulated": True,
    },
)
INCIDENT: Step = (
    Incident,
    {
        "incident_class": "worker-restarted",
        "severity": "low",
        "detail": "the worker was started twice",
        "detected_at": "2026-11-21T14:00:00.000000Z",
        "response": "the round was repeated",
    },
)
SETTLEMENT: Step = (
    Settlement,
    {
        "rule": "bands-v1",
        "improvement_score": improvement_score(ACCURACY, BASELINE),
        "credits": {NAMES[0]: 350},
        "unit": "non-monetary-credit",
        "fund": None,
        "ledger_reference": None,
    },
)


@settings(max_examples=20)
@given(data=st.data())
def test_a_job_has_a_whole_receipt_or_none_and_what_is_missing_is_listed(data: st.DataObject) -> None:
    whole_or_none(data)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_three_hundred_jobs_have_a_whole_receipt_or_none(part: int) -> None:
    """In parts, so that each fits into its share of a night."""
    needs(30)
    seed(part)(settings(max_examples=300 // PARTS)(given(data=st.data())(whole_or_none)))()


def whole_or_none(data: st.DataObject) -> None:
    """Draw a job in which at most one required statement is missing, and see what comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        sites = NAMES[: data.draw(st.integers(2, 3), "sites")]
        job = SyntheticJob(Path(folder), sites=sites, rounds=data.draw(st.integers(1, 2), "rounds"))
        of_sites, of_hub = {site: job.site_steps(site) for site in sites}, job.hub_steps()
        party = data.draw(st.sampled_from([HUB, *sites]), "party")
        steps = of_hub if party == HUB else of_sites[party]
        optional = [SETTLEMENT, INCIDENT, DESTRUCTION] if party == HUB else [INCIDENT, DESTRUCTION]
        steps += data.draw(
            st.lists(st.sampled_from(optional), max_size=2, unique_by=lambda one: one[0]), "optional"
        )
        required = REQUIRED_OF_HUB if party == HUB else REQUIRED_OF_SITE
        missing = data.draw(st.one_of(st.none(), st.sampled_from(required)), "missing")
        if missing is not None:
            del steps[next(place for place, one in enumerate(steps) if one[0] is missing)]
        extracts = list(job.play(of_sites, of_hub).values())
        issued = START + timedelta(hours=1, seconds=data.draw(st.integers(0, 10**6), "later"))
        if missing is not None:
            with pytest.raises(EvidenceError) as refused:
                job.receipt(extracts=extracts)
            assert refused.value.code == "evidence.statement_missing"
            assert any(party in line for line in refused.value.details)
            return
        receipt = job.receipt(extracts=extracts, clock=lambda: issued)
        assert verify(job, receipt).accepted
        body: Any = parse(receipt)
        body = body["body"]
        assert body["issued_at"].startswith(issued.strftime("%Y-%m-%dT%H:%M:%S"))
        assert tuple(body["compliance"]) == COMPLIANCE_STATEMENTS
        assert set(body["summary"]["privacy"]) == set(sites)
        assert len(body["statements"]) == sum(len(one.entries) for one in extracts)
        assert all(one["inclusion"] for one in body["statements"])


def test_removing_any_link_of_a_chain_is_located_by_name(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    """Each statement names the one before it: the verdict says in whose log, and where, the chain breaks."""
    document: Any = parse(honest_receipt)
    statements = document["body"]["statements"]
    last = {one["log"]: one["index"] for one in statements}
    for place, gone in enumerate(statements):

        def take(body: Body, place: int = place) -> None:
            body["statements"].pop(place)

        verdict = verify(honest_job, resealed(honest_receipt, honest_job.keys["hub"], take))
        assert "statements-complete" in failing(verdict)
        if gone["index"] < last[gone["log"]]:
            located = detail(verdict, "statement-chain")
            assert f"{gone['log']} entry {gone['index'] + 1}" in located
            assert "is missing" in located
        else:
            owner = gone["log"].rpartition("/")[2]
            assert f"{owner}: 0 closing statements" in detail(verdict, "statements-complete")
