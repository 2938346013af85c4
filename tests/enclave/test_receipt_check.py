"""A receipt's attestation verdicts are reached again; a hub that lies about one of them is found out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse
from cloister.core.clock import fixed_clock, format_time, parse_time
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
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
from cloister.enclave.keyrelease.policy import KeyPurpose, policy_for_job
from cloister.enclave.receipt_check import register_check_of_today
from cloister.enclave.sealed.claims import SealLevel
from cloister.evidence import Role, Trust, TrustEntry, sign_envelope
from cloister.evidence.attestation_terms import ManifestAttestation
from cloister.evidence.checks import Check, CheckRegistry, Outcome
from cloister.evidence.context import model_artifact
from cloister.evidence.envelope import Envelope
from cloister.evidence.predicates import AttestationVerdict, RoundAggregated
from cloister.evidence.terms import MANIFEST_TYPE, ManifestTerms, read_document
from cloister.evidence.verifier import Verifier as ReceiptVerifier
from tests.enclave.amd_vendor import Entry, KeptVendor, collateral
from tests.enclave.attestation_scene import MEASUREMENT, vendor
from tests.evidence.synthetic import MODEL, START, Fields, Lie, Step, SyntheticJob, digest

EVALUATED = START + timedelta(seconds=0.5)
SITES = ("north", "south")


class AttestedJob(SyntheticJob):
    """The synthetic job with platforms that answer, and manifests that allow their code."""

    simulated_allowed = True
    allowed: tuple[str, ...] = (MEASUREMENT.hex(),)
    guest = GuestSettings()
    terms: Mapping[str, Mapping[str, JSON]] = {}
    """What each site's manifest says of hardware."""

    @property
    def released_as(self) -> KeyPurpose:
        """What sites say that their keys are for."""
        return KeyPurpose(self.contents)

    @property
    def policy(self) -> AppraisalPolicy:
        """By what the hub says that it has judged."""
        return AppraisalPolicy.agreed_by(map(self.attestation, SITES))

    @property
    def judged_by(self) -> AppraisalPolicy:
        """By what it has."""
        return self.policy

    def attestation(self, site: str) -> ManifestAttestation:
        return read_document(ManifestTerms, self.manifest(site).payload, "manifest").attestation

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
            **self.terms.get(site, {}),
        }
        return sign_envelope(MANIFEST_TYPE, canonicalize(document), self.keys[f"hospital-{site}"])

    def key_steps(self, site: str) -> list[Step]:
        worker, release = copy.deepcopy(super().key_steps(site))
        level = SealLevel.NAMESPACES
        worker[1]["measures"] = [{"name": name, "outcome": "held", "detail": ""} for name in level.measures]
        stated = release[1]
        policy = policy_for_job(
            self.attestation(site),
            data_key=str(stated["data_key"]),
            dataset=str(stated["dataset"]),
            scope=self.job_id,
            holds=(parse_time("2026-01-01T00:00:00.000000Z"), parse_time("2027-01-01T00:00:00.000000Z")),
            purpose=self.released_as,
        )
        stated["purpose"] = self.released_as.value
        stated["policy_sha256"] = policy.sha256
        stated["seal_sha256"] = sealed_as(worker[1])
        verdict = self._verdict(site)
        stated["attested"] = {
            name: verdict[name]
            for name in ("platform", "simulated", "measurement", "tcb_status", "advisories")
        }
        return [worker, release]

    def _verdict(self, site: str) -> Fields:
        binding = Binding(
            nonce=bytes.fromhex(digest(f"nonce {site}")),
            key_id=self.keys[f"site-{site}"].public_key.key_id,
            job_id=self.job_id,
            policy_id=self.policy.sha256,
        )
        platform = vendor().platform(site, MEASUREMENT, self.guest)
        verifier = Verifier(
            TrustStore.simulated(vendor().root_der), fixed_clock(EVALUATED), vendor().collateral
        )
        verdict = verifier.verify(
            platform.quote(binding.report_data()), expected=binding, policy=self.judged_by
        )
        return dict(verdict_fields(site, verdict, binding, self.policy))


def sealed_as(worker: Fields) -> str:
    """The hash of what is stated of a worker, which its quote has sealed in."""
    claims = {name: worker[name] for name in ("level", "kernel", "measures")}
    return sha256_hex(canonicalize(claims))  # type: ignore[arg-type]


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


def no_list(fields: Fields) -> None:
    fields["collateral"] = []


def a_foreign_list(fields: Fields) -> None:
    stranger = SimulatedVendor.create(fixed_clock(START))
    fields["collateral"] = [{"kind": "amd-crl", "data": b64encode(stranger.crl_der)}]


def a_changed_list(fields: Fields) -> None:
    changed = bytearray(vendor().crl_der)
    changed[-1] ^= 1
    fields["collateral"] = [{"kind": "amd-crl", "data": b64encode(bytes(changed))}]


def a_list_of_no_known_kind(fields: Fields) -> None:
    fields["collateral"] = [{"kind": "amd-rumour", "data": ""}]


def a_second_list(fields: Fields) -> None:
    a_foreign_list(fields)
    fields["collateral"] += [{"kind": "amd-crl", "data": b64encode(vendor().crl_der)}]  # type: ignore[operator]


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
    "its revocation list left out": (on_verdict(no_list), "(attestation.revocation_unknown)"),
    "another root's list in its place": (on_verdict(a_foreign_list), "(attestation.revocation_unknown)"),
    "a list that its root didn't sign": (on_verdict(a_changed_list), "(attestation.collateral)"),
    "a list that wasn't used": (on_verdict(a_second_list), "stated collateral"),
    "collateral of no known kind": (on_verdict(a_list_of_no_known_kind), "not sound"),
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
    assert "north: took part in round 0 without a TRUSTED verdict" in check.detail


@pytest.mark.usefixtures("careless")
def test_a_manifest_that_asks_for_hardware_refuses_simulated_platforms(tmp_path: Path) -> None:
    class Hardware(AttestedJob):
        simulated_allowed = False
        terms: ClassVar = {site: {"amd_lines": ["Milan"], "minimum_tcb": MILAN} for site in SITES}

    assert made(Hardware, tmp_path).outcome is Outcome.FAILED


# What a simulated platform keeps to with 24; it states 4, 0, 24 and 219.
MILAN: JSON = {"Milan": {"boot_loader": 4, "tee": 0, "snp": 24, "microcode": 219}}
NEWER: JSON = {"Milan": {"boot_loader": 4, "tee": 0, "snp": 25, "microcode": 219}}


def test_the_terms_of_hardware_in_the_manifests_are_what_a_receipt_is_judged_by(tmp_path: Path) -> None:
    class Asked(AttestedJob):
        terms: ClassVar = {"north": {"minimum_tcb": MILAN, "maximum_collateral_age_days": 3650}}

    assert made(Asked, tmp_path).outcome is Outcome.PASSED


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize(
    ("terms", "sign"),
    [
        ({"north": {"minimum_tcb": NEWER}}, "(attestation.tcb_unacceptable)"),
        (
            {"south": {"minimum_tcb": MILAN}, "north": {"minimum_tcb": NEWER}},
            "(attestation.tcb_unacceptable)",
        ),
        ({"south": {"vmpl": 2}, "north": {"vmpl": 2}}, "(attestation.vmpl)"),
        ({"south": {"vmpl": 2}}, "vmpl differs"),
        ({"south": {"gpus": "required"}, "north": {"gpus": "allowed"}}, "(attestation.gpu_missing)"),
    ],
)
def test_a_hub_that_judges_by_less_than_one_hospital_asks_of_hardware_is_found_out(
    terms: Mapping[str, Mapping[str, JSON]], sign: str, tmp_path: Path
) -> None:
    """The hub states the policy that the hospitals agree on, and leaves what they ask of hardware out."""
    asked = terms

    class Below(AttestedJob):
        terms = asked

        @property
        def policy(self) -> AppraisalPolicy:
            return self.judged_by if sign == "vmpl differs" else super().policy

        @property
        def judged_by(self) -> AppraisalPolicy:
            return AppraisalPolicy(measurements=self.allowed, platforms=Platforms.HARDWARE_OR_SIMULATED)

    check = made(Below, tmp_path)
    assert check.outcome is Outcome.FAILED
    assert sign in check.detail


def test_a_manifest_with_a_term_that_the_verifier_does_not_know_is_not_read(
    tmp_path: Path,
) -> None:
    one = AttestedJob(tmp_path)
    document = parse(one.manifest("north").payload)
    assert isinstance(document, dict)
    assert isinstance(document["attestation"], dict)
    document["attestation"]["minimum_moon_phase"] = 3
    with pytest.raises(CloisterError) as refused:
        read_document(ManifestTerms, canonicalize(document), "manifest")
    assert refused.value.code == "evidence.receipt_malformed"
    assert "attestation.minimum_moon_phase" in refused.value.message


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


KEPT = KeptVendor()
TODAY = START + timedelta(days=200)


class KeptJob(AttestedJob):
    """The job on machines of a vendor that can still sign lists."""

    lists: tuple[bytes, ...] = (KEPT.crl(issued_at=START - timedelta(days=1)),)

    @property
    def tee_roots(self) -> tuple[bytes, ...]:
        return (certificate_pem(KEPT.root_der),)

    def _verdict(self, site: str) -> Fields:
        binding = Binding(
            nonce=bytes.fromhex(digest(f"nonce {site}")),
            key_id=self.keys[f"site-{site}"].public_key.key_id,
            job_id=self.job_id,
            policy_id=self.policy.sha256,
        )
        platform = KEPT.simulated().platform(site, MEASUREMENT, self.guest)
        verifier = Verifier(
            TrustStore.simulated(KEPT.root_der), fixed_clock(EVALUATED), collateral(*self.lists)
        )
        verdict = verifier.verify(platform.quote(binding.report_data()), expected=binding, policy=self.policy)
        return dict(verdict_fields(site, verdict, binding, self.policy))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptJob:
    made = KeptJob(tmp_path_factory.mktemp("kept"))
    made.run()
    return made


def judged_today(
    job: SyntheticJob, *lists: bytes, now: datetime = TODAY, receipt: bytes | None = None
) -> dict[str, Check]:
    registry = CheckRegistry()
    register_attestation_check(registry)
    register_check_of_today(registry, collateral(*lists), now)
    verdict = ReceiptVerifier(job.trust, registry).verify(receipt or job.receipt(), model_artifact(MODEL))
    return {check.id: check for check in verdict.checks}


def revoked_intermediate() -> list[Entry]:
    return [Entry(KEPT.intermediate.serial_number)]


def test_a_revocation_that_came_after_the_job_is_told_apart_from_what_was_known_then(kept: KeptJob) -> None:
    newer = KEPT.crl(revoked_intermediate(), issued_at=TODAY - timedelta(days=1))
    checks = judged_today(kept, newer)
    assert checks["attestation"].outcome is Outcome.PASSED
    assert checks["attestation-today"].outcome is Outcome.FAILED
    assert "at the time TRUSTED; by what is known today: revoked" in checks["attestation-today"].detail


def test_a_revocation_of_the_time_that_the_hub_left_out_is_seen_with_the_list_at_hand(kept: KeptJob) -> None:
    left_out = KEPT.crl(revoked_intermediate(), issued_at=EVALUATED - timedelta(minutes=1))
    checks = judged_today(kept, left_out, now=START + timedelta(hours=2))
    assert checks["attestation"].outcome is Outcome.PASSED
    assert checks["attestation-today"].outcome is Outcome.FAILED


def test_what_holds_by_todays_list_passes_and_what_no_list_of_today_speaks_of_is_not_run(
    kept: KeptJob,
) -> None:
    checks = judged_today(kept, KEPT.crl(issued_at=TODAY - timedelta(days=1)))
    assert checks["attestation-today"].outcome is Outcome.PASSED
    for lists in ((), (vendor().crl_der,)):
        check = judged_today(kept, *lists)["attestation-today"]
        assert check.outcome is Outcome.NOT_RUN
        assert "by what is known today: collateral expired" in check.detail


class WaivedJob(KeptJob):
    """Its manifests do without AMD's list, and nobody had one."""

    lists = ()
    terms = {site: {"without_revocation": ["amd-sev-snp"]} for site in SITES}  # noqa: RUF012


@pytest.fixture(scope="module")
def waived(tmp_path_factory: pytest.TempPathFactory) -> WaivedJob:
    made = WaivedJob(tmp_path_factory.mktemp("waived"))
    made.run()
    return made


def test_a_list_that_the_manifests_do_without_is_asked_for_by_who_asks_about_today(waived: WaivedJob) -> None:
    unknown = judged_today(waived)
    assert unknown["attestation"].outcome is Outcome.PASSED
    assert unknown["attestation-today"].outcome is Outcome.NOT_RUN
    assert "by what is known today: revocation unknown" in unknown["attestation-today"].detail
    for entries, expected in ((None, Outcome.PASSED), (revoked_intermediate(), Outcome.FAILED)):
        listed = KEPT.crl(entries or [], issued_at=TODAY - timedelta(days=1))
        checks = judged_today(waived, listed)
        assert checks["attestation"].outcome is Outcome.PASSED
        assert checks["attestation-today"].outcome is expected


@pytest.mark.usefixtures("careless")
def test_what_documents_of_today_refuse_is_not_hidden_by_one_that_is_missing(waived: WaivedJob) -> None:
    receipt = waived.lying_hub(on_verdict(lambda one: one.update(nonce=b64encode(bytes(32)))))
    check = judged_today(waived, receipt=receipt)["attestation-today"]
    assert check.outcome is Outcome.FAILED
    assert "key binding" in check.detail


def test_nobody_is_asked_about_today_unless_somebody_asks(kept: KeptJob) -> None:
    registry = CheckRegistry()
    register_attestation_check(registry)
    verdict = ReceiptVerifier(kept.trust, registry).verify(kept.receipt(), model_artifact(MODEL))
    assert "attestation-today" not in {check.id for check in verdict.checks}


@pytest.mark.usefixtures("careless")
def test_a_machine_that_was_refused_between_two_rounds_took_no_part_in_the_second(job: AttestedJob) -> None:
    def refused_later(steps: list[Step]) -> None:
        stated = next(fields for kind, fields in steps if kind is AttestationVerdict)
        second = [place for place, one in enumerate(steps) if one[0] is RoundAggregated][1]
        steps.insert(second, (AttestationVerdict, {**stated, "status": "UNTRUSTED"}))

    check = judge(job, job.lying_hub(refused_later))
    assert check.outcome is Outcome.FAILED
    assert "took part in round 1 without a TRUSTED verdict before it" in check.detail
