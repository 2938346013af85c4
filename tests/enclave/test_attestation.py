"""What makes a verdict TRUSTED, and the code of every way in which it isn't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import ValidationError

from cloister.enclave import AppraisalPolicy, AttestationError, Platforms, SimulatedVendor, TrustStore
from cloister.enclave.attestation import (
    AttestationReport,
    CheckOutcome,
    Evidence,
    GuestSettings,
    SnpReport,
    Status,
    Tee,
    verdict_fields,
)
from cloister.evidence.attestation_terms import ManifestAttestation
from cloister.evidence.hardware_terms import LowestVersions, ProductLine
from tests.enclave.attestation_scene import MEASUREMENT, NOW, Scene, later, resigned, scene, vendor

DEBUG, MIGRATE = 1 << 19, 1 << 18
OTHER = bytes(reversed(range(48)))


def test_a_fresh_answer_of_the_expected_code_is_trusted_and_every_check_is_listed() -> None:
    verdict = scene().verify()
    assert verdict.status is Status.TRUSTED
    assert verdict.code is None
    assert [check.name for check in verdict.checks] == [
        "structure",
        "root",
        "chain",
        "validity",
        "revocation-list",
        "signature",
        "endorsed-version",
        "endorsed-chip",
        "runtime-data",
        "tpm-quote",
        "platform",
        "debug",
        "migration",
        "privilege-level",
        "product-line",
        "minimum-version",
        "collateral-age",
        "revocation",
        "measurement",
        "binding",
        "composition",
    ]
    not_asked = [check for check in verdict.checks if check.outcome is not CheckOutcome.PASSED]
    assert [check.name for check in not_asked] == ["runtime-data", "tpm-quote"]
    assert {check.outcome for check in not_asked} == {CheckOutcome.NOT_RUN}
    assert all("without a virtual TPM" in check.detail for check in not_asked)
    assert verdict.measurement == MEASUREMENT.hex()
    assert verdict.evaluated_at == NOW
    assert verdict.require() is verdict


def test_a_simulated_platform_is_always_named_as_one() -> None:
    verdict = scene().verify()
    assert verdict.simulated
    assert verdict.hardware_type == "SIMULATED_AMD_SEV_SNP"
    platform = next(check for check in verdict.checks if check.name == "platform")
    assert platform.detail == "SIMULATED - NOT HARDWARE"


def with_policy(**changes: object) -> Callable[[Scene], Scene]:
    return lambda one: replace(one, policy=one.policy.model_copy(update=changes))


def with_binding(**changes: object) -> Callable[[Scene], tuple[Scene, Evidence]]:
    """The answer was made for one binding and is shown for another."""

    def change(one: Scene) -> tuple[Scene, Evidence]:
        return replace(one, binding=replace(one.binding, **changes)), one.evidence()  # type: ignore[arg-type]

    return change


def guest(**settings: object) -> Callable[[Scene], Scene]:
    return lambda one: one.with_guest(GuestSettings(**settings))  # type: ignore[arg-type]


def reported(**fields: object) -> Callable[[Scene], tuple[Scene, Evidence]]:
    """A report whose fields differ, signed by the endorsed key."""

    def change(one: Scene) -> tuple[Scene, Evidence]:
        report = SnpReport.parse(one.evidence().report)
        return one, resigned(one.platform, replace(report, **fields))  # type: ignore[arg-type]

    return change


def chained(*order: int) -> Callable[[Scene], tuple[Scene, Evidence]]:
    def change(one: Scene) -> tuple[Scene, Evidence]:
        evidence = one.evidence()
        return one, replace(evidence, chain=tuple(evidence.chain[index] for index in order))

    return change


def another_leaf(one: Scene) -> tuple[Scene, Evidence]:
    evidence = one.evidence()
    other = vendor().platform("other", MEASUREMENT)
    return one, Evidence(Tee.AMD_SEV_SNP, evidence.report, other.chain)


def foreign_root_under_our_leaf(one: Scene) -> tuple[Scene, Evidence]:
    evidence = one.evidence()
    stranger = SimulatedVendor.create(lambda: NOW)
    store = TrustStore.simulated(stranger.root_der)
    return replace(one, trust=store), replace(evidence, chain=(*evidence.chain[:2], stranger.root_der))


def lowest(snp: int) -> LowestVersions:
    """What a simulated platform keeps to with 24; it states 4, 0, 24 and 219."""
    return LowestVersions(boot_loader=4, tee=0, snp=snp, microcode=219)


REFUSALS: dict[str, tuple[Callable[[Scene], Scene | tuple[Scene, Evidence]], str]] = {
    "another measurement": (with_policy(measurements=(OTHER.hex(),)), "attestation.measurement"),
    "hardware asked for": (with_policy(platforms=Platforms.HARDWARE_ONLY), "attestation.simulated"),
    "production trust": (
        lambda one: replace(one, trust=TrustStore.production()),
        "attestation.untrusted_root",
    ),
    "another vendor's root": (
        lambda one: replace(one, trust=TrustStore.simulated(SimulatedVendor.create(lambda: NOW).root_der)),
        "attestation.untrusted_root",
    ),
    "another root above our chain": (foreign_root_under_our_leaf, "attestation.chain"),
    "another nonce": (with_binding(nonce=b"\1" * 32), "attestation.key_binding"),
    "another site's key": (with_binding(key_id="sha256:" + "ac" * 32), "attestation.key_binding"),
    "another job": (with_binding(job_id="another"), "attestation.key_binding"),
    "another policy": (with_binding(policy_id="0" * 64), "attestation.key_binding"),
    "debug": (guest(policy=0x30000 | DEBUG), "attestation.debug"),
    "migration": (guest(policy=0x30000 | MIGRATE), "attestation.policy_bits"),
    "another privilege level": (guest(vmpl=1), "attestation.vmpl"),
    "an old platform": (
        with_policy(minimum_tcb={ProductLine.MILAN: lowest(snp=25)}),
        "attestation.tcb_unacceptable",
    ),
    "versions other than endorsed": (reported(reported_tcb=0), "attestation.tcb_mismatch"),
    "another chip": (reported(chip_id=bytes(64)), "attestation.chip_id"),
    "a chip that is masked and named": (reported(key_info=0b10), "attestation.chip_id"),
    "a provider's key claimed": (reported(key_info=0b100), "attestation.chip_id"),
    "another signature algorithm": (reported(signature_algorithm=2), "attestation.alg"),
    "another machine's chain": (another_leaf, "attestation.signature"),
    "intermediate left out": (chained(0, 2), "attestation.malformed"),
    "no chain": (chained(), "attestation.malformed"),
    "root twice": (chained(0, 2, 2), "attestation.chain"),
    "leaf as its own issuer": (chained(0, 0, 2), "attestation.chain"),
    "intermediate as leaf": (chained(1, 1, 2), "attestation.malformed"),
    "reversed": (chained(2, 1, 0), "attestation.malformed"),
    "too early": (later(-2), "attestation.not_yet_valid"),
    "too late": (later(3660), "attestation.expired"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_defect_is_refused_with_its_own_code(name: str) -> None:
    change, code = REFUSALS[name]
    changed = change(scene())
    one, evidence = changed if isinstance(changed, tuple) else (changed, None)
    verdict = one.verify(evidence)
    assert verdict.status is Status.UNTRUSTED
    assert verdict.code == code
    assert any(check.outcome is CheckOutcome.FAILED for check in verdict.checks)
    with pytest.raises(AttestationError) as refused:
        verdict.require()
    assert refused.value.code == code
    assert refused.value.exit_code == 4


def test_nothing_is_appraised_that_is_not_authentic() -> None:
    one = replace(scene(), trust=TrustStore.production())
    verdict = one.verify()
    outcomes = {check.name: check.outcome for check in verdict.checks}
    assert outcomes["structure"] is CheckOutcome.PASSED
    assert outcomes["root"] is CheckOutcome.FAILED
    assert outcomes["measurement"] is CheckOutcome.NOT_RUN
    assert verdict.claims is None
    assert verdict.measurement == ""
    assert not verdict.simulated


def test_all_that_is_unacceptable_is_listed_at_once() -> None:
    one = with_policy(measurements=(OTHER.hex(),))(guest(policy=0x30000 | DEBUG, vmpl=2)(scene()))
    failed = [check.name for check in one.verify().checks if check.outcome is CheckOutcome.FAILED]
    assert failed == ["debug", "privilege-level", "measurement"]


def test_a_masked_chip_id_is_accepted_where_it_is_left_out() -> None:
    one = scene()
    report = replace(SnpReport.parse(one.evidence().report), key_info=0b10, chip_id=bytes(64))
    assert one.verify(resigned(one.platform, report)).status is Status.TRUSTED


def test_one_of_several_allowed_measurements_will_do() -> None:
    one = with_policy(measurements=(OTHER.hex(), MEASUREMENT.hex()))(scene())
    assert one.verify().status is Status.TRUSTED


def test_a_minimum_that_is_met_is_accepted() -> None:
    one = with_policy(minimum_tcb={ProductLine.MILAN: lowest(snp=24)})(scene())
    assert one.verify().status is Status.TRUSTED


def test_a_policy_id_names_what_is_asked_for() -> None:
    policy = scene().policy
    assert AppraisalPolicy.model_validate(policy.model_dump()).sha256 == policy.sha256
    changes = (
        {"measurements": (OTHER.hex(),)},
        {"platforms": Platforms.HARDWARE_ONLY},
        {"vmpl": 1},
        {"minimum_tcb": {ProductLine.MILAN: lowest(snp=24)}},
        {"amd_lines": (ProductLine.TURIN,)},
    )
    assert len({policy.sha256, *(policy.model_copy(update=change).sha256 for change in changes)}) == 6


def terms(
    allowed_measurements: tuple[str, ...], allow_simulated: bool, **others: object
) -> ManifestAttestation:
    """A manifest's terms of attestation."""
    return ManifestAttestation.model_validate(
        {"allowed_measurements": allowed_measurements, "allow_simulated": allow_simulated, **others}
    )


def state(tee: str, registers: dict[str, str]) -> dict[str, object]:
    """One state of a machine that a manifest allows."""
    return {"tee": tee, "registers": registers}


MILAN = {"amd_lines": ("Milan",), "minimum_tcb": {ProductLine.MILAN: lowest(snp=24)}}


def test_the_policy_of_a_job_is_what_every_manifest_allows() -> None:
    both, one = (OTHER.hex(), MEASUREMENT.hex()), (MEASUREMENT.hex(),)
    agreed = AppraisalPolicy.agreed_by
    assert agreed([terms(both, True), terms(one, True)]).measurements == one
    assert agreed([terms(both, True)]).sha256 == agreed([terms(both[::-1], True)]).sha256
    assert agreed([terms(one, True), terms(one, True)]).platforms is Platforms.HARDWARE_OR_SIMULATED
    strict = agreed([terms(one, True, **MILAN), terms(one, False, **MILAN)])
    assert strict.platforms is Platforms.HARDWARE_ONLY
    for manifests in ([], [terms(one, True), terms((OTHER.hex(),), True)]):
        with pytest.raises(AttestationError) as refused:
            agreed(manifests)
        assert refused.value.code == "attestation.no_common_policy"


TDX_REGISTERS = {"mrtd": "aa", "rtmr0": "dd", "rtmr1": "bb", "rtmr2": "cc"}
TDX = state("intel-tdx", TDX_REGISTERS)
ENCLAVE = state("intel-sgx", {"mrenclave": "dd" * 32})


def test_states_and_waived_lists_are_agreed_on_only_where_every_manifest_names_them() -> None:
    agreed = AppraisalPolicy.agreed_by
    one = (MEASUREMENT.hex(),)
    wide = terms(one, True, reference_values=(TDX, ENCLAVE), without_revocation=("amd-sev-snp", "intel-tdx"))
    reordered = state("intel-tdx", dict(reversed(TDX_REGISTERS.items())))
    narrow = terms(one, True, reference_values=(reordered,), without_revocation=("intel-tdx",))
    policy = agreed([wide, narrow])
    assert [one.as_json() for one in policy.references] == [{"tee": "intel-tdx", "registers": TDX_REGISTERS}]
    assert policy.without_revocation == (Tee.INTEL_TDX,)
    assert agreed([wide, terms(one, True)]).without_revocation == ()
    assert agreed([wide, terms(one, True)]).references == ()
    assert agreed([narrow, wide]).sha256 == policy.sha256
    elsewhere = terms((OTHER.hex(),), True, reference_values=(TDX,))
    assert agreed([wide, elsewhere]).measurements == ()
    assert len(agreed([wide, elsewhere]).references) == 1
    for unsound in (state("intel-tdx", {"mrtd": "aa"}), state("a-toaster", {}), state("nvidia-gpu", {})):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever kind; the receipt check takes them all
            agreed([terms(one, True, reference_values=(unsound,))])


@pytest.mark.parametrize(
    "fields",
    [
        {"measurements": ()},
        {"measurements": ("ab",)},
        {"measurements": (MEASUREMENT.hex().upper(),)},
        {"measurements": (MEASUREMENT.hex(),), "vmpl": 4},
        {"measurements": (MEASUREMENT.hex(),), "platforms": "anything"},
        {"measurements": (MEASUREMENT.hex(),), "allow_debug": True},
    ],
)
def test_a_policy_that_is_not_sound_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AppraisalPolicy.model_validate(fields)


def test_the_report_of_a_node_takes_its_status_from_the_verdict() -> None:
    trusted = scene().verify().attestation_report("north")
    untrusted = with_policy(measurements=(OTHER.hex(),))(scene()).verify().attestation_report("north")
    assert (trusted.status, untrusted.status) == (Status.TRUSTED, Status.UNTRUSTED)
    assert trusted.hardware_type == "SIMULATED_AMD_SEV_SNP"
    assert len(trusted.measurement_hash) == 64
    assert trusted.measurement_hash == untrusted.measurement_hash
    other = guest(vmpl=1)(scene()).verify().attestation_report("north")
    assert other.measurement_hash != trusted.measurement_hash


@pytest.mark.parametrize("bad", ["", "ab" * 31, "AB" * 32, "xy" * 32, "ab" * 33, "ab" * 48])
def test_a_measurement_hash_of_another_form_is_refused(bad: str) -> None:
    fields = scene().verify().attestation_report("north").model_dump()
    with pytest.raises(ValidationError):
        AttestationReport.model_validate({**fields, "measurement_hash": bad})


def test_evidence_survives_its_encoding_and_nothing_else_is_read() -> None:
    evidence = scene().evidence()
    encoded = evidence.encode()
    assert Evidence.decode(encoded) == evidence
    for bad in (
        b"",
        b"{}",
        b"[]",
        b"null",
        encoded + b" ",
        encoded.replace(b'"chain"', b'"Chain"'),
        b'{"chain":[1],"devices":[],"extras":{},"report":"","tee":"amd-sev-snp"}',
        b'{"chain":"","devices":[],"extras":{},"report":"","tee":"amd-sev-snp"}',
        b'{"chain":[],"devices":[],"extras":{},"report":"=","tee":"amd-sev-snp"}',
        b'{"chain":[],"devices":[],"extras":{},"report":null,"tee":"amd-sev-snp"}',
        b'{"chain":[],"devices":[[]],"extras":{},"report":"","tee":"amd-sev-snp"}',
        b'{"chain":[],"devices":[],"extras":[],"report":"","tee":"amd-sev-snp"}',
        b"\xff",
    ):
        with pytest.raises(AttestationError) as refused:
            Evidence.decode(bad)
        assert refused.value.code == "attestation.malformed"


def test_a_binding_needs_a_nonce_of_32_bytes_and_a_proper_key_id() -> None:
    binding = scene().binding
    assert len(binding.report_data()) == 64
    for bad in (replace(binding, nonce=bytes(31)), replace(binding, key_id="ab" * 32)):
        with pytest.raises(AttestationError) as refused:
            bad.report_data()
        assert refused.value.code == "attestation.malformed"


def test_every_part_of_a_binding_is_sealed_in() -> None:
    binding = scene().binding
    seen = {
        replace(binding, **change).report_data()  # type: ignore[arg-type]
        for change in (
            {},
            {"nonce": b"\1" * 32},
            {"key_id": "sha256:" + "ac" * 32},
            {"job_id": "x"},
            {"policy_id": "y"},
            {"job_id": binding.job_id + '","' + binding.policy_id, "policy_id": ""},
        )
    }
    assert len(seen) == 6


def test_a_statement_of_a_verdict_carries_all_that_is_needed_to_judge_again() -> None:
    one = scene()
    verdict = one.verify()
    fields = verdict_fields("north", verdict, one.binding, one.policy)
    assert fields["status"] == "TRUSTED"
    assert fields["simulated"]
    assert fields["evidence"] == verdict.evidence.as_json()
    assert fields["policy"] == one.policy.as_json()
    assert len(fields["checks"]) == len(verdict.checks)
