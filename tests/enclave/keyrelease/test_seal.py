"""What holds the worker is part of what is asked: sealed into the quote, judged by the policy, and stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.enclave.attestation.evidence import Evidence
from cloister.enclave.keyrelease import REFUSAL, Challenge, EnclaveKey, KeyRequest, Request
from cloister.enclave.keyrelease.messages import release_binding
from cloister.enclave.keyrelease.policy import policy_for_job
from cloister.enclave.sealed.claims import Measure, SealClaims, SealLevel
from cloister.policy.manifest import AttestationTerms
from tests.enclave.attestation_scene import JOB, MEASUREMENT, NOW
from tests.enclave.keyrelease.scene import SEAL, Hospital


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def without(*names: str, level: SealLevel = SealLevel.NAMESPACES) -> SealClaims:
    measures = tuple(
        Measure(one.name, "failed", "EPERM") if one.name in names else one for one in SEAL.measures
    )
    return SealClaims(level, measures, SEAL.kernel)


WEAK: dict[str, SealClaims] = {
    "a level that the policy doesn't name": without(level=SealLevel.NO_NAMESPACES),
    "a level whose measures don't hold": without("network-namespace"),
    "a filter that failed": without("call-filter"),
    "a level without a listener": without(level=SealLevel.NAMESPACES_UNREPORTED),
}


@pytest.mark.parametrize("weak", WEAK, ids=lambda name: name.replace(" ", "-"))
def test_a_worker_that_is_held_by_less_than_the_policy_asks_gets_nothing(
    hospital: Hospital, weak: str
) -> None:
    policy_id = hospital.admitted()
    hospital.seal = WEAK[weak]
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "sealed.measure_missing"


def test_a_level_that_the_policy_names_will_do(hospital: Hospital) -> None:
    policy_id = hospital.admitted(seal_levels=("no-namespaces", "namespaces"))
    hospital.seal = without("user-namespace", level=SealLevel.NO_NAMESPACES)
    assert hospital.ask_for_key(policy_id) == hospital.data_key()
    assert hospital.statements()[-1].seal_sha256 == hospital.seal.sha256


def test_a_node_that_tells_of_a_better_seal_than_was_quoted_gets_nothing(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    hospital.seal = without("network-namespace", level=SealLevel.NO_NAMESPACES)
    _, request = hospital.request(policy_id)
    told = replace(Request.decode(request), seal=SEAL).encode()
    assert hospital.service.release(told) == REFUSAL
    assert hospital.statements()[-1].code == "attestation.key_binding"


def test_a_quote_for_a_seal_does_not_serve_as_one_for_a_policy_alone(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    asking, key = KeyRequest(JOB, policy_id, SEAL), EnclaveKey()
    nonce = Challenge.decode(hospital.service.challenge(asking.ask())).nonce
    bare = replace(release_binding(asking._ask, nonce, key.public_bytes, SEAL), policy_id=policy_id)
    evidence: Evidence = hospital.platform.quote(bare.report_data())
    request = Request(asking._ask, nonce, key.public_bytes, SEAL, evidence).encode()
    assert hospital.service.release(request) == REFUSAL
    assert hospital.statements()[-1].code == "attestation.key_binding"


Change = Callable[[dict[str, JSON]], object]
GARBLED: dict[str, Change] = {
    "none": lambda seal: seal.clear(),
    "a level that there is not": lambda seal: seal.update(level="perfect"),
    "a measure less": lambda seal: seal.update(measures=seal["measures"][1:]),  # type: ignore[index]
    "a field more": lambda seal: seal.update(insecure=True),
}


@pytest.mark.parametrize("how", GARBLED)
def test_claims_of_another_form_are_no_request(hospital: Hospital, how: str) -> None:
    _, request = hospital.request(hospital.admitted())
    value = parse(request)
    assert isinstance(value, dict)
    assert isinstance(value["seal"], dict)
    GARBLED[how](value["seal"])
    assert hospital.service.release(canonicalize(value)) == REFUSAL
    assert hospital.statements() == []


@pytest.mark.parametrize("named", [(), ("namespaces",), ("no-namespaces", "namespaces")])
def test_the_levels_of_a_policy_are_those_of_the_hospitals_manifest(named: tuple[str, ...]) -> None:
    terms = AttestationTerms.model_validate(
        {"allow_simulated": True, "allowed_measurements": (MEASUREMENT.hex(),), "seal_levels": named}
    )
    policy = policy_for_job(
        terms,
        data_key="dk-" + "0" * 32,
        dataset="table/north/x",
        scope=JOB,
        holds=(NOW, NOW.replace(year=2030)),
        purpose=Hospital.purpose,
    )
    assert set(policy.seal_levels) == set(terms.accepted_seal_levels)
