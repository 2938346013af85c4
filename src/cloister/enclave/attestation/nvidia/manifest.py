"""NVIDIA's reference manifests (RIM): the digests that a driver or a firmware of a GPU must measure to.

A manifest's version says which driver ("570.124.03") or firmware ("96.00.5E.00.01") it is for. Index i of a
manifest is block i + 1 of a GPU's measurements; only active ones count, and each may have alternatives.

A manifest states no time of its own, so its signer must be valid at the time of evaluation: one that expired
has to be fetched anew.

Source: TCG Reference Integrity Manifest Information Model 1.01; ISO/IEC 19770-2:2015.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cloister.enclave.attestation.collateral import CollateralDates, CollateralDocument
from cloister.enclave.attestation.nvidia.transcript import DIGEST_BYTES
from cloister.enclave.attestation.nvidia.xmldsig import open_signed
from cloister.enclave.attestation.p384_chain import P384Chain
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError

if TYPE_CHECKING:
    from lxml.etree import _Element

NVDEC0_INDEX: Final = 35
_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_MAX_ALTERNATIVES = 64
_MAX_INDEX = 254
_INDEX = re.compile(r"0|[1-9][0-9]{0,2}")
_DIGEST = re.compile(r"[0-9a-fA-F]{96}")
_VERSION = re.compile(r"[0-9A-Za-z.]{1,40}")


@dataclass(frozen=True)
class Manifest:
    """A manifest whose signature holds up to the root it brought; whether that is trusted is for the caller.

    Attributes:
        document: as NVIDIA published it.
        version: of the driver or firmware it is for.
        product: the chip it is for, such as "GH100".
        active: the acceptable digests by index.
        chain: the signer's certificates, verified.
    """

    document: CollateralDocument = field(repr=False)
    version: str
    product: str
    active: Mapping[int, tuple[bytes, ...]] = field(repr=False)
    chain: P384Chain = field(repr=False)

    @property
    def dates(self) -> CollateralDates:
        """From when and until when its signer is valid."""
        signer = self.chain.leaf
        return CollateralDates(
            self.document.sha256, f"reference manifest {self.version}", signer.not_before, signer.not_after
        )

    def mismatches(self, measurements: tuple[bytes, ...], *, nvdec0_enabled: bool) -> tuple[int, ...]:
        """The active indices at which a GPU measured something else, sorted.

        Args:
            measurements: the digests of the GPU's blocks in their order.
            nvdec0_enabled: whether the first video decoder runs; its index counts only then.
        """
        return tuple(
            index
            for index, digests in sorted(self.active.items())
            if (index != NVDEC0_INDEX or nvdec0_enabled)
            and (index >= len(measurements) or measurements[index] not in digests)
        )


def may_be_for(document: CollateralDocument, version: str) -> bool:
    """Whether a document is worth reading for a version; says nothing of what it really is."""
    return bool(version) and f'colloquialVersion="{version}"'.encode() in document.data


def read_manifest(document: CollateralDocument, facts: VerifiedFacts) -> Manifest:
    """Read a manifest and verify its signature and chain.

    Args:
        document: as NVIDIA published it.
        facts: what was verified before.

    Raises:
        AttestationError: attestation.collateral for anything that isn't signed as it must be;
            attestation.unsupported where lxml isn't installed.
    """
    key = b"manifest" + bytes.fromhex(document.sha256)
    known = facts.recall(key, Manifest)
    if known is not None:
        return known
    taken = open_signed(document.data)
    try:
        chain = P384Chain(taken.certificates, facts)
        chain.verify()
        chain.leaf.verify_signature(taken.signature, taken.signed_info)
    except AttestationError:
        raise AttestationError(
            "attestation.collateral", "A manifest is not signed by the key that its certificates endorse."
        ) from None
    manifest = _content(taken.root, document, chain)
    facts.keep(key, manifest)
    return manifest


def _content(root: _Element, document: CollateralDocument, chain: P384Chain) -> Manifest:
    metas, payloads = root.findall(_SWID + "Meta"), root.findall(_SWID + "Payload")
    if root.tag != _SWID + "SoftwareIdentity" or len(metas) != 1 or len(payloads) != 1:
        raise _unsound()
    version, product = metas[0].get("colloquialVersion") or "", metas[0].get("product") or ""
    if not _VERSION.fullmatch(version) or not _VERSION.fullmatch(product):
        raise _unsound()
    active: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for resource in payloads[0]:
        index = _number(resource.get("index"))
        if resource.tag != _SWID + "Resource" or resource.get("type") != "Measurement" or index in seen:
            raise _unsound()
        seen.add(index)
        digests = _digests(resource)
        if resource.get("active") == "True":
            active[index] = digests
        elif resource.get("active") != "False":
            raise _unsound()
    if not active:
        raise _unsound()
    return Manifest(document, version, product, MappingProxyType(active), chain)


def _digests(resource: _Element) -> tuple[bytes, ...]:
    names = [name for name in resource.attrib if str(name).startswith(_HASH)]
    count = _number(resource.get("alternatives"))
    values = [resource.get(f"{_HASH}{number}") or "" for number in range(min(count, _MAX_ALTERNATIVES))]
    sound = (
        0 < count == len(names) == len(values)
        and resource.get("size") == str(DIGEST_BYTES)
        and all(_DIGEST.fullmatch(one) for one in values)
    )
    if not sound:
        raise _unsound()
    return tuple(bytes.fromhex(one) for one in values)


def _number(text: str | None) -> int:
    if text is None or not _INDEX.fullmatch(text) or int(text) > _MAX_INDEX:
        raise _unsound()
    return int(text)


def _unsound() -> AttestationError:
    return AttestationError(
        "attestation.collateral", "A manifest does not say what it must, in its exact form."
    )
