"""Attestation results as tokens: what a verdict becomes, who signed it, what no token may say."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import sha256_hex
from cloister.core.keys import ECDSA_P256, ECDSA_P384, ED25519, EphemeralKeyStore, Signer
from cloister.enclave import AttestationError, TrustStore, Verdict
from cloister.enclave.attestation import GuestSettings
from cloister.enclave.attestation.checks import AttestationCheck, CheckOutcome
from cloister.enclave.attestation.claims import TcbStatus
from cloister.enclave.attestation.ear import (
    HARDWARE_PROFILE,
    SIMULATED_PROFILE,
    EarStatus,
    EarToken,
    issue,
    read,
)
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.jws import MAX_TOKEN_BYTES, sign, verified_payload
from cloister.enclave.attestation.verdict import Status
from tests.enclave.attestation_scene import NOW, Scene, scene

KEYS = EphemeralKeyStore()
VERIFIER = KEYS.generate("verifier", ECDSA_P256)
STRANGER = KEYS.generate("stranger", ECDSA_P256)
LIFE = timedelta(minutes=5)
SCENE = scene()


def token_of(
    verdict: Verdict, one: Scene = SCENE, *, life: timedelta = LIFE, signer: Signer = VERIFIER
) -> str:
    return issue(
        verdict,
        signer,
        asked=one.binding,
        policy_id=one.policy.sha256,
        build="0.5.0",
        lifetime=life,
    )


def read_back(verdict: Verdict) -> EarToken:
    return read(token_of(verdict), VERIFIER.public_key, NOW)


SIMULATED = SCENE.verify()


def hardware() -> Verdict:
    """The simulated verdict, as if its root were a vendor's."""
    assert SIMULATED.claims is not None
    return replace(SIMULATED, claims=replace(SIMULATED.claims, simulated=False))


TOKEN = token_of(SIMULATED)


def test_a_trusted_machine_is_affirmed_and_everything_it_stands_on_is_in_the_token() -> None:
    verdict = hardware()
    found = read_back(verdict)
    assert found.status is EarStatus.AFFIRMING
    assert (found.eat_profile, found.simulated) == (HARDWARE_PROFILE, False)
    assert (found.iat, found.exp) == (int(NOW.timestamp()), int((NOW + LIFE).timestamp()))
    assert found.nonce == SCENE.binding.nonce
    assert found.confirmation is not None
    assert (found.confirmation.kid, found.job) == (SCENE.binding.key_id, SCENE.binding.job_id)
    assert (found.verifier.developer, found.verifier.build) == ("cloister", "0.5.0")
    (cpu,) = found.submods.values()
    vector = cpu.vector
    assert (vector.hardware, vector.executables, vector.configuration, vector.runtime_opaque) == (2, 3, 2, 2)
    assert cpu.policy_id == SCENE.policy.sha256
    assert cpu.evidence.evidence_sha256 == sha256_hex(verdict.evidence.encode())
    assert verdict.claims is not None
    assert cpu.evidence.registers == verdict.claims.registers
    assert cpu.evidence.sealed_in == SCENE.binding.report_data().hex()
    assert [one.name for one in cpu.evidence.checks] == [one.name for one in verdict.checks]
    assert [one.what for one in cpu.evidence.collateral] == ["AMD CRL"]


def test_a_token_may_answer_a_nonce_alone() -> None:
    policy = SCENE.policy.sha256
    for nonce in (bytes(8), bytes(range(64))):
        token = issue(SIMULATED, VERIFIER, asked=nonce, policy_id=policy, build="1", lifetime=LIFE)
        found = read(token, VERIFIER.public_key, NOW)
        assert (found.nonce, found.confirmation, found.job) == (nonce, None, None)
    for nonce in (b"", bytes(7), bytes(67)):
        with pytest.raises(AttestationError) as refused:
            issue(SIMULATED, VERIFIER, asked=nonce, policy_id=policy, build="1", lifetime=LIFE)
        assert refused.value.code == "attestation.malformed"


def test_a_simulated_machine_is_never_above_warning_and_has_a_profile_of_its_own() -> None:
    found = read_back(SIMULATED)
    assert SIMULATED.status is Status.TRUSTED
    assert found.status is EarStatus.WARNING
    assert (found.eat_profile, found.simulated) == (SIMULATED_PROFILE, True)
    assert found.submods["cpu0"].vector.hardware == 32


def with_guest(**settings: int) -> Verdict:
    return SCENE.with_guest(GuestSettings(**settings)).verify()  # type: ignore[arg-type]


UNTRUSTED: dict[str, tuple[Callable[[], Verdict], dict[str, int]]] = {
    "not authentic": (
        lambda: replace(SCENE, trust=TrustStore.production()).verify(),
        {"hardware": 97, "executables": 33, "configuration": 36, "runtime_opaque": 0},
    ),
    "debug": (lambda: with_guest(policy=0x30000 | 1 << 19), {"configuration": 96, "runtime_opaque": 96}),
    "another level": (lambda: with_guest(vmpl=1), {"configuration": 32, "executables": 3}),
    "other code": (
        lambda: replace(
            SCENE, policy=SCENE.policy.model_copy(update={"measurements": ("ab" * 48,)})
        ).verify(),
        {"executables": 33, "configuration": 2},
    ),
}


@pytest.mark.parametrize("name", UNTRUSTED)
def test_what_is_not_trusted_is_contraindicated_and_the_vector_says_why(name: str) -> None:
    make, expected = UNTRUSTED[name]
    found = read_back(make())
    assert found.status is EarStatus.CONTRAINDICATED
    vector = found.submods["cpu0"].vector
    assert {field: getattr(vector, field) for field in expected} == expected


@pytest.mark.parametrize(
    ("status", "number"),
    [
        (TcbStatus.UP_TO_DATE, 2),
        (TcbStatus.SW_HARDENING_NEEDED, 2),
        (TcbStatus.OUT_OF_DATE, 32),
        (TcbStatus.CONFIGURATION_NEEDED, 32),
        (TcbStatus.REVOKED, 96),
    ],
)
def test_an_old_platform_is_said_to_be_one(status: TcbStatus, number: int) -> None:
    verdict = hardware()
    assert verdict.claims is not None
    older = replace(verdict, claims=replace(verdict.claims, tcb_status=status))
    found = read_back(older)
    assert found.submods["cpu0"].vector.hardware == number
    assert (found.status is EarStatus.AFFIRMING) == (number == 2)


def test_a_device_has_a_result_of_its_own() -> None:
    verdict = hardware()
    assert verdict.claims is not None
    gpu = Evidence(Tee.NVIDIA_GPU, b"gpu")
    gpu_claims = replace(verdict.claims, tee=Tee.NVIDIA_GPU, registers={"driver": "1"})
    both = replace(
        verdict,
        evidence=replace(verdict.evidence, devices=(Evidence(Tee.NVIDIA_GPU, b"broken"), gpu)),
        devices=(gpu_claims,),
        status=Status.UNTRUSTED,
        checks=(
            *verdict.checks,
            AttestationCheck("gpu0/signature", CheckOutcome.FAILED, "it is not signed"),
            AttestationCheck("gpu0/platform", CheckOutcome.NOT_RUN, "not run"),
            AttestationCheck("gpu1/signature", CheckOutcome.PASSED, "it is signed"),
            AttestationCheck("gpu1/platform", CheckOutcome.PASSED, "hardware"),
        ),
    )
    found = read_back(both)
    assert set(found.submods) == {"cpu0", "gpu0", "gpu1"}
    assert found.submods["gpu0"].status is EarStatus.CONTRAINDICATED
    assert found.submods["gpu0"].vector.hardware == 97
    assert found.submods["gpu1"].status is EarStatus.AFFIRMING
    assert found.submods["gpu1"].evidence.registers == {"driver": "1"}
    assert found.submods["gpu1"].evidence.evidence_sha256 == sha256_hex(gpu.encode())
    assert found.submods["cpu0"].status is EarStatus.CONTRAINDICATED
    assert found.status is EarStatus.CONTRAINDICATED


def refusal(token: str, *, now: datetime = NOW, key: Signer = VERIFIER) -> str:
    with pytest.raises(AttestationError) as refused:
        read(token, key.public_key, now)
    return refused.value.code


def test_a_token_holds_from_its_verdict_on_for_its_lifetime() -> None:
    assert read(TOKEN, VERIFIER.public_key, NOW - timedelta(seconds=60)).iat
    assert refusal(TOKEN, now=NOW - timedelta(seconds=61)) == "attestation.not_yet_valid"
    assert read(TOKEN, VERIFIER.public_key, NOW + LIFE - timedelta(seconds=1)).iat
    assert refusal(TOKEN, now=NOW + LIFE) == "attestation.expired"


@pytest.mark.parametrize("life", [timedelta(0), timedelta(seconds=-1), timedelta(hours=24, seconds=1)])
def test_no_token_is_issued_for_no_time_or_too_long(life: timedelta) -> None:
    with pytest.raises(AttestationError) as refused:
        token_of(SIMULATED, life=life)
    assert refused.value.code == "attestation.malformed"


def test_another_verifiers_token_is_refused() -> None:
    assert refusal(TOKEN, key=STRANGER) == "attestation.alg"  # the header names the key
    forged = replaced(TOKEN, 0, header(kid=STRANGER.public_key.key_id))
    assert refusal(forged, key=STRANGER) == "attestation.signature"


@pytest.mark.parametrize("algorithm", [ED25519, ECDSA_P384])
def test_no_other_kind_of_key_signs_or_verifies_tokens(algorithm: str) -> None:
    other = EphemeralKeyStore().generate("other", algorithm)
    with pytest.raises(AttestationError) as refused:
        token_of(SIMULATED, signer=other)
    assert refused.value.code == "attestation.alg"
    assert refusal(TOKEN, key=other) == "attestation.alg"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def header(**changes: JSON) -> str:
    fields: dict[str, JSON] = {"alg": "ES256", "kid": VERIFIER.public_key.key_id, "typ": "JWT", **changes}
    return encoded(canonicalize({name: value for name, value in fields.items() if value is not None}))


def replaced(token: str, place: int, part: str) -> str:
    parts = token.split(".")
    return ".".join((*parts[:place], part, *parts[place + 1 :]))


HEADERS = {
    "no algorithm": header(alg="none"),
    "a shared secret": header(alg="HS256"),
    "another curve": header(alg="ES384"),
    "no type": header(typ=None),
    "another type": header(typ="JOSE"),
    "no key id": header(kid=None),
    "a key of its own": header(jwk={"kty": "EC"}),
    "a URL of keys": header(jku="https://example.org/keys"),
    "a critical header": header(crit=["exp"]),
    "a space in it": encoded(b'{"alg": "ES256","kid":"x","typ":"JWT"}'),
    "no JSON": encoded(b"ES256"),
    "nothing": "",
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_header_is_the_one_header_whatever_the_token_wishes(name: str) -> None:
    part = HEADERS[name]
    assert refusal(replaced(TOKEN, 0, part)) == "attestation.alg"
    if part:
        signed = f"{part}.{TOKEN.split('.')[1]}"
        signature = VERIFIER.sign(signed.encode())
        assert refusal(f"{signed}.{encoded(signature)}") == "attestation.alg"


def test_a_token_has_one_spelling() -> None:
    first, middle, last = TOKEN.split(".")
    for bad in (
        "",
        ".",
        "..",
        first,
        f"{first}.{middle}",
        f"{TOKEN}.",
        f".{TOKEN}",
        f"{TOKEN}.{last}",
        f"{TOKEN}=",
        f"{TOKEN}\n",
        f" {TOKEN}",
        f"{first}=.{middle}.{last}",
        f"{first}.{middle}.{last[:-1]}",
        f"{first}.{middle}.{encoded(bytes(63))}",
        f"{first}.{middle}.{encoded(bytes(65))}",
        f"{first}.{middle}.{encoded(VERIFIER.sign(b'x'))}",
        f"{first}.{middle}.{last[:-1]}{chr(ord(last[-1]) + 1)}",
        TOKEN.replace(".", ".\u00e9", 1),
        "a" * (MAX_TOKEN_BYTES + 1),
    ):
        assert refusal(bad) in ("attestation.malformed", "attestation.alg")
    assert refusal(f"{first}.{middle}.{encoded(bytes(64))}") == "attestation.signature"
    standard = base64.b64encode(base64.urlsafe_b64decode(last + "==")).rstrip(b"=").decode()
    if standard != last:
        assert refusal(f"{first}.{middle}.{standard}") == "attestation.malformed"


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="ascii"))
def test_no_changed_character_of_a_token_is_accepted(place: int, character: str) -> None:
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    if changed != TOKEN:
        assert refusal(changed) in ("attestation.malformed", "attestation.alg", "attestation.signature")


@given(st.text(max_size=300))
def test_garbage_raises_nothing_but_the_rooms_error(text: str) -> None:
    assert refusal(text).startswith("attestation.")


def payload() -> dict[str, JSON]:
    found = verified_payload(TOKEN, VERIFIER.public_key)
    assert isinstance(found, dict)
    return found


def changed(path: str, value: JSON) -> dict[str, JSON]:
    """The payload with one member changed, added, or (for ...) left out."""
    document = json.loads(json.dumps(payload()))
    *parents, name = path.split("/")
    place = document
    for parent in parents:
        place = place[parent]
    if value == "(left out)":
        del place[name]
    else:
        place[name] = value
    return document  # type: ignore[no-any-return]


CPU = "submods/cpu0"
LIES: dict[str, tuple[str, JSON]] = {
    "an unknown member": ("admin", True),
    "an unknown member of a submodule": (f"{CPU}/admin", True),
    "a field's name in this program": ("verifier", {"developer": "a", "build": "b"}),
    "no profile": ("eat_profile", "(left out)"),
    "another profile": ("eat_profile", "tag:example.org,2026:ear"),
    "simulated evidence as hardware": ("eat_profile", HARDWARE_PROFILE),
    "affirming what is simulated": (f"{CPU}/ear.status", "affirming"),
    "a status nobody knows": (f"{CPU}/ear.status", "fine"),
    "a status that is none": (f"{CPU}/ear.status", "none"),
    "a vector worse than the status": (f"{CPU}/ear.trustworthiness-vector/hardware", 97),
    "a vector of another kind": (f"{CPU}/ear.trustworthiness-vector/hardware", "2"),
    "a vector past its range": (f"{CPU}/ear.trustworthiness-vector/hardware", 128),
    "half a vector": (f"{CPU}/ear.trustworthiness-vector/hardware", "(left out)"),
    "a time in words": ("iat", "2026-11-21"),
    "a time with a fraction": ("iat", 1.5),
    "a time before all": ("iat", -1),
    "a time after all": ("exp", 2**52),
    "true as a time": ("iat", True),
    "no end": ("exp", "(left out)"),
    "an end before its start": ("exp", 0),
    "a life of years": ("exp", int(NOW.timestamp()) + 10**8),
    "no nonce": ("eat_nonce", "(left out)"),
    "a short nonce": ("eat_nonce", "AAAA"),
    "a nonce in another spelling": ("eat_nonce", "A" * 42 + "B"),
    "a nonce in another alphabet": ("eat_nonce", "A" * 42 + "+"),
    "a nonce of a length that none has": ("eat_nonce", "A" * 41),
    "no machine": (CPU, "(left out)"),
    "another submodule": ("submods/tpm0", {}),
    "a gap in the devices": ("submods/gpu1", {}),
    "a policy of no form": (f"{CPU}/ear.appraisal-policy-id", "policy"),
    "no key": ("cnf", {}),
    "submodules in a list": ("submods", []),
}


@pytest.mark.parametrize("name", LIES)
def test_a_signed_token_that_is_not_sound_is_refused_all_the_same(name: str) -> None:
    assert read(sign(payload(), VERIFIER), VERIFIER.public_key, NOW).status is EarStatus.WARNING
    path, value = LIES[name]
    assert refusal(sign(changed(path, value), VERIFIER)) == "attestation.malformed"


def test_no_vector_makes_a_simulated_machine_better_than_a_warning() -> None:
    document = changed(f"{CPU}/ear.trustworthiness-vector/hardware", 2)
    assert read(sign(document, VERIFIER), VERIFIER.public_key, NOW).status is EarStatus.WARNING
    submods: dict[str, dict[str, JSON]] = document["submods"]  # type: ignore[assignment]
    submods["cpu0"]["ear.status"] = "affirming"
    assert refusal(sign(document, VERIFIER)) == "attestation.malformed"


def test_a_payload_with_a_key_twice_is_refused_though_it_is_signed() -> None:
    once = canonicalize(payload())
    for body in (once[:-1] + b',"exp":9}', b"[]", b"null", b"{", b"\xff", b"[" * 50 + b"]" * 50):
        signed = f"{header()}.{encoded(body)}"
        der = VERIFIER.sign(signed.encode())
        assert refusal(f"{signed}.{encoded(raw(der))}") == "attestation.malformed"


def raw(der: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    return b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(der))


def test_two_submodules_were_held_against_one_policy() -> None:
    document = changed("exp", payload()["exp"])
    submods = document["submods"]
    assert isinstance(submods, dict)
    other = json.loads(json.dumps(submods["cpu0"]))
    submods["gpu0"] = other
    assert len(read(sign(document, VERIFIER), VERIFIER.public_key, NOW).submods) == 2
    other["ear.appraisal-policy-id"] = "0" * 64
    assert refusal(sign(document, VERIFIER)) == "attestation.malformed"


def test_an_independent_library_verifies_the_token_and_reads_the_same() -> None:
    jwt = pytest.importorskip("jwt", reason="PyJWT is not installed")
    key = VERIFIER.public_key.pem
    at = {"verify_exp": False, "verify_iat": False}
    theirs = jwt.decode(TOKEN, key, algorithms=["ES256"], options=at)
    assert theirs == payload()
    assert jwt.get_unverified_header(TOKEN)["alg"] == "ES256"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(TOKEN, STRANGER.public_key.pem, algorithms=["ES256"], options=at)


def test_a_token_that_an_independent_library_signs_is_read_where_it_has_the_one_header() -> None:
    jwt = pytest.importorskip("jwt", reason="PyJWT is not installed")
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from cloister.core.keys import PublicKey

    private = ec.generate_private_key(ec.SECP256R1())
    public = PublicKey.of(private.public_key())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    theirs = jwt.encode(payload(), pem, "ES256", headers={"kid": public.key_id}, sort_headers=True)
    assert read(theirs, public, NOW) == read(TOKEN, VERIFIER.public_key, NOW)


def test_a_hundred_signatures_are_all_of_64_bytes() -> None:
    """r and s are padded: a number in a hundred or so is shorter."""
    for _ in range(100):
        token = sign({"a": 1}, VERIFIER)
        assert len(token.rpartition(".")[2]) == 86
        assert verified_payload(token, VERIFIER.public_key) == {"a": 1}


def test_times_are_utc() -> None:
    found = read_back(SIMULATED)
    assert datetime.fromtimestamp(found.iat, UTC) == NOW
