"""The launcher's configuration, ``enclave.toml``: what the operator asks of the machine.

Rules kept here:

* A configuration only ever narrows what starts. Nothing in it takes another root than the vendors', allows
  debugging, or starts a simulation or an insecure run.
* Files are named relative to the configuration's folder, or by absolute paths.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from cloister.core.errors import InputError
from cloister.core.files import read_bounded
from cloister.core.parsing import parse_model
from cloister.enclave.attestation.collateral import Collateral, CollateralDocument, CollateralKind
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Tee
from cloister.enclave.attestation.policy import AppraisalPolicy, Platforms
from cloister.enclave.launch import LaunchTerms

LAUNCH_FILE = "enclave.toml"
_MAX_FILE = 1024 * 1024
_MAX_DOCUMENT = 16 * MAX_EVIDENCE_BYTES
_PLACE = re.compile(r"\(at line [0-9]+, column [0-9]+\)")


class CollateralFile(BaseModel):
    """One of a vendor's documents, by its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: CollateralKind
    file: str


class LaunchFile(BaseModel):
    """The whole of ``enclave.toml``; every field may be left out.

    Attributes:
        policy: what the machine has to be; without it, any code on genuine hardware that isn't in debug mode.
        certificates: files of the chain for an SNP guest whose host gives none: VCEK or VLEK, ASK, ARK; each
            PEM or DER.
        collateral: vendors' documents.
        without_revocation: kinds of hardware that need no revocation list, where there is no policy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: AppraisalPolicy | None = None
    certificates: Annotated[tuple[str, ...], Field(max_length=3)] = ()
    collateral: Annotated[tuple[CollateralFile, ...], Field(max_length=100)] = ()
    without_revocation: tuple[Tee, ...] = ()


@dataclass(frozen=True)
class LaunchConfiguration:
    """A read configuration.

    Attributes:
        terms: what is asked of the machine.
        certificates: the operator's own chain, DER, the endorsed key's first.
    """

    terms: LaunchTerms = field(default_factory=LaunchTerms)
    certificates: tuple[bytes, ...] = ()


def load_launch_file(path: Path) -> LaunchConfiguration:
    """Read a configuration and every file it names.

    Args:
        path: the file.

    Raises:
        InputError: a file is missing or too large, isn't TOML, has wrong fields, or its policy takes
            simulated platforms, or no machine.
    """
    file = parse_model(LaunchFile, _read(path), f"the file {path.name}")
    if file.policy is not None and file.policy.platforms is not Platforms.HARDWARE_ONLY:
        raise InputError(
            "input.schema",
            f"{path.name} is not valid: its policy takes simulated platforms, and a launcher never does.",
            "Leave policy.platforms out.",
        )
    if file.policy is not None:
        if file.without_revocation:
            raise InputError(
                "input.schema",
                f"{path.name} is not valid: without_revocation stands beside a policy, which has its own.",
                "Put it under [policy].",
            )
        file.policy.for_some_machine()
    documents = [
        CollateralDocument(one.kind, read_bounded(path.parent / one.file, _MAX_DOCUMENT))
        for one in file.collateral
    ]
    return LaunchConfiguration(
        LaunchTerms(file.policy, Collateral.joined(documents), file.without_revocation),
        tuple(_certificate(path.parent / one) for one in file.certificates),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_bounded(path, _MAX_FILE).decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        shown = f" {place.group()}" if place else ""
        raise InputError("input.syntax", f"{path.name} is not well-formed TOML{shown}.") from None
    except UnicodeDecodeError:
        raise InputError("input.syntax", f"{path.name} is not UTF-8.") from None


def _certificate(path: Path) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    data = read_bounded(path, _MAX_FILE)
    if not data.lstrip().startswith(b"-----BEGIN"):
        return data
    try:
        return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
    except ValueError:
        raise InputError("input.syntax", f"{path.name} is no certificate.") from None
