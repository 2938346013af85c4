"""Evidence and vendors' documents as they lie in files: what each file is, by its content, put together.

Rules kept here:

* A file is known by its first bytes or its length, never by its name. What nothing knows is refused, except
  the files of a folder that has more in it than evidence.
* Nothing is believed: certificates are put in order by whom they name, and verified by the verifier.
* Every file is at most 1 MiB, and there are at most a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.core.errors import InputError
from cloister.core.files import read_bounded
from cloister.enclave.attestation import (
    Collateral,
    CollateralDocument,
    CollateralKind,
    Evidence,
    Tee,
)
from cloister.enclave.attestation.amd import azure
from cloister.enclave.attestation.amd.report import REPORT_BYTES, VERSIONS
from cloister.enclave.attestation.aws.document import SignedDocument
from cloister.enclave.attestation.der import (
    INTEGER,
    SEQUENCE,
    Certificate,
    NotDer,
    Reader,
    read_certificate,
)
from cloister.enclave.attestation.revocation_list import kind_of_list

MAX_FILES: Final = 100
_MAX_BYTES: Final = 1024 * 1024
_ROOTS: Final = "roots"
_EVENT_LOG: Final = "ccel"
_RSA_BYTES: Final = 256
_ENUMERATED: Final = 0x0A
_BRINGS_CHAIN: Final = frozenset({Tee.AMD_SEV_SNP, Tee.NVIDIA_GPU})
"""Whose certificates lie beside the report; a quote of Intel and a document of Nitro carry their own."""


class Part(Enum):
    """What one file of evidence is."""

    ENCODED = "evidence as JSON"
    SNP_REPORT = "an SNP report"
    AZURE_BLOB = "a paravisor's blob of Azure"
    TPM_QUOTE = "a TPM's quote"
    TPM_SIGNATURE = "a TPM's signature"
    TDX_QUOTE = "a TDX quote"
    SGX_QUOTE = "an SGX quote"
    NITRO_DOCUMENT = "a Nitro attestation document"
    GPU_REPORT = "a GPU's measurements"
    EVENT_LOG = "an event log"
    CERTIFICATES = "certificates"


REPORTS: Final[Mapping[Part, Tee]] = {
    Part.SNP_REPORT: Tee.AMD_SEV_SNP,
    Part.AZURE_BLOB: Tee.AMD_SEV_SNP,
    Part.TDX_QUOTE: Tee.INTEL_TDX,
    Part.SGX_QUOTE: Tee.INTEL_SGX,
    Part.NITRO_DOCUMENT: Tee.AWS_NITRO,
    Part.GPU_REPORT: Tee.NVIDIA_GPU,
}


def part_of(data: bytes) -> Part | None:
    """What a file is, by its content alone; None where nothing knows it."""
    return next((part for part, fits in _RULES if fits(data)), None)


def _is_quote(data: bytes, tee: int) -> bool:
    version, key_type = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
    return (
        len(data) > 400
        and version in (3, 4, 5)
        and key_type in (2, 3)
        and int.from_bytes(data[4:8], "little") == tee
    )


def _is_report(data: bytes) -> bool:
    return len(data) == REPORT_BYTES and int.from_bytes(data[:4], "little") in VERSIONS


def _is_der_certificate(data: bytes) -> bool:
    try:
        read_certificate(data)
    except NotDer:
        return False
    return True


_RULES: Final[tuple[tuple[Part, Callable[[bytes], bool]], ...]] = (
    (Part.ENCODED, lambda data: data.startswith(b'{"chain":')),
    (Part.CERTIFICATES, lambda data: data.lstrip().startswith(b"-----BEGIN CERTIFICATE-----")),
    (Part.CERTIFICATES, _is_der_certificate),
    (Part.SNP_REPORT, _is_report),
    (Part.AZURE_BLOB, lambda data: data.startswith(b"HCLA")),
    (Part.TPM_QUOTE, lambda data: data.startswith(bytes.fromhex("ff544347"))),
    (Part.TDX_QUOTE, lambda data: _is_quote(data, 0x81)),
    (Part.SGX_QUOTE, lambda data: _is_quote(data, 0)),
    (Part.NITRO_DOCUMENT, lambda data: data[:1] in (b"\x84", b"\xd2") and len(data) > 1000),
    (Part.GPU_REPORT, lambda data: data.startswith(b"\x11\xe0")),
    (Part.EVENT_LOG, lambda data: b"Spec ID Event03" in data[:100]),
    (Part.TPM_SIGNATURE, lambda data: len(data) == _RSA_BYTES),
)


@dataclass
class Gathered:
    """The parts that some files hold."""

    parts: dict[Part, bytes] = field(default_factory=dict)
    certificates: list[bytes] = field(default_factory=list)

    def take(self, path: Path, *, among_others: bool) -> None:
        """Take one file.

        Args:
            path: the file.
            among_others: whether it lies in a folder where other things may lie too.

        Raises:
            InputError: it can't be read, nothing knows it, or there is one of its kind already.
        """
        data = read_bounded(path, _MAX_BYTES)
        part = part_of(data)
        if part is Part.CERTIFICATES:
            self.certificates.extend(certificates_in(data))
        elif part is not None and part not in self.parts:
            self.parts[part] = data
        elif part is not None:
            raise InputError(
                "input.schema", f"More than one file is {part.value}.", "Name the files of one machine."
            )
        elif not among_others:
            raise InputError(
                "input.syntax",
                f"{path.name} is no evidence that is known here.",
                "Give it as the device gave it, or say with --tee what it is.",
            )


def gather(paths: Sequence[Path]) -> Gathered:
    """Read files, and folders with one machine's evidence in them.

    Args:
        paths: files; or folders, of which certificates in a folder ``roots`` in or beside them are taken too.

    Raises:
        InputError: one of them can't be read, or nothing knows it.
    """
    found = Gathered()
    for path in paths:
        if path.is_dir():
            for inside in _files(path):
                found.take(inside, among_others=True)
            places = (path / _ROOTS, path.absolute().parent / _ROOTS)
            beside = [folder for folder in places if folder.is_dir()]
            for root in (inside for folder in beside for inside in _files(folder)):
                data = read_bounded(root, _MAX_BYTES)
                if part_of(data) is Part.CERTIFICATES:
                    found.certificates.extend(certificates_in(data))
        else:
            found.take(path, among_others=False)
    return found


def evidence_in(found: Gathered, tee: Tee | None) -> Evidence:
    """Put one machine's evidence together.

    Args:
        found: the parts.
        tee: which kind of hardware it has to be, if that was said.

    Raises:
        InputError: there is no report among them, or several, or one of another kind.
        AttestationError: attestation.malformed for JSON or a blob that isn't of its exact form.
    """
    if Part.ENCODED in found.parts:
        evidence = Evidence.decode(found.parts[Part.ENCODED].rstrip(b"\n"))
    else:
        reports = [part for part in REPORTS if part in found.parts]
        if len(reports) != 1:
            raise InputError(
                "input.schema",
                "No file is a report, quote or document of a machine."
                if not reports
                else f"Several files are reports: {', '.join(part.value for part in reports)}.",
                "Name one machine's evidence and the certificates that go with it.",
            )
        evidence = _built(reports[0], found)
    if tee is not None and evidence.tee is not tee:
        raise InputError(
            "input.schema",
            f"The evidence is of {evidence.tee.value}, not of {tee.value}.",
            "Leave --tee out.",
        )
    return evidence


def _built(part: Part, found: Gathered) -> Evidence:
    report, tee = found.parts[part], REPORTS[part]
    extras: dict[str, bytes] = {}
    if part is Part.AZURE_BLOB:
        blob, report = azure.split_blob(report)
        extras = {azure.HCL: blob}
        for name, beside in ((azure.QUOTE, Part.TPM_QUOTE), (azure.SIGNATURE, Part.TPM_SIGNATURE)):
            if beside in found.parts:
                extras[name] = found.parts[beside]
    if tee is Tee.INTEL_TDX and Part.EVENT_LOG in found.parts:
        extras[_EVENT_LOG] = found.parts[Part.EVENT_LOG]
    chain = chain_from_leaf(found.certificates) if tee in _BRINGS_CHAIN else ()
    return Evidence(tee, report, chain, extras)


def chain_from_leaf(certificates: Iterable[bytes]) -> tuple[bytes, ...]:
    """Certificates from the endorsed key's up to a root, each followed by who it says issued it.

    Args:
        certificates: DER, in any order; those that don't belong to the chain are left out.

    Raises:
        InputError: no certificate is an endorsed key's, or several are.
    """
    read = {der: read_certificate(der) for der in dict.fromkeys(certificates) if _is_der_certificate(der)}
    leaves = [der for der, one in read.items() if not one.authority]
    if len(leaves) != 1:
        raise InputError(
            "input.schema",
            "No certificate is the endorsed key's." if not leaves else "Several endorsed keys are named.",
            "Name one VCEK or VLEK certificate, and those of its issuers with --chain.",
        )
    return tuple(_climb(leaves[0], read))


def _climb(leaf: bytes, read: Mapping[bytes, Certificate]) -> Iterator[bytes]:
    der: bytes | None = leaf
    seen: set[bytes] = set()
    while der is not None and der not in seen:
        yield der
        seen.add(der)
        issuer = read[der].issuer
        der = next((one for one in read if read[one].subject == issuer and read[one].authority), None)


def certificates_in(data: bytes) -> list[bytes]:
    """The certificates of a file, DER or PEM, as DER in their order.

    Raises:
        InputError: the PEM can't be read.
    """
    if b"-----BEGIN" not in data:
        return [data]
    try:
        return [one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(data)]
    except ValueError:
        raise InputError("input.syntax", "A file of certificates can't be read.") from None


def issuers_in(paths: Sequence[Path]) -> tuple[bytes, ...]:
    """The certificates that files hold, or that the evidence in them carries, as DER.

    Args:
        paths: certificates, Nitro documents, or evidence as JSON.

    Raises:
        InputError: one of them can't be read, or holds no certificate.
        AttestationError: attestation.malformed for a document or JSON that isn't of its exact form.
    """
    found: list[bytes] = []
    for path in paths:
        data = read_bounded(path, _MAX_BYTES)
        part = part_of(data)
        if part is Part.CERTIFICATES:
            found.extend(certificates_in(data))
        elif part is Part.NITRO_DOCUMENT:
            found.extend(SignedDocument.parse(data).document.chain)
        elif part is Part.ENCODED:
            found.extend(_chains_of(Evidence.decode(data.rstrip(b"\n"))))
        else:
            raise InputError(
                "input.syntax",
                f"{path.name} holds no issuers' certificates.",
                "Name a chain of certificates, a Nitro document, or evidence as JSON.",
            )
    return tuple(found)


def _chains_of(evidence: Evidence) -> Iterator[bytes]:
    if evidence.tee is Tee.AWS_NITRO:
        yield from SignedDocument.parse(evidence.report).document.chain
    yield from evidence.chain
    for device in evidence.devices:
        yield from _chains_of(device)


def collateral_in(paths: Sequence[Path]) -> Collateral:
    """The vendors' documents that files and folders hold.

    Args:
        paths: files; or folders, in which whatever is no such document is left out.

    Raises:
        InputError: one of them can't be read, or a file that was named is no such document.
    """
    documents = []
    for path in paths:
        among_others = path.is_dir()
        for one in _files(path) if among_others else [path]:
            data = _from_pem(read_bounded(one, _MAX_BYTES))
            kind = collateral_kind(data)
            if kind is not None:
                documents.append(CollateralDocument(kind, data))
            elif not among_others:
                raise InputError(
                    "input.syntax",
                    f"{one.name} is no revocation list or other document of a vendor.",
                    "Give it as the vendor published it.",
                )
    return Collateral.joined(documents)


def collateral_kind(data: bytes) -> CollateralKind | None:
    """Which vendor's document it is, by its content; None where nothing knows it."""
    start = data[:64].lstrip()
    if start.startswith(b"{"):
        return CollateralKind.INTEL_DCAP if b'"tcb_info"' in data else None
    if start.startswith(b"<"):
        return CollateralKind.NVIDIA_RIM if b"SoftwareIdentity" in data else None
    try:
        content = Reader(data).inside(SEQUENCE)
        if content.next_is(_ENUMERATED):
            return CollateralKind.NVIDIA_OCSP
        body = content.inside(SEQUENCE)
    except NotDer:
        return None
    # A certificate's body begins with its version in a tag of its own, a list's with the version itself.
    if not body.next_is(INTEGER):
        return None
    try:
        body.integer()
        body.element(SEQUENCE)
        return kind_of_list(body.element(SEQUENCE)[1])
    except NotDer:
        return CollateralKind.AMD_CRL


def _from_pem(data: bytes) -> bytes:
    if not data.startswith(b"-----BEGIN X509 CRL-----"):
        return data
    try:
        return x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)
    except ValueError:
        raise InputError("input.syntax", "A revocation list can't be read.") from None


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if len(files) > MAX_FILES:
        raise InputError("input.too_large", f"{folder} has more than {MAX_FILES} files in it.")
    return files
