"""Every reader of bytes that strangers send, by name: none may raise anything but a CloisterError."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from cloister.core.canonical import b64encode, canonicalize, parse
from cloister.core.keys import EphemeralKeyStore, PublicKey
from cloister.evidence.checkpoint import parse_checkpoint
from cloister.evidence.context import model_artifact
from cloister.evidence.custody.verify import verify_bundle
from cloister.evidence.envelope import decode_envelope
from cloister.evidence.extract import decode_proof, extract_from_json
from cloister.evidence.log.tiles_reader import verify_tiles
from cloister.evidence.pki.certificates import load_certificate
from cloister.evidence.pki.chains import read_chain
from cloister.evidence.pki.issuing import issue_authority, issue_crl, issue_root, issue_signer
from cloister.evidence.pki.revocation import load_crl
from cloister.evidence.predicates import Role
from cloister.evidence.segments.checkpoint import parse_held
from cloister.evidence.segments.verify import verify_segment
from cloister.evidence.statement import decode_statement
from cloister.evidence.timestamp import decode_response
from cloister.evidence.trust import Trust, TrustEntry
from cloister.evidence.verifier import Verifier
from cloister.evidence.witness.continuation import parse_continuation
from tests.evidence.synthetic import HUB, MODEL, START, SyntheticJob, plugged

KEY: Final = EphemeralKeyStore().generate("somebody").public_key


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def read_tiles(data: bytes) -> object:
    """The bytes as a folder's checkpoint, first tile and first bundle of entries."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("checkpoint", "tile/0/000", "tile/0/000.p/1", "tile/entries/000.p/1"):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(data)
        return verify_tiles(folder, [KEY])


PARSERS: Final[dict[str, Callable[[bytes], object]]] = {
    "receipt": lambda data: Verifier(Trust([]), plugged()).verify(data, model_artifact(MODEL)),
    "envelope": decode_envelope,
    "statement": decode_statement,
    "extract": lambda data: extract_from_json(parse(data)),
    "checkpoint": lambda data: parse_checkpoint(text(data)),
    "proof": lambda data: decode_proof(text(data).split("\n")),
    "continuation": lambda data: parse_continuation(text(data)),
    "trust": lambda data: Trust([TrustEntry(Role.SITE, "north", data)]),
    "public key": lambda data: PublicKey.from_pem(text(data)),
    "certificate": load_certificate,
    "chain": read_chain,
    "revocation list": load_crl,
    "timestamp": decode_response,
    "segment": lambda data: verify_segment(data, keys=[KEY], held=None),
    "segment checkpoints": parse_held,
    "tiles": read_tiles,
    "export bundle": lambda data: verify_bundle(data, Trust([])),
    "model": model_artifact,
}


def genuine(job: SyntheticJob) -> dict[str, bytes]:
    """A genuine sample of what a parser reads, where it takes no more than a line to make one."""
    extract = job.extracts[HUB]
    entry = extract.entries[3]
    store = EphemeralKeyStore()
    root_key, ca_key, key = store.generate("root"), store.generate("ca"), store.generate("site")
    root = issue_root(root_key, "Example root", at=START)
    ca = issue_authority(root_key, root, ca_key.public_key, "Example issuing", [Role.SITE], at=START)
    site = issue_signer(ca_key, ca, key.public_key, Role.SITE, "north", at=START)
    crl = issue_crl(ca_key, ca, [], number=1, at=START, next_update=START + timedelta(days=7))
    pem = key.public_key.pem.encode()
    note = extract.checkpoint.encode().encode()
    return {
        "receipt": job.receipt(credentials={"site/north": [site.pem + ca.pem]}),
        "envelope": entry.envelope.encode(),
        "statement": entry.envelope.payload,
        "extract": canonicalize(extract.as_json()),
        "checkpoint": note,
        "proof": "\n".join(b64encode(one) for one in entry.proof).encode(),
        "continuation": note,
        "trust": pem,
        "public key": pem,
        "certificate": site.der,
        "chain": (site.pem + ca.pem).encode(),
        "revocation list": crl,
        "tiles": note,
        "model": MODEL,
    }
