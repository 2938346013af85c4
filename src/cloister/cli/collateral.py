"""``cloister collateral``: documents of hardware vendors, brought in as files and shown with their dates.

Verifying hardware needs documents that the vendors sign anew every few days or weeks. Nothing is fetched:
they are downloaded elsewhere, carried here, and refused where they are out of date or not what was signed.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cloister.cli.options import Debug, Json, Workspace

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.core.errors import CloisterError
    from cloister.enclave.attestation.collateral import CollateralDocument
    from cloister.enclave.attestation.collateral_kinds import CollateralFacts
    from cloister.enclave.attestation.collateral_store import Brought, CollateralStore
    from cloister.enclave.attestation.issuers import Issuers
    from cloister.enclave.attestation.trust import TrustStore

COLLATERAL_FOLDER: Final = "collateral"
_MAX_FILES: Final = 4096
_SOON_DAYS: Final = 7


class Kind(str, Enum):  # noqa: UP042 - a choice of the command line
    """Kinds of documents."""

    AMD_CRL = "amd-crl"
    AWS_CRL = "aws-crl"
    INTEL_DCAP = "intel-dcap"
    NVIDIA_RIM = "nvidia-rim"
    NVIDIA_OCSP = "nvidia-ocsp"


SimulatedRoot = Annotated[
    list[Path] | None,
    typer.Option(
        "--simulated-root", metavar="FILE", help="A simulated vendor's root that counts too; may be repeated."
    ),
]

IssuerFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--issuer",
        metavar="FILE",
        help="Certificates of who signed lists and answers: a vendor's chain file, or a machine's evidence "
        "that carries them; may be repeated. They count only where they lead to a vendor's root.",
    ),
]


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "import",
        help="Take in documents that hold now. Out of date, not verifiably signed, or older than what is "
        "held: refused. Revocation lists and OCSP answers bring no certificates; name their issuers'.",
        epilog="Examples:  cloister collateral import tdx-00806f.json --into collateral/   ·   "
        "cloister collateral import milan.crl --issuer cert_chain.pem   ·   "
        "cloister collateral import root.crl region.crl --issuer document.cbor",
    )(_import)
    group.command(
        "show",
        help="Show what is held, from when it is and until when it holds.",
        epilog="Example:  cloister collateral show collateral/ --json",
    )(_show)


def _import(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Documents, or folders of them.")],
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="Where they are kept; else the workspace.")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What they have to be; by default what their content says.")
    ] = None,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Take in a document even if a newer one is held.")
    ] = False,
    issuer: IssuerFiles = None,
    simulated_root: SimulatedRoot = None,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock
    from cloister.core.errors import CloisterError
    from cloister.core.files import read_bounded
    from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES

    issuers = _issuers([*(issuer or ()), *(simulated_root or ())])
    store, trust, now = _store(into, workspace), _trust(simulated_root), system_clock()
    brought: list[tuple[Path, Brought]] = []
    refused: list[tuple[Path, CloisterError]] = []
    bring = store.bring_older if allow_older else store.bring
    for path in _listed(files):
        try:
            document = _document(read_bounded(path, MAX_EVIDENCE_BYTES), kind)
            brought.append((path, bring(document, trust, now, issuers)))
        except CloisterError as error:
            if error.code.startswith("storage."):
                raise
            refused.append((path, error))
    if as_json:
        print(json.dumps(_told(brought, refused, now), indent=2))
    else:
        _print_import(brought, refused)
    return refused[0][1].exit_code if refused else 0


def _show(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where they are kept; else the workspace.")
    ] = None,
    issuer: IssuerFiles = None,
    simulated_root: SimulatedRoot = None,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock
    from cloister.core.errors import CloisterError
    from cloister.enclave.attestation.collateral_kinds import examine

    trust, now = _trust(simulated_root), system_clock()
    issuers = _issuers([*(issuer or ()), *(simulated_root or ())])
    known: list[CollateralFacts] = []
    unsound: list[tuple[CollateralDocument, CloisterError]] = []
    for document in _store(folder, workspace).load().documents:
        try:
            known.append(examine(document, trust, issuers))
        except CloisterError as error:
            unsound.append((document, error))
    if as_json:
        shown = {
            "documents": [_facts(one, now) for one in known],
            "unsound": [
                {"sha256": document.sha256, "kind": document.kind.value, "code": error.code}
                for document, error in unsound
            ],
        }
        print(json.dumps(shown, indent=2))
        return 0
    _print_table(known, unsound, now)
    return 0


def _store(folder: Path | None, workspace: Path | None) -> CollateralStore:
    from cloister.core.settings import load_settings
    from cloister.enclave.attestation.collateral_store import CollateralStore

    if folder is None:
        folder = load_settings({"workspace": workspace}).workspace / COLLATERAL_FOLDER
    return CollateralStore(folder)


def _trust(simulated_roots: list[Path] | None) -> TrustStore:
    from cloister.core.files import read_bounded
    from cloister.enclave.attestation.trust import VENDOR_ROOTS, TrustStore

    simulated = TrustStore.from_certificates(read_bounded(path, 64 * 1024) for path in simulated_roots or ())
    return TrustStore([*VENDOR_ROOTS.values(), *simulated.roots])


def _issuers(files: list[Path]) -> Issuers:
    from cloister.cli.enclave_files import issuers_in
    from cloister.enclave.attestation.issuers import Issuers

    return Issuers(issuers_in(files))


def _listed(files: list[Path]) -> list[Path]:
    from cloister.core.errors import InputError

    found = [
        path
        for one in files
        for path in (
            sorted(p for p in one.iterdir() if p.is_file() and not p.name.startswith("."))
            if one.is_dir()
            else [one]
        )
    ]
    if not found or len(found) > _MAX_FILES:
        raise InputError("input.missing_file", "There is no document in what was named, or too many are.")
    return found


def _document(data: bytes, kind: Kind | None) -> CollateralDocument:
    from cloister.enclave.attestation.collateral import CollateralDocument, CollateralKind
    from cloister.enclave.attestation.collateral_kinds import recognise

    return recognise(data) if kind is None else CollateralDocument(CollateralKind(kind.value), data)


def _state(facts: CollateralFacts, now: datetime) -> str:
    if facts.valid_from is not None and now < facts.valid_from:
        return "not yet valid"
    if facts.valid_until is None:
        return "no date"
    return "expired" if now > facts.valid_until else "holds"


def _facts(facts: CollateralFacts, now: datetime) -> dict[str, object]:
    from cloister.core.clock import format_time

    return {
        "kind": facts.document.kind.value,
        "sha256": facts.document.sha256,
        "subject": facts.subject,
        "signature": facts.signature.value,
        "simulated": facts.simulated,
        "valid_from": None if facts.valid_from is None else format_time(facts.valid_from),
        "valid_until": None if facts.valid_until is None else format_time(facts.valid_until),
        "state": _state(facts, now),
        "parts": [
            {
                "what": one.what,
                "issued_at": format_time(one.issued_at),
                "next_update": None if one.next_update is None else format_time(one.next_update),
            }
            for one in facts.dates
        ],
    }


def _told(
    brought: list[tuple[Path, Brought]], refused: list[tuple[Path, CloisterError]], now: datetime
) -> dict[str, object]:
    return {
        "documents": [
            {"file": str(path), "outcome": one.outcome.value, **_facts(one.facts, now)}
            for path, one in brought
        ],
        "refused": [
            {"file": str(path), "code": error.code, "message": error.message} for path, error in refused
        ],
    }


def _print_import(brought: list[tuple[Path, Brought]], refused: list[tuple[Path, CloisterError]]) -> None:
    from cloister.cli.advice import advice_on
    from cloister.cli.text import printable

    for path, one in brought:
        until = one.facts.valid_until
        ends = "no date in it" if until is None else f"holds until {until:%Y-%m-%d %H:%M} UTC"
        print(printable(f"{one.outcome.value:<8}{path}  {one.facts.subject}, {ends}"))
    for path, error in refused:
        print(printable(f"refused {path}  {error.message} [{error.code}]"))
    for hint in sorted({advice_on(error.code) for _, error in refused}):
        print(printable(f"  hint: {hint}"))


def _print_table(
    known: list[CollateralFacts],
    unsound: list[tuple[CollateralDocument, CloisterError]],
    now: datetime,
) -> None:
    from datetime import timedelta

    from rich.table import Table
    from rich.text import Text

    from cloister.cli.console import console, simulated_banner
    from cloister.cli.text import printable

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("document", "about", "issued", "renew by", "state", "signature"):
        table.add_column(name)
    for facts in known:
        state, until = _state(facts, now), facts.valid_until
        soon = until is not None and state == "holds" and until - now < timedelta(days=_SOON_DAYS)
        style = {"holds": "yellow" if soon else "green", "no date": ""}.get(state, "bold white on red")
        table.add_row(
            f"{facts.document.kind.value} {facts.document.sha256[:12]}",
            Text(printable(facts.subject + (" SIMULATED" if facts.simulated else ""))),
            f"{min(one.issued_at for one in facts.dates):%Y-%m-%d}" if facts.dates else "",
            f"{until:%Y-%m-%d %H:%M}" if until is not None else "",
            Text("ends soon" if soon else state, style=style),
            facts.signature.value.replace("-", " "),
        )
    for document, error in unsound:
        named = f"{document.kind.value} {document.sha256[:12]}"
        table.add_row(named, "", "", "", Text("unsound", style="bold white on red"), error.code)
    out = console()
    if any(one.simulated for one in known):
        out.print(simulated_banner())
    out.print(table)
    if not known and not unsound:
        out.print("No document is held. Bring some:  cloister collateral import FILE...", style="dim")
