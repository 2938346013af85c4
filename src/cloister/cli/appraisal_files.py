"""Files that say what a machine has to be and whose word on it counts: policies and roots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.core.files import read_bounded

if TYPE_CHECKING:
    from cloister.enclave.attestation import AppraisalPolicy, Platforms, TrustStore

_MAX_POLICY: Final = 1024 * 1024
_MAX_ROOT: Final = 64 * 1024


def policy_in(path: Path) -> AppraisalPolicy:
    """The appraisal policy in a file.

    Raises:
        InputError: it is missing, or none.
    """
    from cloister.core.canonical import parse
    from cloister.enclave.attestation import AppraisalPolicy

    return AppraisalPolicy.from_json(parse(read_bounded(path, _MAX_POLICY), max_bytes=_MAX_POLICY))


def policy_of(
    measurements: Sequence[str], platforms: Platforms, *, without_revocation: bool
) -> AppraisalPolicy:
    """The policy that options say which name code alone.

    Args:
        measurements: 96 hex digits for SEV-SNP, 64 for SGX.
        platforms: whether simulated ones will do.
        without_revocation: whether those kinds of hardware need no revocation list.

    Raises:
        InputError: a measurement is none, or what is named allows no machine.
    """
    from cloister.core.parsing import parse_model
    from cloister.enclave.attestation import AppraisalPolicy, Tee

    tees = sorted({(Tee.INTEL_SGX if len(one) == 64 else Tee.AMD_SEV_SNP).value for one in measurements})
    return parse_model(
        AppraisalPolicy,
        {
            "measurements": [*measurements],
            "platforms": platforms.value,
            "without_revocation": [*tees] if without_revocation else [],
        },
        "measurements",
    ).for_some_machine()


def trust_in(simulated_roots: Iterable[Path]) -> TrustStore:
    """The hardware vendors' roots; or, where such are named, simulated ones alone.

    Raises:
        InputError: a file is missing, or holds no certificate.
        AttestationError: ``attestation.trust_store`` for a root that doesn't say it is simulated.
    """
    from cloister.cli.enclave_files import certificates_in
    from cloister.enclave.attestation import TrustStore

    roots = [root for path in simulated_roots for root in certificates_in(read_bounded(path, _MAX_ROOT))]
    return TrustStore.simulated(*roots) if roots else TrustStore.production()
