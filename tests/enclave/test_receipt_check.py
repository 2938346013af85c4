"""A receipt's attestation verdicts are reached again; a hub that lies about one of them is found out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse
from cloister.core.clock import fixed_clock, format_time
from cloister.core.errors import CloisterError
from cloister.enclave import (
    AppraisalPolicy,
    Binding,
    Platforms,
    SimulatedVendor,
    TrustStore,
    Verifier,
    certificate_pem,
    register_attestation_check,
    verdict_fields,
)
from cloister.enclave.attestation import GuestSettings
from cloister.evidence import Role, Trust, TrustEntry, sign_envelope
from cloister.evidence.checks import Check, CheckRegistry, Outcome
from cloister.evidence.context import model_artifact
from cloister.evidence.envelope import Envelope
from cloister.evidence.predicates import AttestationVerdict
from cloister.evidence.terms import MANIFEST_TYPE
from cloister.evidence.verifier import Verifier as ReceiptVerifier
from tests.enclave.attestation_scene import MEASUREMENT, vendor
from tests.evidence.synthetic import MODEL, START, Fields, Lie, Step, SyntheticJob, digest

EVALUATED = START + timedelta(seconds=0.5)
SITES = ("north", "south")


class AttestedJob(SyntheticJob):
    """The synthetic job with platforms that answer, and manifests that allow their code."""

    simulated_allowed = True
    allowed: tuple[str, ...] = (MEASUREMENT.hex(),)
    guest = GuestSettings()

    @property
    def policy(self) -> AppraisalPolicy:
        platforms = Platforms.HARDWARE_OR_SIMULATED if self.simulated_allowed else Platforms.HARDWARE_ONLY
        return AppraisalPolicy(measurements=self.allowed, platforms=platforms)

    @property
    def tee_roots(self) -> tuple[bytes, ...]:
        return (certificate_pem(vendor().root_der),)

    @property
    def trust(self) -> Trust:
        keys = super().trust
        entries = [
            TrustEntry(role, party, keys.key(role, party).pem.encode())
            for role in (Role.HUB, Role.DEVELOPER, Role.SITE, Role.HOSPITAL)
            for party in keys.parties(role)
        ]
        roots = [TrustEntry(Role.TEE_ROOT, f"root-{n}", pem) for n, pem in enumerate(self.tee_roots)]
        return Trust([*entries, *roots])

    def manifest(self, site: str, **guardrails: JSON) -> Envelope:
        document = parse(super().manifest(site, **guardrails).payload)
        assert isinstance(document, dict)
        document["attestation"] = {
            "allow_simulated": self.simulated_allowed,
            "allowed_measurements": list(self.allowed),
        }
        return sign_envelope(MANIFEST_TYPE, canonicalize(document), self.keys[f"hospital-{site}"])

    def _verdict(self, site: str) -> Fields:
        binding = Binding(
            nonce=bytes.fromhex(digest(f"nonce {site}")),
            site_key_id=self.keys[f"site-{site}"].public_key.key_id,
            job_id=self.job_id,
            policy_id=self.policy.sha256,
        )
        platform = vendor().platform(site, MEASUREMENT, self.guest)
        verifier = Verifier(TrustStore.simulated(vendor().root_der), fixed_clock(EVALUATED))
        verdict = verifier.verify(platform.quote(binding.report_data()), expected=binding, policy=self.policy)
        return dict(verdict_fields(site, verdict, binding, self.policy))


def judge(job: SyntheticJob, receipt: bytes, trust: Trust | None = None) -> Check:
    """The verdict of the receipt's verifier on this one check."""
    registry = CheckRegistry()
    register_attestation_check(registry)
    model = model_artifact(MODEL)
    verdict = ReceiptVerifier(trust or job.trust, registry).verify(receipt, model)
    return next(check for check in verdict.checks if check.id == "attestation")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> AttestedJob:
    made = AttestedJob(tmp_path_factory.mktemp("attested"))
    made.run()
    return made


def test_honest_verdicts_pass_and_are_named_simulated(job: AttestedJob) -> None:
    check = judge(job, job.receipt())
    assert check.outcome is Outcome.PASSED
    assert "2 platform verdict(s)" in check.detail
    assert "2 SIMULATED - NOT HARDWARE" in check.detail


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile hub leaves out the composer's own look at what is missing."""
    monkeypatch.setattr("cloister.evidence.receipt.missing_statements", lambda _: ())


def on_verdict(change: Callable[[Fields], None]) -> Lie:
    def lie(steps: list[Step]) -> None:
        change(next(fields for kind, fields in steps if kind is AttestationVerdict))

    return lie


def set_field(name: str, value: object) -> Lie:
    return on_verdict(lambda fields: fields.update({name: value}))


def flip_report(fields: Fields) -> None:
    evidence = dict(fields["evidence"])  # type: ignore[call-overload]
    report = bytearray(b64decode(evidence["report"]))
    report[0x90] ^= 1
    fields["evidence"] = {**evidence, "report": b64encode(bytes(report))}


def looser_policy(fields: Fields) -> None:
    policy = AppraisalPolicy(measurements=("cd" * 48,), platforms=Platforms.HARDWARE_OR_SIMULATED)
    fields.update(policy=policy.as_json(), policy_id=policy.sha256)


def other_checks(fields: Fields) -> None:
    fields["checks"] = [{"name": "measurement", "outcome": "passed", "detail": ""}]


def swapped(steps: list[Step]) -> None:
    first, second = (fields for kind, fields in steps if kind is AttestationVerdict)
    first["evidence"], second["evidence"] = second["evidence"], first["evidence"]


def after_the_first_round(steps: list[Step]) -> None:
    steps.insert(4, steps.pop(1))


def one_nonce_for_two(steps: list[Step]) -> None:
    first, second = (fields for kind, fields in steps if kind is AttestationVerdict)
    second["nonce"] = first["nonce"]


LIES: dict[str, tuple[Lie, str]] = {
    "a changed report": (on_verdict(flip_report), "(attestation.signature)"),
    "another measurement stated": (set_field("measurement", "cd" * 48), "stated measurement"),
    "hardware claimed": (set_field("simulated", False), "stated simulated"),
    "another platform name": (set_field("platform", "AMD_SEV_SNP"), "stated platform"),
    "refused although trusted": (set_field("status", "UNTRUSTED"), "stated status"),
    "a policy of the hub's own": (on_verdict(looser_policy), "stated policy"),
    "checks left out": (on_verdict(other_checks), "stated checks"),
    "another key": (set_field("site_key_id", "sha256:" + "ab" * 32), "stated site_key_id"),
    "another nonce": (set_field("nonce", b64encode(bytes(32))), "(attestation.key_binding)"),
    "a nonce of another length": (set_field("nonce", b64encode(bytes(31))), "not of its exact form"),
    "answers swapped between sites": (swapped, "stated status"),
    "one nonce for two": (one_nonce_for_two, "a nonce was used for two verdicts"),
    "evaluated before the job": (
        set_field("evaluated_at", format_time(START - timedelta(hours=1))),
        "evaluated outside the time",
    ),
    "evaluated after the statement": (
        set_field("evaluated_at", format_time(START + timedelta(hours=1))),
        "evaluated outside the time",
    ),
    "attested after its first round": (after_the_first_round, "without a TRUSTED verdict"),
}


def test_a_verdict_at_a_time_that_does_not_exist_cannot_be_stated(job: AttestedJob) -> None:
    with pytest.raises(CloisterError) as refused:
        job.lying_hub(set_field("evaluated_at", "2026-99-21T14:00:00.000000Z"))
    assert refused.value.code == "evidence.statement_refused"


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("name", LIES)
def test_a_hub_that_lies_about_a_verdict_is_found_out(job: AttestedJob, name: str) -> None:
    lie, sign = LIES[name]
    check = judge(job, job.lying_hub(lie))
    assert check.outcome is Outcome.FAILED
    assert sign in check.detail


def made(job: type[AttestedJob], folder: Path) -> Check:
    one = job(folder)
    one.run()
    return judge(one, one.receipt())


@pytest.mark.usefixtures("careless")
def test_a_site_whose_verdict_is_untrusted_took_no_part_in_an_accepted_receipt(tmp_path: Path) -> None:
    class Debugged(AttestedJob):
        guest = GuestSettings(policy=0x30000 | 1 << 19)

    check = made(Debugged, tmp_path)
    assert check.outcome is Outcome.FAILED
    assert "north: took part without a TRUSTED verdict" in check.detail


@pytest.mark.usefixtures("careless")
def test_a_manifest_that_asks_for_hardware_refuses_simulated_platforms(tmp_path: Path) -> None:
    class Hardware(AttestedJob):
        simulated_allowed = False

    assert made(Hardware, tmp_path).outcome is Outcome.FAILED


@pytest.mark.usefixtures("careless")
def test_a_manifest_that_allows_other_code_refuses_this(tmp_path: Path) -> None:
    class OtherCode(AttestedJob):
        allowed = ("cd" * 48,)

    assert made(OtherCode, tmp_path).outcome is Outcome.FAILED


def test_roots_the_verifying_party_did_not_pin_are_worth_nothing(job: AttestedJob) -> None:
    class Stranger(AttestedJob):
        @property
        def tee_roots(self) -> tuple[bytes, ...]:
            return (certificate_pem(SimulatedVendor.create(fixed_clock(START)).root_der),)

    class NoRoots(AttestedJob):
        tee_roots = ()

    for kind in (Stranger, NoRoots):
        trust = kind(job.folder, keys=job.keys).trust
        assert judge(job, job.receipt(), trust).outcome is Outcome.FAILED


def test_another_pinned_site_key_than_the_attested_one_is_refused(
    job: AttestedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this check too, were the signatures before it not to show it."""
    monkeypatch.setattr("cloister.evidence.verifier.SIGNATURES", ())
    keys = {**job.keys, "site-north": job.keys["hospital-north"], "hospital-north": job.keys["site-north"]}
    trust = AttestedJob(job.folder, keys=keys).trust
    check = judge(job, job.receipt(), trust)
    assert check.outcome is Outcome.FAILED
    assert "north" in check.detail
