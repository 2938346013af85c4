"""The parts of sigstore's bundles that we have entry points for: Rekor's proofs and log heads, DSSE.

Certificates of these bundles have long expired and the identities in them mean nothing here: what is checked
is what Rekor logged, at the time it did. The bundles are sigstore-python's own test assets.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from cloister.core.canonical import b64encode
from cloister.core.errors import CloisterError, SignatureInvalid
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import parse_checkpoint, verify_checkpoint
from cloister.evidence.envelope import Envelope, envelope_from_json, pae, verify_envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import leaf_hash, verify_inclusion
from tests.conftest import SharedData

FOLDER: Final = "crypto-vectors/sigstore-bundles"
REKOR: Final = ["bundle.txt.sigstore", "bundle_v3.txt.sigstore"]
REKOR_V2: Final = "a.dsse.staging-rekor-v2.txt.sigstore.json"
CVE_2022_36056: Final = "bundle_cve_2022_36056.txt.sigstore"
COMPLETE: Final = [*REKOR, REKOR_V2, CVE_2022_36056, "bundle_invalid_version.txt.sigstore"]


@dataclass(frozen=True)
class Logged:
    """What a bundle says about its entry in a transparency log."""

    body: bytes
    index: int
    size: int
    hashes: tuple[bytes, ...]
    root: bytes
    note: str
    key: PublicKey
    name: str

    def verify(self) -> None:
        """Inclusion under the root, and the root in a head that the log signed."""
        head = parse_checkpoint(self.note)
        verify_checkpoint(head, head.origin, self.key, name=self.name)
        assert (head.size, head.root) == (self.size, self.root)
        verify_inclusion(leaf_hash(self.body), self.index, self.size, self.hashes, self.root)


def load(shared_data: SharedData, name: str) -> dict[str, Any]:
    found = json.loads((shared_data(FOLDER) / name).read_bytes())
    assert isinstance(found, dict)
    return found


def public_key(der: bytes) -> PublicKey:
    """The key as our own code accepts one."""
    key = load_der_public_key(der)
    return PublicKey.from_pem(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def certified_key(bundle: dict[str, Any]) -> PublicKey:
    """The key in a bundle's certificate."""
    raw = base64.b64decode(bundle["verificationMaterial"]["certificate"]["rawBytes"])
    key = x509.load_der_x509_certificate(raw).public_key()
    return public_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def logged(shared_data: SharedData, name: str, root: str = "trusted_root.staging.json") -> Logged:
    """The log entry of a bundle, with the key of its log from the trusted root."""
    (entry,) = load(shared_data, name)["verificationMaterial"]["tlogEntries"]
    proof = entry["inclusionProof"]
    logs = {one["logId"]["keyId"]: one for one in load(shared_data, root)["tlogs"]}
    log = logs[entry["logId"]["keyId"]]
    return Logged(
        body=base64.b64decode(entry["canonicalizedBody"]),
        index=int(proof["logIndex"]),
        size=int(proof["treeSize"]),
        hashes=tuple(base64.b64decode(one) for one in proof["hashes"]),
        root=base64.b64decode(proof["rootHash"]),
        note=proof["checkpoint"]["envelope"],
        key=public_key(base64.b64decode(log["publicKey"]["rawBytes"])),
        name=log["baseUrl"].removeprefix("https://"),
    )


@pytest.mark.parametrize("name", COMPLETE)
def test_an_entry_that_rekor_logged_is_proven_in_a_log_head_that_rekor_signed(
    shared_data: SharedData, name: str
) -> None:
    """Rekor 1 signs with ECDSA P-256 under a name that isn't its origin; Rekor 2 with Ed25519, cosigned."""
    logged(shared_data, name).verify()


def signed_here(bundle: dict[str, Any], entry: Logged) -> bool:
    """Whether the log entry is of the bundle's own signature."""
    content: object = json.loads(entry.body)["spec"]["signature"]["content"]
    return content == bundle["messageSignature"]["signature"]


def test_the_bundle_of_cve_2022_36056_shows_a_genuine_entry_that_is_not_its_own(
    shared_data: SharedData,
) -> None:
    """The fault isn't in the proof, and only who compares entry and bundle sees it."""
    assert not signed_here(load(shared_data, CVE_2022_36056), logged(shared_data, CVE_2022_36056))
    for name in REKOR:
        assert signed_here(load(shared_data, name), logged(shared_data, name))


def test_a_bundles_signature_over_its_artifact_holds_and_over_another_does_not(
    shared_data: SharedData,
) -> None:
    bundle = load(shared_data, "bundle_v3.txt.sigstore")
    artifact = (shared_data(FOLDER) / "bundle_v3.txt").read_bytes()
    key = certified_key(bundle)
    signature = base64.b64decode(bundle["messageSignature"]["signature"])
    key.verify(signature, artifact)
    with pytest.raises(SignatureInvalid):
        key.verify(signature, artifact + b" ")


@pytest.mark.parametrize(
    ("name", "missing"),
    [("bundle_no_log_entry.txt.sigstore", ValueError), ("bundle_no_checkpoint.txt.sigstore", KeyError)],
)
def test_a_bundle_without_entry_or_log_head_proves_nothing(
    shared_data: SharedData, name: str, missing: type[Exception]
) -> None:
    with pytest.raises(missing):
        logged(shared_data, name)


@pytest.mark.parametrize("name", [*REKOR, REKOR_V2])
def test_a_changed_entry_index_proof_root_or_size_is_refused(shared_data: SharedData, name: str) -> None:
    found = logged(shared_data, name)
    wrong = [
        replace(found, body=found.body + b" "),
        replace(found, index=found.index - 1),
        replace(found, hashes=found.hashes[1:]),
        replace(found, hashes=(*found.hashes, bytes(32))),
        replace(found, hashes=(bytes(32), *found.hashes[1:])),
    ]
    for one in wrong:
        with pytest.raises(EvidenceError) as refused:
            one.verify()
        assert refused.value.code == "evidence.proof_invalid"


@pytest.mark.parametrize("name", [*REKOR, REKOR_V2])
def test_a_log_head_that_was_changed_or_signed_by_another_log_is_refused(
    shared_data: SharedData, name: str
) -> None:
    found = logged(shared_data, name)
    other = logged(shared_data, REKOR[0] if name == REKOR_V2 else REKOR_V2)
    lines = found.note.split("\n")
    smaller = "\n".join([lines[0], str(found.size - 1), *lines[2:]])
    emptied = "\n".join([*lines[:2], b64encode(bytes(32)), *lines[3:]])
    for one in (replace(found, key=other.key), replace(found, note=smaller), replace(found, note=emptied)):
        with pytest.raises(CloisterError):
            one.verify()


def test_the_envelope_of_a_bundle_is_signed_by_the_key_in_its_certificate(shared_data: SharedData) -> None:
    """ECDSA P-256 over the pre-authentication encoding; a bundle's envelope leaves the key's id out."""
    bundle = load(shared_data, REKOR_V2)
    key = certified_key(bundle)
    raw = bundle["dsseEnvelope"]

    def envelope(payload: str = raw["payload"], kind: str = raw["payloadType"]) -> Envelope:
        (signature,) = raw["signatures"]
        signatures = [{"keyid": key.key_id, "sig": signature["sig"]}]
        return envelope_from_json({"payload": payload, "payloadType": kind, "signatures": signatures})

    payload = verify_envelope(envelope(), key)
    assert json.loads(payload)["_type"] == "https://in-toto.io/Statement/v1"
    changed = b64encode(payload.replace(b"a.txt", b"b.txt"))
    for wrong in (envelope(payload=changed), envelope(kind="text/plain")):
        with pytest.raises(CloisterError):
            verify_envelope(wrong, key)


def test_the_entry_of_the_envelope_is_the_one_that_was_logged(shared_data: SharedData) -> None:
    """Rekor 2 logs the hash of the pre-authentication encoding, and the same signature."""
    raw = load(shared_data, REKOR_V2)["dsseEnvelope"]
    spec = json.loads(logged(shared_data, REKOR_V2).body)["spec"]["hashedRekordV002"]
    message = pae(raw["payloadType"], base64.b64decode(raw["payload"]))
    assert base64.b64decode(spec["data"]["digest"]) == sha256(message).digest()
    assert spec["signature"]["content"] == raw["signatures"][0]["sig"]
