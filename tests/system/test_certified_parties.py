"""A job whose hub and sites keep their keys in a token, and are believed by certificate and not by pin."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloister.core.keys import ECDSA_P256, ED25519, EphemeralKeyStore
from cloister.core.settings import Settings
from cloister.evidence import Role, Trust
from cloister.evidence.pki.book import AuthorityBook, create_authority, create_root
from cloister.evidence.pki.issuing import Reason
from cloister.evidence.verifier import Verdict, Verifier, model_artifact
from cloister.workflow.checks import full_registry
from cloister.workflow.credentials import install_certificate
from cloister.workflow.run import run_job
from cloister.workflow.workspace import open_workspace
from tests.core.hsm import software_token
from tests.system.example_job import SITES, ExampleJob, ignore

HOUR = timedelta(hours=1)
PARTIES = (("hub", "hub"), *(("site", name) for name in SITES))


@dataclass(frozen=True)
class CertifiedJob:
    """What the job left, and the authorities behind it."""

    folder: Path
    root: AuthorityBook
    issuing: AuthorityBook
    begun: datetime

    def verdict(self, trust: Path) -> Verdict:
        receipt, model = (self.folder / name for name in ("receipt.json", "model.safetensors"))
        verifier = Verifier(Trust.load(trust), full_registry())
        return verifier.verify(receipt.read_bytes(), model_artifact(model.read_bytes()))

    def trust(self, place: Path, roles: tuple[str, ...] = ("hub", "site"), *lists: bytes) -> Path:
        """The job's trust directory with authorities in place of the pins of these roles."""
        shutil.copytree(self.folder / "trust", place)
        for role in ("hub", "site"):
            shutil.rmtree(place / role)
        for role in roles:
            (place / "authority" / role).mkdir(parents=True)
            (place / "authority" / role / "example.pem").write_text(self.root.certificate.pem)
        for number, made in enumerate(lists):
            (place / "revoked").mkdir(exist_ok=True)
            (place / "revoked" / f"{number}.crl").write_bytes(made)
        return place


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> CertifiedJob:
    place = tmp_path_factory.mktemp("certified")
    token, store = software_token(), EphemeralKeyStore()
    pin = place / "pin"
    pin.write_bytes(token.pin)
    pin.chmod(0o600)
    settings = Settings.model_construct(
        pkcs11_library=token.library, pkcs11_token=token.label, pkcs11_pin_file=pin
    )
    begun = datetime.now(UTC) - HOUR
    root = create_root(place / "root", store, "Example root", algorithm=ED25519, at=begun)
    issuing = create_authority(
        place / "ca", store, root, "Example issuing", [Role.HUB, Role.SITE], algorithm=ED25519, at=begun
    )
    with open_workspace(place / "work", settings=settings) as workspace:
        for role, name in PARTIES:
            party = workspace.party(role, name)
            assert party.signer.public_key.algorithm == ECDSA_P256
            chain = issuing.issue(party.signer.public_key, Role(role), name, at=begun)
            install_certificate(party, chain.encode())
        outcome = run_job(ExampleJob().spec(place), workspace, watch=ignore)
    assert outcome.verdict.accepted, outcome.verdict.failures
    return CertifiedJob(outcome.folder, root, issuing, begun)


def failing(verdict: Verdict) -> dict[str, str]:
    return {one.id: one.detail for one in verdict.failures}


def test_the_receipt_is_accepted_with_authorities_in_place_of_pins(job: CertifiedJob, tmp_path: Path) -> None:
    lists = (job.root.crl(at=job.begun), job.issuing.crl(at=job.begun))
    assert failing(job.verdict(job.trust(tmp_path / "plain"))) == {}
    assert failing(job.verdict(job.trust(tmp_path / "lists", ("hub", "site"), *lists))) == {}


def test_an_authority_for_sites_alone_vouches_for_no_hub(job: CertifiedJob, tmp_path: Path) -> None:
    assert "receipt-signature" in failing(job.verdict(job.trust(tmp_path / "trust", ("site",))))


def test_a_stolen_key_of_one_site_refuses_the_receipt(job: CertifiedJob, tmp_path: Path) -> None:
    (stolen,) = [one for one in job.issuing.issued() if one.bound_to == (Role.SITE, SITES[0])]
    job.issuing.revoke(stolen.x509.serial_number, Reason.KEY_COMPROMISE, at=datetime.now(UTC))
    lists = (job.root.crl(at=job.begun), job.issuing.crl(at=job.begun))
    found = failing(job.verdict(job.trust(tmp_path / "trust", ("hub", "site"), *lists)))
    assert "statement-signature" in found
    assert "revoked" in found["statement-signature"]
