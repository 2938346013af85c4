"""Several hospitals, one job: of what each asks of hardware, the strictest wins; what contradicts is refused.

The claims are those of machines and devices that the simulators make, with what a hospital can ask about
varied; hardware's own generations are put in their place where only hardware has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister.enclave import AppraisalPolicy, AttestationError
from cloister.enclave.attestation import (
    CheckOutcome,
    Claims,
    Collateral,
    Ground,
    Revocation,
    Tcb,
    TcbStatus,
    Tee,
    appraise,
    authenticate,
)
from cloister.enclave.attestation.amd.platform import SnpDetail
from cloister.enclave.attestation.intel.platform import QuoteDetail
from cloister.evidence.attestation_terms import ManifestAttestation
from cloister.evidence.hardware_terms import GpuMode, Gpus, HardwareTerms, LowestVersions, ProductLine
from tests.enclave import attestation_scene, gpu_scene
from tests.enclave.intel import scene as intel_scene

ADVISORIES = ("INTEL-SA-00001", "INTEL-SA-00002")
STATUSES = ("SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
DRIVERS = ("570", "570.124", "570.124.4", "571")
small = st.integers(0, 2)


@st.composite
def lowest(draw: st.DrawFn, line: ProductLine) -> LowestVersions:
    fmc = draw(small) if line is ProductLine.TURIN else None
    versions = {name: draw(small) for name in ("boot_loader", "tee", "snp", "microcode")}
    return LowestVersions(**versions, fmc=fmc)


def some(values: tuple[object, ...], least: int = 0) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(values), unique=True, min_size=least).map(tuple)


@st.composite
def hardware(draw: st.DrawFn) -> dict[str, object]:
    """What one hospital asks of hardware."""
    named = draw(some(tuple(ProductLine)))
    return {
        "without_revocation": draw(some(tuple(Tee))),
        "vmpl": draw(st.sampled_from((0, 0, 0, 1))),
        "amd_lines": tuple(line for line in named if draw(st.booleans())),
        "minimum_tcb": {line: draw(lowest(line)) for line in named},
        "accepted_tcb_statuses": draw(some(STATUSES)),
        "accepted_advisories": draw(some(ADVISORIES)),
        "minimum_tcb_evaluation": draw(st.none() | st.integers(18, 22)),
        "maximum_collateral_age_days": draw(st.none() | st.integers(1, 4)),
        "gpus": draw(st.sampled_from(Gpus)),
        "gpu_modes": draw(some(tuple(GpuMode), least=1)),
        "minimum_gpu_driver": draw(st.none() | st.sampled_from(DRIVERS)),
    }


MRTD, ZERO = intel_scene.MRTD.hex(), "00" * 48


@st.composite
def manifests(draw: st.DrawFn) -> ManifestAttestation:
    """The terms of a hospital that allows the code of every machine here."""
    return ManifestAttestation.model_validate(
        {
            "allow_simulated": draw(st.booleans()),
            "allowed_measurements": (attestation_scene.MEASUREMENT.hex(),),
            "reference_values": (
                {
                    "tee": "intel-tdx",
                    "registers": {"mrtd": MRTD, "rtmr0": ZERO, "rtmr1": ZERO, "rtmr2": ZERO},
                },
            ),
            **draw(hardware()),
        }
    )


@lru_cache(maxsize=1)
def authentic() -> tuple[tuple[Claims, Ground], ...]:
    """What simulated machines and a GPU in each of two modes say, with what it was held against."""
    machine, quoted, gpu = attestation_scene.scene(), intel_scene.Scene(), gpu_scene.scene()
    linked = gpu.with_opaque(flag=b"\x01\x00")
    return tuple(
        (authenticate(evidence, ground.trust, ground.now, ground.collateral), ground)
        for evidence, ground in (
            (machine.evidence(), Ground(machine.trust, machine.now, machine.collateral)),
            (quoted.evidence(), Ground(quoted.trust, quoted.now, Collateral(quoted.collateral))),
            (gpu.evidence(), gpu.ground()),
            (linked.evidence(), linked.ground()),
        )
    )


@dataclass(frozen=True)
class Shown:
    """What a machine or device turns out to be, and how many GPUs the machine shows."""

    claims: Claims
    ground: Ground
    gpus: int

    def found(self, policy: AppraisalPolicy) -> dict[str, bool]:
        """Whether each thing that is asked is right; what is asked of GPUs, and of their mode, is one."""
        found = appraise(self.claims, policy, self.claims.sealed_in, self.ground)
        right = {one.name: one.right for one in found}
        right["gpus"] = right.pop("gpu-mode", True) and composed(policy.gpus, self.gpus)
        return right


@lru_cache(maxsize=9)
def composed(gpus: Gpus, shown: int) -> bool:
    """Whether a machine that shows so many GPUs is of an accepted composition."""
    machine, gpu = attestation_scene.scene(), gpu_scene.scene().evidence()
    policy = machine.policy.model_copy(update={"gpus": gpus})
    verdict = replace(machine, policy=policy).verify(replace(machine.evidence(), devices=(gpu,) * shown))
    (check,) = (one for one in verdict.checks if one.name == "composition")
    return check.outcome is CheckOutcome.PASSED


@st.composite
def machines(draw: st.DrawFn) -> Shown:
    claims, ground = draw(st.sampled_from(authentic()))
    claims = replace(
        claims,
        revocation=draw(st.sampled_from((Revocation.CHECKED, Revocation.UNKNOWN))),
        simulated=draw(st.booleans()),
    )
    if isinstance(claims.detail, SnpDetail):
        line = None if claims.simulated else draw(st.sampled_from(ProductLine))
        tcb = Tcb(*(draw(small) for _ in range(4)), fmc=draw(small) if line is ProductLine.TURIN else 0)
        report = replace(claims.detail.report, vmpl=draw(st.sampled_from((0, 0, 0, 1))))
        claims = replace(claims, detail=replace(claims.detail, line=line, tcb=tcb, report=report))
    if isinstance(claims.detail, QuoteDetail):
        status = draw(st.sampled_from(TcbStatus))
        claims = replace(claims, tcb_status=status, advisories=draw(some(ADVISORIES)))
    later = replace(ground, now=ground.now + timedelta(days=draw(st.integers(-1, 2))))
    gpus = draw(st.integers(1, 2)) if claims.tee is Tee.NVIDIA_GPU else 0
    return Shown(claims, later, gpus)


def agreed(terms: Sequence[ManifestAttestation]) -> AppraisalPolicy | None:
    """The policy of a job of these hospitals; None where they contradict."""
    try:
        return AppraisalPolicy.agreed_by(terms)
    except AttestationError as refused:
        if refused.code != "attestation.no_common_policy":
            raise
        return None


hospitals = st.lists(manifests(), min_size=1, max_size=3)


@settings(max_examples=300)
@given(hospitals, machines())
def test_what_the_hospitals_agree_on_accepts_in_no_point_what_one_of_them_refuses(
    terms: list[ManifestAttestation], shown: Shown
) -> None:
    policy = agreed(terms)
    if policy is None:
        return
    alone = [shown.found(AppraisalPolicy.agreed_by([one])) for one in terms]
    for name, right in shown.found(policy).items():
        # Who waives answers on revocation doesn't look at their age; whoever doesn't may then ask for less.
        strictest = all(one[name] for one in alone)
        assert right <= strictest, name
        assert right == strictest or name == "answers", name


@given(hospitals)
def test_what_is_agreed_depends_neither_on_order_nor_on_repetition(terms: list[ManifestAttestation]) -> None:
    policy = agreed(terms)
    for others in (terms[::-1], [*terms, *terms]):
        again = agreed(others)
        assert (again is None) == (policy is None)
        assert again is None or policy is None or again.sha256 == policy.sha256


@given(manifests())
def test_one_hospitals_policy_is_its_own_words(terms: ManifestAttestation) -> None:
    policy = AppraisalPolicy.agreed_by([terms])
    for name in HardwareTerms.model_fields:
        said, kept = getattr(terms, name), getattr(policy, name)
        assert (sorted(said) == sorted(kept)) if isinstance(said, tuple) else said == kept


def one(**words: object) -> ManifestAttestation:
    usual = {"allow_simulated": True, "allowed_measurements": (attestation_scene.MEASUREMENT.hex(),)}
    return ManifestAttestation.model_validate({**usual, **words})


VERSIONS = {"boot_loader": 4, "tee": 0, "snp": 24, "microcode": 219}


def only(line: str, **versions: int) -> dict[str, object]:
    return {"amd_lines": [line], "minimum_tcb": {line: {**VERSIONS, **versions}}}


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ((one(vmpl=0), one(vmpl=2)), "vmpl"),
        (
            (one(allow_simulated=False, **only("Milan")), one(**only("Turin", fmc=1))),
            "amd_lines",
        ),
        ((one(gpus="required"), one()), "gpus"),
        ((one(gpus="required"), one(gpus="allowed", gpu_modes=["multi"])), "gpu_modes"),
        ((one(allow_simulated=False),), "amd_lines"),
        ((one(allow_simulated=False, **only("Milan")), one()), "amd_lines"),
    ],
)
def test_terms_that_no_machine_can_satisfy_are_refused_by_the_name_of_the_term(
    terms: tuple[ManifestAttestation, ...], named: str
) -> None:
    for order in (terms, terms[::-1]):
        with pytest.raises(AttestationError) as refused:
            AppraisalPolicy.agreed_by(order)
        assert refused.value.code == "attestation.no_common_policy"
        assert f" {named} " in refused.value.message
        assert refused.value.hint


TDX = {"tee": "intel-tdx", "registers": dict.fromkeys(("mrtd", "rtmr0", "rtmr1", "rtmr2"), "ab" * 48)}


def test_hospitals_that_differ_in_amds_generations_may_agree_on_other_hardware() -> None:
    words = {"allow_simulated": False, "reference_values": [TDX]}
    terms = [one(**words, **only("Milan")), one(**words, **only("Turin", fmc=1)), one(**words)]
    policy = AppraisalPolicy.agreed_by(terms)
    assert policy.amd_lines == ()
    assert Tee.INTEL_TDX in policy.kinds


def test_of_minima_the_highest_and_of_what_is_allowed_only_what_all_allow() -> None:
    terms = [
        one(
            **only("Milan", snp=20),
            accepted_advisories=list(ADVISORIES),
            accepted_tcb_statuses=["SWHardeningNeeded"],
            minimum_tcb_evaluation=18,
            maximum_collateral_age_days=30,
            gpus="allowed",
            gpu_modes=["single", "multi"],
            minimum_gpu_driver="570.99",
        ),
        one(
            amd_lines=["Milan", "Turin"],
            minimum_tcb={"Milan": {**VERSIONS, "microcode": 210}, "Turin": {**VERSIONS, "fmc": 2}},
            accepted_advisories=[ADVISORIES[1]],
            accepted_tcb_statuses=["SWHardeningNeeded", "ConfigurationNeeded"],
            minimum_tcb_evaluation=20,
            maximum_collateral_age_days=10,
            gpus="required",
            gpu_modes=["multi"],
            minimum_gpu_driver="570.124",
        ),
        one(**only("Milan", snp=3), accepted_advisories=[ADVISORIES[1]], gpus="allowed", gpu_modes=["multi"]),
    ]
    policy = AppraisalPolicy.agreed_by(terms)
    assert policy.amd_lines == ("Milan",)
    assert policy.minimum_tcb[ProductLine.MILAN].as_dict() == {**VERSIONS, "snp": 24}
    assert policy.minimum_tcb[ProductLine.TURIN].fmc == 2
    assert policy.accepted_tcb_statuses == ()
    assert policy.accepted_advisories == (ADVISORIES[1],)
    assert (policy.minimum_tcb_evaluation, policy.maximum_collateral_age_days) == (20, 10)
    assert (policy.gpus, policy.gpu_modes) == (Gpus.REQUIRED, (GpuMode.MULTI,))
    assert policy.minimum_gpu_driver == "570.124"


def test_a_hospital_that_says_nothing_of_hardware_gets_the_strict_word() -> None:
    policy = AppraisalPolicy.agreed_by([one()])
    assert policy.vmpl == 0
    assert policy.amd_lines == policy.accepted_tcb_statuses == policy.accepted_advisories == ()
    assert policy.without_revocation == ()
    assert policy.gpus is Gpus.NOT_USED


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"amd_lines": ["Milan"]}, "minimum_tcb must name the lowest versions of Milan"),
        (only("Milan", fmc=1), "fmc must be named for Turin, and for no other generation"),
        (only("Turin"), "fmc must be named for Turin, and for no other generation"),
        (only("Rome"), "Milan"),
        (only("Milan", snp=256), "255"),
        ({"minimum_tcb": {"Milan": {"snp": 24}}}, "boot_loader"),
        ({"amd_lines": ["Milan", "Milan"], "minimum_tcb": {"Milan": VERSIONS}}, "twice"),
        ({"accepted_tcb_statuses": ["OutOfDate"]}, "SWHardeningNeeded"),
        ({"accepted_tcb_statuses": ["Revoked"]}, "SWHardeningNeeded"),
        ({"accepted_tcb_statuses": ["Unknown"]}, "SWHardeningNeeded"),
        ({"vmpl": 4}, "3"),
        ({"vmpl": True}, "integer"),
        ({"gpu_modes": []}, "1"),
        ({"debug": True}, "Extra"),
        ({"minimum_gpu_driver": "latest"}, "pattern"),
    ],
)
def test_terms_that_make_no_sense_are_refused(words: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        one(**words)
    assert why in str(refused.value)


def test_a_turin_machine_is_held_against_turins_own_minimum_with_its_fmc() -> None:
    """No genuine report of Turin was at hand: a simulated one stands in, with Turin's name and layout."""
    claims, ground = authentic()[0]
    assert isinstance(claims.detail, SnpDetail)
    policy = AppraisalPolicy.agreed_by([one(**only("Turin", fmc=2, snp=4, boot_loader=1, microcode=80))])
    for fmc, right in ((1, False), (2, True)):
        detail = replace(claims.detail, line=ProductLine.TURIN, tcb=Tcb(1, 0, 4, 80, fmc))
        found = appraise(replace(claims, detail=detail), policy, claims.sealed_in, ground)
        (finding,) = (one for one in found if one.name == "minimum-version")
        assert finding.right is right
        assert finding.detail.startswith(f"boot_loader 1, tee 0, snp 4, microcode 80, fmc {fmc}; minimum_tcb")
        assert ("fmc 1 is below 2" in finding.detail) is not right
