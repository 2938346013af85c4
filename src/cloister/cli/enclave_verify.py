"""``cloister enclave verify``: what a machine's evidence is, every check of it, and whether it will do."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cloister.cli.appraisal_files import policy_in, trust_in
from cloister.cli.options import Debug, Json, PolicyFile, SimulatedRoots, VendorDocuments
from cloister.core.errors import InputError

if TYPE_CHECKING:
    from cloister.enclave.attestation import AppraisalPolicy, TrustStore, Verdict

EXIT_UNATTESTED: Final = 4
EAR_LIFETIME: Final = timedelta(minutes=5)
EAR_KEY: Final = "verifier"
_HEX: Final = re.compile(r"([0-9a-fA-F]{2}){1,64}")


class Kind(str, Enum):  # noqa: UP042 - a choice of the command line
    """Kinds of hardware."""

    AMD_SEV_SNP = "amd-sev-snp"
    INTEL_TDX = "intel-tdx"
    INTEL_SGX = "intel-sgx"
    AWS_NITRO = "aws-nitro"
    NVIDIA_GPU = "nvidia-gpu"


def attach(group: typer.Typer) -> None:
    """Attach the command to its group."""
    group.command(
        "verify",
        help="Verify what a machine shows, and print every check. Nothing is fetched from anywhere. "
        "Without --policy and --report-data only its authenticity is asked, and the rest is said to be so. "
        "Exit code 0: everything that was asked passed; 4: something didn't.",
        epilog="Examples:  cloister enclave verify report.bin vcek.der --chain ask_ark.pem   ·   "
        "cloister enclave verify quote.bin --collateral collateral/ --at 2026-03-01T00:00:00Z   ·   "
        "cloister enclave verify evidence.json --policy policy.json --report-data 00ff...",
    )(_verify)


def _verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="A report, quote or document and its certificates; a folder of them; or evidence as JSON.",
        ),
    ],
    chain: Annotated[
        list[Path] | None,
        typer.Option("--chain", help="Certificates of issuers, in any order; may be given again."),
    ] = None,
    collateral: VendorDocuments = None,
    tee: Annotated[
        Kind | None, typer.Option("--tee", help="What it has to be; by default what its content says.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="When it has to hold: 2026-11-21T14:00:00Z; by default now.")
    ] = None,
    policy: PolicyFile = None,
    report_data: Annotated[
        str | None, typer.Option("--report-data", metavar="HEX", help="What it was asked to seal in.")
    ] = None,
    nonce: Annotated[
        str | None, typer.Option("--nonce", metavar="HEX", help="The same, where a nonce alone was asked.")
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="Folder of pinned keys; by default the hardware vendors' own roots."),
    ] = None,
    simulated_root: SimulatedRoots = None,
    ear: Annotated[
        Path | None,
        typer.Option(
            "--ear",
            help="Write the verdict as a token (EAR) that holds for five minutes; the public key beside it.",
        ),
    ] = None,
    ear_key: Annotated[
        Path | None,
        typer.Option("--ear-key", help="Folder of the key that signs it; made there on first use."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.enclave_files import collateral_in, evidence_in, gather
    from cloister.cli.enclave_shown import show
    from cloister.cli.verify import moment_typed
    from cloister.core.clock import system_clock
    from cloister.enclave.attestation import Tee
    from cloister.enclave.attestation.authenticator import Ground
    from cloister.enclave.attestation.examination import examine, examine_against

    asked, wanted = _asked(report_data, nonce), None if policy is None else policy_in(policy)
    signing = _signing(ear, ear_key, wanted, asked)
    evidence = evidence_in(gather([*files, *(chain or ())]), None if tee is None else Tee(tee.value))
    now = system_clock() if at is None else moment_typed(at)
    ground = Ground(_trust(trust, simulated_root or []), now, collateral_in(collateral or ()))
    if wanted is None:
        found = examine(evidence, ground, asked)
    else:
        found, verdict = examine_against(evidence, ground, wanted, asked)
        if signing is not None:
            signing(verdict)
    show(found, now, as_json=as_json)
    return 0 if found.passed else EXIT_UNATTESTED


def _asked(report_data: str | None, nonce: str | None) -> bytes | None:
    if report_data is not None and nonce is not None:
        raise InputError("input.schema", "--report-data and --nonce say the same.", "Give one of them.")
    text = report_data if report_data is not None else nonce
    if text is None:
        return None
    if not _HEX.fullmatch(text):
        raise InputError(
            "input.syntax", "What was sealed in is not in hex.", "Write up to 64 bytes as digits and a to f."
        )
    return bytes.fromhex(text)


def _trust(folder: Path | None, simulated_roots: list[Path]) -> TrustStore:
    from cloister.enclave.attestation import TrustStore

    if folder is None:
        return trust_in(simulated_roots)
    if simulated_roots:
        raise InputError(
            "input.schema", "--trust and --simulated-root name two sets of roots.", "Give one of them."
        )
    from cloister.evidence import Trust

    return TrustStore.from_certificates(Trust.load(folder).tee_roots.values())


def _signing(
    path: Path | None, folder: Path | None, policy: AppraisalPolicy | None, asked: bytes | None
) -> Callable[[Verdict], None] | None:
    """What writes a verdict as a token, if that is wanted and everything for it is there."""
    if path is None and folder is None:
        return None
    if path is None or folder is None or policy is None or asked is None:
        raise InputError(
            "input.schema",
            "A token is of a verdict on a fresh answer.",
            "Give --ear, --ear-key, --policy, and --report-data or --nonce.",
        )
    policy_id = policy.sha256

    def write(verdict: Verdict) -> None:
        from cloister import __version__
        from cloister.core.files import write_atomic
        from cloister.core.keys import ECDSA_P256, FileKeyStore
        from cloister.enclave.attestation.ear import issue

        store = FileKeyStore(folder)
        known = EAR_KEY in store.names()
        signer = store.load(EAR_KEY) if known else store.generate(EAR_KEY, ECDSA_P256)
        token = issue(
            verdict, signer, asked=asked, policy_id=policy_id, build=__version__, lifetime=EAR_LIFETIME
        )
        write_atomic(path, token.encode("ascii"), mode=0o644)
        write_atomic(path.with_name(f"{path.name}.pem"), signer.public_key.pem.encode(), mode=0o644)

    return write
