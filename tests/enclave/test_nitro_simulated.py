"""The simulated security module takes the real way and is refused as hardware; a mock enclave lives by it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.clock import fixed_clock
from cloister.enclave.attestation import (
    AppraisalPolicy,
    Binding,
    CheckOutcome,
    Collateral,
    CollateralDocument,
    CollateralKind,
    Evidence,
    Platforms,
    ReferenceValues,
    Status,
    Tee,
    TrustStore,
    Verdict,
    Verifier,
    authenticate,
)
from cloister.enclave.attestation.aws.document import SignedDocument
from cloister.enclave.attestation.aws.revocation import lists_of
from cloister.enclave.attestation.p384_chain import P384Chain
from cloister.enclave.attestation.simulated import nitro
from cloister.enclave.attestation.simulated.certificates import (
    authority,
    certificate_der,
    issued,
    key_usage,
    new_key,
    revocation_list,
    simulated_name,
)
from cloister.enclave.attestation.simulated.enclave import MockNitroEnclave, image_of
from cloister.enclave.attestation.simulated.nitro import (
    EnclaveImage,
    SimulatedNitro,
    SimulatedSecurityModule,
    attestation_answer,
    attestation_request,
)
from cloister.enclave.attestation.trust import SIMULATED_ORGANISATION
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError, EnclaveError
from tests.enclave.edits import edits

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
Extensions = tuple[tuple[x509.ExtensionType, bool], ...]
IMAGE = EnclaveImage.of(b"application")
HERE = "tests.enclave.nitro_functions"
FUNCTIONS = {
    name: f"{HERE}:{name}" for name in ("reverse", "attested", "fails", "sleeps", "leaves", "process")
}


@lru_cache(maxsize=1)
def cloud() -> SimulatedNitro:
    return SimulatedNitro.create(fixed_clock(NOW))


def module(image: EnclaveImage = IMAGE, at: datetime = NOW) -> SimulatedSecurityModule:
    return cloud().module("north", image, fixed_clock(at))


def policy(
    image: EnclaveImage = IMAGE, platforms: Platforms = Platforms.HARDWARE_OR_SIMULATED
) -> AppraisalPolicy:
    registers = {"pcr0": image.pcr0.hex(), "pcr1": image.pcr1.hex(), "pcr2": image.pcr2.hex()}
    return AppraisalPolicy(
        references=(ReferenceValues(tee=Tee.AWS_NITRO, registers=registers),), platforms=platforms
    )


BINDING = Binding(bytes(32), "sha256:" + "ab" * 32, "job", "policy")


def verify(
    evidence: Evidence,
    asked: AppraisalPolicy | None = None,
    binding: Binding = BINDING,
    at: datetime = NOW,
    trust: TrustStore | None = None,
    lists: tuple[CollateralDocument, ...] | None = None,
) -> Verdict:
    store = trust or TrustStore.simulated(cloud().root_der)
    collateral = cloud().collateral if lists is None else Collateral(lists)
    return Verifier(store, fixed_clock(at), collateral).verify(
        evidence, expected=binding, policy=asked or policy()
    )


def test_a_simulated_document_is_accepted_where_simulation_is_allowed_and_says_so() -> None:
    verdict = verify(module().quote(BINDING.report_data(), nonce=b"n", public_key=b"k"))
    assert verdict.status is Status.TRUSTED
    assert verdict.simulated
    assert verdict.hardware_type == "SIMULATED_AWS_NITRO"
    assert verdict.claims is not None
    document = verdict.claims.detail.document  # type: ignore[attr-defined]
    assert (document.nonce, document.public_key) == (b"n", b"k")
    assert document.module_id.startswith("SIMULATED-NOT-HARDWARE")
    for der in document.chain:
        names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(
            x509.NameOID.ORGANIZATION_NAME
        )
        assert [name.value for name in names] == [SIMULATED_ORGANISATION]


def zonal(evidence: Evidence) -> x509.Certificate:
    chain = SignedDocument.parse(evidence.report).document.chain
    return x509.load_der_x509_certificate(chain[1])


DAY = timedelta(days=1)


def test_without_the_lists_of_its_authorities_a_document_is_refused_unless_the_policy_does_without() -> None:
    evidence = module().quote(BINDING.report_data())
    verdict = verify(evidence, lists=())
    checks = {check.name: check for check in verdict.checks}
    assert verdict.code == "attestation.revocation_unknown"
    assert checks["revocation-lists"].outcome is CheckOutcome.NOT_RUN
    assert checks["revocation-lists"].detail.startswith("not checked")
    assert "not checked" in checks["revocation"].detail
    lenient = policy().model_copy(update={"without_revocation": (Tee.AWS_NITRO,)})
    waived = verify(evidence, lenient, lists=())
    assert waived.status is Status.TRUSTED
    checks = {check.name: check for check in waived.checks}
    assert "not checked" in checks["revocation"].detail
    assert "the policy does without one" in checks["revocation"].detail


@pytest.mark.parametrize("later", [-2 * DAY, timedelta(0), DAY], ids=["older", "new", "from later"])
def test_an_authority_on_its_issuers_list_is_revoked_with_all_below_it(later: timedelta) -> None:
    evidence = module().quote(BINDING.report_data())
    serial = zonal(evidence).serial_number
    naming = cloud().revoking(NOW + later, 30 * DAY, (serial, 5))
    standing = cloud().revoking(NOW - 3 * DAY, 30 * DAY, (7,))
    assert verify(evidence, lists=(standing,)).status is Status.TRUSTED
    for order in ((standing, naming), (naming, standing)):
        verdict = verify(evidence, lists=order)
        assert verdict.code == "attestation.revoked"
        assert verify(evidence, lists=verdict.collateral).checks == verdict.checks


def test_a_list_holds_from_its_issue_to_its_next_update() -> None:
    evidence = module().quote(BINDING.report_data())
    for at, life, code in (
        (NOW - 2 * DAY, DAY, "attestation.collateral_expired"),
        (NOW + timedelta(seconds=1), DAY, "attestation.not_yet_valid"),
        (NOW - DAY, DAY, None),
    ):
        assert verify(evidence, lists=(cloud().revoking(at, life, ()),)).code == code
    verdict = verify(evidence, lists=(cloud().revoking(NOW - 5 * DAY, 30 * DAY, ()),))
    assert verdict.claims is not None
    assert [one.what for one in verdict.claims.collateral_dates] == ["AWS CRL"]
    young = policy().model_copy(update={"maximum_collateral_age_days": 4})
    old = verify(evidence, young, lists=verdict.collateral)
    assert old.code == "attestation.collateral_expired"


def test_a_list_that_its_authority_did_not_sign_is_refused() -> None:
    evidence = module().quote(BINDING.report_data())
    root = x509.load_der_x509_certificate(cloud().root_der)
    forged = revocation_list(root.subject, new_key(), (NOW - DAY, NOW + DAY))
    document = CollateralDocument(CollateralKind.AWS_CRL, forged)
    for lists in ((document,), (document, *cloud().collateral.documents)):
        assert verify(evidence, lists=lists).code == "attestation.collateral"
    other = SimulatedNitro.create(fixed_clock(NOW - DAY))
    name = revocation_list(simulated_name("ANOTHER", "AWS"), new_key(), (NOW - DAY, NOW + DAY))
    stranger = CollateralDocument(CollateralKind.AWS_CRL, name)
    assert verify(evidence, lists=(stranger,)).code == "attestation.revocation_unknown"
    assert verify(evidence, lists=other.collateral.documents).code == "attestation.collateral"


def test_every_authority_that_issued_a_long_lived_certificate_needs_a_list() -> None:
    """As AWS has it: the root's list names regional authorities, a regional authority's names zonal ones."""
    keys = [new_key() for _ in range(4)]
    names = [simulated_name(name, "AWS") for name in ("root", "regional", "zonal", "module")]
    lives = [90 * DAY, 20 * DAY, 5 * DAY, timedelta(hours=3)]
    module_only = ((x509.BasicConstraints(ca=False, path_length=None), True), (key_usage(signs=True), True))
    made = []
    for at, (name, key) in enumerate(zip(names, keys, strict=True)):
        above = max(at - 1, 0)
        extensions = module_only if at == 3 else authority(None)
        span = (NOW - timedelta(minutes=1), NOW + lives[at])
        made.append(issued(name, key.public_key(), names[above], keys[above], span, extensions))
    facts = VerifiedFacts()
    chain = P384Chain(tuple(certificate_der(one) for one in reversed(made)), facts)
    chain.verify()

    def listed(by: int, *serials: int) -> CollateralDocument:
        span = (NOW - timedelta(minutes=1), NOW + DAY)
        return CollateralDocument(CollateralKind.AWS_CRL, revocation_list(names[by], keys[by], span, serials))

    def known(*documents: CollateralDocument) -> bool:
        lists = lists_of(chain, documents, NOW, facts)
        lists.require_unrevoked()
        return lists.current(NOW) is not None

    assert known(listed(0), listed(1))
    assert not known(listed(0))
    assert not known(listed(1))
    assert not known()
    assert known(listed(0, made[2].serial_number), listed(1, made[1].serial_number))
    for documents in (
        (listed(0, made[1].serial_number),),
        (listed(0), listed(1, made[2].serial_number)),
        (listed(0), listed(1), listed(2, made[3].serial_number)),
    ):
        with pytest.raises(AttestationError) as refused:
            known(*documents)
        assert refused.value.code == "attestation.revoked"
    crossed = CollateralDocument(
        CollateralKind.AWS_CRL, revocation_list(names[1], keys[0], (NOW - DAY, NOW + DAY))
    )
    with pytest.raises(AttestationError) as refused:
        known(listed(0), crossed)
    assert refused.value.code == "attestation.collateral"


def test_production_trust_refuses_a_simulated_document() -> None:
    verdict = verify(module().quote(BINDING.report_data()), trust=TrustStore.production())
    assert verdict.code == "attestation.untrusted_root"
    asked = policy(platforms=Platforms.HARDWARE_ONLY)
    assert verify(module().quote(BINDING.report_data()), asked).code == "attestation.simulated"


OTHER = replace(BINDING, nonce=b"\1" * 32)
REFUSED: dict[str, tuple[Callable[[], Verdict], str]] = {
    "another nonce": (lambda: verify(module().quote(BINDING.report_data()), binding=OTHER), "key_binding"),
    "nothing sealed in": (lambda: verify(module().quote(b"")), "key_binding"),
    "the report data as nonce": (
        lambda: verify(module().quote(b"x", nonce=BINDING.report_data())),
        "key_binding",
    ),
    "one byte more sealed in": (lambda: verify(module().quote(BINDING.report_data() + b"\0")), "key_binding"),
    "debug mode": (
        lambda: verify(
            module(EnclaveImage.debug()).quote(BINDING.report_data()), policy(EnclaveImage.debug())
        ),
        "debug",
    ),
    "one zero register of three": (
        lambda: verify(module(replace(IMAGE, pcr2=bytes(48))).quote(BINDING.report_data())),
        "debug",
    ),
    "other code": (
        lambda: verify(module(EnclaveImage.of(b"other")).quote(BINDING.report_data())),
        "measurement",
    ),
    "three hours later": (
        lambda: verify(module().quote(BINDING.report_data()), at=NOW + timedelta(hours=3)),
        "expired",
    ),
    "too early": (
        lambda: verify(module().quote(BINDING.report_data()), at=NOW - timedelta(seconds=4)),
        "not_yet_valid",
    ),
}


@pytest.mark.parametrize(("asked", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_each_defect_is_refused_with_its_own_code(asked: Callable[[], Verdict], code: str) -> None:
    verdict = asked()
    assert verdict.status is Status.UNTRUSTED
    assert verdict.code == f"attestation.{code}"


def test_a_module_takes_new_certificates_before_the_old_ones_end() -> None:
    time = [NOW]
    one = cloud().module("north", IMAGE, lambda: time[0])
    first = SignedDocument.parse(one.quote(b"").report).document
    time[0] = NOW + timedelta(hours=2)
    assert SignedDocument.parse(one.quote(b"").report).document.certificate == first.certificate
    time[0] = NOW + timedelta(hours=2, minutes=56)
    later = one.quote(b"")
    assert SignedDocument.parse(later.report).document.certificate != first.certificate
    authenticate(later, TrustStore.simulated(cloud().root_der), time[0])


def test_a_certificate_that_lives_long_leaves_revocation_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nitro, "MODULE_LIFE", timedelta(days=2))
    assert verify(module().quote(BINDING.report_data())).code == "attestation.revocation_unknown"


def test_a_document_that_states_a_time_outside_its_certificate_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nitro, "_EARLY", timedelta(seconds=-60))
    evidence = module().quote(BINDING.report_data())
    assert verify(evidence, at=NOW + timedelta(seconds=61)).code == "attestation.not_yet_valid"


@lru_cache(maxsize=1)
def accepted_report() -> bytes:
    return module().quote(BINDING.report_data()).report


@given(st.data())
def test_an_edited_simulated_document_brings_nothing_but_a_refusal(data: st.DataObject) -> None:
    changed = data.draw(edits(accepted_report()))
    assert verify(Evidence(Tee.AWS_NITRO, changed)).status is Status.UNTRUSTED


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.binary(max_size=60),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.one_of(st.integers(), st.text()), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "nonce", "more"]),
    JUNK,
)
def test_any_value_in_any_field_brings_nothing_but_a_refusal(name: str, value: object) -> None:
    message = cbor2.loads(accepted_report())
    payload = cbor2.loads(message[2])
    changed = cbor2.dumps([message[0], {}, cbor2.dumps({**payload, name: value}), message[3]])
    assert verify(Evidence(Tee.AWS_NITRO, changed)).status is Status.UNTRUSTED or payload.get(name) == value


@given(st.integers(0, 3), JUNK)
def test_any_value_in_any_part_of_the_message_brings_nothing_but_a_refusal(part: int, value: object) -> None:
    message = cbor2.loads(accepted_report())
    unchanged = message[part] == value
    message[part] = value
    verdict = verify(Evidence(Tee.AWS_NITRO, cbor2.dumps(message)))
    assert verdict.status is Status.UNTRUSTED or unchanged


MALFORMED: dict[str, Callable[[dict[str, object]], object]] = {
    "another digest": lambda p: {**p, "digest": "SHA256"},
    "no registers": lambda p: {**p, "pcrs": {}},
    "registers 0 to 2 missing": lambda p: {**p, "pcrs": {3: bytes(48)}},
    "a register of 32 bytes": lambda p: {**p, "pcrs": {**p["pcrs"], 0: bytes(32)}},  # type: ignore[dict-item]
    "register 32": lambda p: {**p, "pcrs": {**p["pcrs"], 32: bytes(48)}},  # type: ignore[dict-item]
    "register true": lambda p: {**p, "pcrs": {0: bytes(48), 2: bytes(48), True: bytes(48)}},
    "a time of zero": lambda p: {**p, "timestamp": 0},
    "the year 10000": lambda p: {**p, "timestamp": 253_402_300_800_000},
    "a time of true": lambda p: {**p, "timestamp": True},
    "no issuers": lambda p: {**p, "cabundle": []},
    "eight issuers": lambda p: {**p, "cabundle": [b"x"] * 8},
    "a certificate of 1,025 bytes": lambda p: {**p, "certificate": bytes(1025)},
    "an empty public key": lambda p: {**p, "public_key": b""},
    "user data of 1,025 bytes": lambda p: {**p, "user_data": bytes(1025)},
    "a nonce as text": lambda p: {**p, "nonce": "n"},
    "an unknown key": lambda p: {**p, "pcr": b""},
    "a missing key": lambda p: {name: value for name, value in p.items() if name != "digest"},
    "a module id with a line break": lambda p: {**p, "module_id": "a\nb"},
    "a list": lambda p: list(p.values()),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_document_out_of_its_form_is_malformed(change: Callable[[dict[str, object]], object]) -> None:
    message = cbor2.loads(accepted_report())
    changed = cbor2.dumps([message[0], {}, cbor2.dumps(change(cbor2.loads(message[2]))), message[3]])
    assert verify(Evidence(Tee.AWS_NITRO, changed)).code == "attestation.malformed"


def test_headers_that_are_not_signed_and_other_algorithms_are_refused() -> None:
    message = cbor2.loads(accepted_report())

    def code(*parts: object) -> str | None:
        return verify(Evidence(Tee.AWS_NITRO, cbor2.dumps(list(parts)))).code

    assert code(message[0], {4: b"key"}, *message[2:]) == "attestation.malformed"
    assert code(cbor2.dumps({1: -7}), {}, *message[2:]) == "attestation.alg"
    assert code(b"", {}, *message[2:]) == "attestation.alg"
    assert code(*message, b"") == "attestation.malformed"
    assert code(*message[:3], message[3][:-1]) == "attestation.malformed"


def test_issuers_that_may_not_issue_are_refused() -> None:
    genuine = SignedDocument.parse(module().quote(b"").report).document
    leaf, issuer, root = genuine.chain

    def code(*chain: bytes) -> str:
        with pytest.raises(AttestationError) as refused:
            P384Chain(chain, VerifiedFacts()).verify()
        return refused.value.code

    assert code(issuer, root) == "attestation.chain"
    assert code(leaf, leaf, root) == "attestation.chain"
    assert code(leaf, root) == "attestation.chain"
    assert code(leaf, issuer, issuer, root) == "attestation.chain"
    assert code(leaf) == "attestation.malformed"
    assert code(leaf, b"\x30\x00") == "attestation.malformed"


def chain_code(*chain: bytes) -> str:
    try:
        P384Chain(chain, VerifiedFacts()).verify()
    except AttestationError as refused:
        return refused.code
    return "good"


def test_path_lengths_names_and_authority_hold_along_a_chain() -> None:
    key, other = new_key(), new_key()
    valid = (NOW - timedelta(days=1), NOW + timedelta(days=1))
    names = {name: simulated_name(name) for name in ("root", "first", "second", "leaf", "stranger")}
    signer = ((key_usage(signs=True), True),)

    def made(
        subject: str, issuer: str, extensions: Extensions, by: ec.EllipticCurvePrivateKey = key
    ) -> bytes:
        return certificate_der(issued(names[subject], key.public_key(), names[issuer], by, valid, extensions))

    root = made("root", "root", authority(None))
    leaf = made("leaf", "second", signer)
    second = made("second", "first", authority(0))
    assert chain_code(leaf, second, made("first", "root", authority(1)), root) == "good"
    assert chain_code(leaf, second, made("first", "root", authority(0)), root) == "attestation.chain"
    assert chain_code(leaf, second, made("stranger", "root", authority(1)), root) == "attestation.chain"
    assert chain_code(leaf, second, made("first", "root", signer), root) == "attestation.chain"
    forged = made("first", "root", authority(1), other)
    assert chain_code(leaf, second, forged, root) == "attestation.chain"


def test_the_count_of_unused_bits_before_a_signature_is_not_free() -> None:
    for attempt in range(64):
        leaf, issuer, root = cloud().certify(f"module {attempt}", new_key().public_key(), NOW)
        if leaf[-1] & 1 == 0:
            break
    count_at = len(leaf) - len(x509.load_der_x509_certificate(leaf).signature) - 1
    assert chain_code(leaf, issuer, root) == "good"
    assert chain_code(leaf[:count_at] + b"\1" + leaf[count_at + 1 :], issuer, root) == "attestation.malformed"


def test_the_clouds_key_is_kept_in_a_file_of_its_owner_and_found_again(tmp_path: Path) -> None:
    first = SimulatedNitro.open(tmp_path, fixed_clock(NOW))
    assert SimulatedNitro.open(tmp_path, fixed_clock(NOW)).root_der == first.root_der
    kept = tmp_path / nitro.ROOT_FILE
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_bytes(b"nothing")
    with pytest.raises(AttestationError):
        SimulatedNitro.open(tmp_path, fixed_clock(NOW))


def test_the_security_module_speaks_its_own_cbor() -> None:
    answer = module().answer(attestation_request(b"data", None, b"key"))
    document = SignedDocument.parse(attestation_answer(answer)).document
    assert (document.user_data, document.nonce, document.public_key) == (b"data", None, b"key")
    for wrong in (b"", b"\xa0", cbor2.dumps("GetRandom"), cbor2.dumps({"Attestation": {"user_data": 1}})):
        assert cbor2.loads(module().answer(wrong)) == {"Error": "InvalidArgument"}


@pytest.mark.parametrize("size", [0, 47, 49])
def test_registers_of_another_size_are_not_simulated(size: int) -> None:
    with pytest.raises(AttestationError):
        module(EnclaveImage(bytes(size), bytes(48), bytes(48)))


@pytest.fixture
def enclave() -> Iterator[MockNitroEnclave]:
    with MockNitroEnclave.start(FUNCTIONS, module(image_of(FUNCTIONS))) as one:
        yield one


def test_a_mock_enclave_is_started_attested_run_and_stopped(enclave: MockNitroEnclave) -> None:
    verdict = verify(enclave.attest(BINDING.report_data()), policy(image_of(FUNCTIONS)))
    assert verdict.status is Status.TRUSTED
    assert verdict.simulated
    output = enclave.run("reverse", b"abc")
    assert (output.data, output.label) == (b"cba", SIMULATED_ORGANISATION)
    assert int(enclave.run("process", b"").data) != os.getpid()
    enclave.stop()
    assert not enclave.running
    for verb in (lambda: enclave.run("reverse", b""), lambda: enclave.attest(b"")):
        with pytest.raises(EnclaveError) as refused:
            verb()
        assert refused.value.code == "enclave.mock"


def test_a_function_asks_for_documents_from_inside(enclave: MockNitroEnclave) -> None:
    document = SignedDocument.parse(enclave.run("attested", b"data").data).document
    assert (document.user_data, document.nonce) == (b"data", b"asked from inside")


def test_a_function_that_fails_leaves_the_enclave_running_and_says_nothing_of_the_data(
    enclave: MockNitroEnclave,
) -> None:
    for name in ("fails", "absent"):
        with pytest.raises(EnclaveError) as refused:
            enclave.run(name, b"a secret")
        assert "secret" not in str(refused.value)
    assert enclave.run("reverse", b"ab").data == b"ba"


@pytest.mark.parametrize("name", ["sleeps", "leaves"])
def test_a_function_that_does_not_come_back_ends_the_enclave(enclave: MockNitroEnclave, name: str) -> None:
    with pytest.raises(EnclaveError):
        enclave.run(name, b"", seconds=0.3)
    assert not enclave.running


def test_more_than_a_megabyte_and_functions_that_are_not_there_are_refused(enclave: MockNitroEnclave) -> None:
    with pytest.raises(EnclaveError):
        enclave.run("reverse", bytes(1024 * 1024))
    with pytest.raises(EnclaveError):
        MockNitroEnclave.start({"a": "tests.enclave.nitro_functions:absent"}, module())
    with pytest.raises(EnclaveError):
        image_of({"a": "tests.enclave.absent:f"})


def test_other_functions_are_another_image() -> None:
    assert image_of(FUNCTIONS) == image_of(FUNCTIONS)
    assert image_of(FUNCTIONS).pcr0 != image_of({"reverse": FUNCTIONS["reverse"]}).pcr0
