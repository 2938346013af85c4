"""``cloister audit``: exports an auditor verifies with public keys, regulatory reports, and who read what."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cloister.cli.options import ActorName, ActorRole, Debug, Json, PinnedKeys, Purpose, Workspace

if TYPE_CHECKING:
    from cloister.evidence.predicates import ExportSelection
    from cloister.workflow.audit import AuditRequest

OWN: Final = "the workspace's own"
PINNED: Final = "pinned"

Job = Annotated[str | None, typer.Option("--job", metavar="ID", help="One job, by its id.")]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="T", help="Start of the period: 2026-11-21, or 2026-11-21T14:00:00Z."),
]
To = Annotated[
    str | None, typer.Option("--to", metavar="T", help="Its end, which is not in it; by default now.")
]
Party = Annotated[
    str | None,
    typer.Option("--party", metavar="ROLE/NAME", help="Only this party: hub/NAME or site/NAME."),
]
Recipient = Annotated[str, typer.Option("--recipient", metavar="NAME", help="For whom it is made.")]
OwnersWord = Annotated[
    bool,
    typer.Option(
        "--accept-owners-word",
        help="Accept that a log's owner alone says what lies outside the period. The verdict says so.",
    ),
]
Heads = Annotated[
    list[Path] | None,
    typer.Option(
        "--held",
        help="A head of these logs that a witness cosigned, to bound the period; may be given again.",
    ),
]


class RegulationName(StrEnum):
    """The regulations that ``report`` knows."""

    DPDP = "dpdp"
    HIPAA = "hipaa"
    GDPR = "gdpr"


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "export",
        help="Write a signed bundle of a job's or a period's statements, verifiable with public keys alone.",
        epilog="Example:  cloister audit export --job ID --recipient 'Dr Roy' --out export.json",
    )(_export)
    group.command(
        "report",
        help="Write, clause by clause, what the statements evidence and what they can't, as HTML and JSON.",
        epilog="Example:  cloister audit report --regulation gdpr --from 2026-01-01 --out report/",
    )(_report)
    group.command(
        "log",
        help="Show who read or exported a party's log, when and why. This look is logged too.",
        epilog="Example:  cloister audit log --party site/north",
    )(_log)
    group.command(
        "chain",
        help="Verify exports, oldest first, and that each names the one before; a missing one is located.",
        epilog="Example:  cloister audit chain first.json second.json third.json --trust trust/",
    )(_chain)


def _export(
    out: Annotated[Path, typer.Option("--out", help="The file to write; it must not be there yet.")],
    job: Job = None,
    start: From = None,
    end: To = None,
    party: Party = None,
    recipient: Recipient = "unnamed recipient",
    held: Heads = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="Pinned keys to check it with, such as the recipient's; else our own."),
    ] = None,
    accept_owners_word: OwnersWord = False,
    actor: ActorName = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.asking import acting, existing_workspace
    from cloister.cli.audit_files import require_new
    from cloister.cli.audit_shown import export_facts, show_export
    from cloister.cli.failure import EXIT_REFUTED
    from cloister.core.clock import system_clock
    from cloister.core.files import StagedFile
    from cloister.evidence import Trust
    from cloister.evidence.custody import Outside, verify_bundle
    from cloister.workflow.audit import export_audit, own_trust

    require_new(out)
    if job is None and start is None and end is None:
        raise typer.BadParameter("name what to export: --job ID, or --from and --to")
    request = _request(job, start, end, party, recipient, held)
    pinned = None if trust is None else Trust.load(trust)
    with existing_workspace(workspace) as opened, StagedFile(out) as staged:
        bundle = export_audit(opened, request, acting(actor, role, purpose), system_clock, staged.write)
        staged.appear()
        outside = Outside(owners_word=accept_owners_word)
        verdict = verify_bundle(bundle, pinned or own_trust(opened), outside)
    if as_json:
        print(json.dumps(export_facts(out, bundle, verdict), indent=2))
    else:
        show_export(out, bundle, verdict)
    return 0 if verdict.accepted else EXIT_REFUTED


def _report(
    regulation: Annotated[RegulationName, typer.Option("--regulation", help="The regulation.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write to; made if it isn't there.")],
    job: Job = None,
    start: From = None,
    end: To = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Report on this export instead of a workspace.")
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="Folder of pinned keys; by default the workspace's own."),
    ] = None,
    party: Party = None,
    recipient: Recipient = "unnamed recipient",
    held: Heads = None,
    accept_owners_word: OwnersWord = False,
    actor: ActorName = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.asking import acting, existing_workspace
    from cloister.cli.audit_files import ReportFolder
    from cloister.cli.audit_shown import report_facts, show_report
    from cloister.core.clock import system_clock
    from cloister.core.files import read_bounded
    from cloister.evidence import Trust
    from cloister.evidence.custody import Outside, verify_bundle
    from cloister.evidence.custody.bundle import MAX_BUNDLE_BYTES
    from cloister.evidence.regulation import RegulationId, assess
    from cloister.workflow.audit import export_audit, own_trust

    if bundle is not None and trust is None:
        raise typer.BadParameter("an export of somebody else's is verified with pinned keys: name --trust")
    if bundle is not None and any((job, start, end, party)):
        raise typer.BadParameter("a bundle already says what it is about")
    folder = ReportFolder(out)
    chosen = RegulationId(regulation.value)
    pinned = None if trust is None else Trust.load(trust)
    if bundle is not None and pinned is not None:
        data = read_bounded(bundle, MAX_BUNDLE_BYTES)
        notes = tuple(read_bounded(one, MAX_BUNDLE_BYTES) for one in held or ())
        outside = Outside(held=notes, owners_word=accept_owners_word, now=system_clock())
        verdict = verify_bundle(data, pinned, outside)
    else:
        request = _request(job, start, end, party, recipient, held)
        asking = acting(actor, role, purpose)
        with existing_workspace(workspace) as opened:
            data = folder.make_export(
                lambda keep: export_audit(opened, request, asking, system_clock, keep, action="report")
            )
            keys = pinned or own_trust(opened)
        verdict = verify_bundle(data, keys, Outside(owners_word=accept_owners_word))
    with folder.set_aside_unless_written(data):
        assessment = assess(verdict, chosen, OWN if pinned is None else PINNED)
        folder.write(assessment, data)
    if as_json:
        print(json.dumps(report_facts(out, assessment), indent=2))
    else:
        show_report(out, assessment)
    return 0


def _log(
    party: Party = None,
    actor: ActorName = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.asking import acting, existing_workspace
    from cloister.cli.audit_shown import access_facts, show_accesses
    from cloister.core.clock import system_clock
    from cloister.workflow.audit import named_party, read_accesses

    chosen = None if party is None else named_party(party)
    with existing_workspace(workspace) as opened:
        found = read_accesses(opened, chosen, acting(actor, role, purpose), system_clock)
    if as_json:
        print(json.dumps(access_facts(found), indent=2))
    else:
        show_accesses(found)
    return 0


def _chain(
    bundles: Annotated[list[Path], typer.Argument(help="The exports, oldest first.")],
    trust: PinnedKeys,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.failure import EXIT_REFUTED
    from cloister.cli.text import printable
    from cloister.core.clock import system_clock
    from cloister.core.files import read_bounded
    from cloister.evidence import Trust
    from cloister.evidence.checks import Outcome
    from cloister.evidence.custody import Outside, verify_custody_chain
    from cloister.evidence.custody.bundle import MAX_BUNDLE_BYTES

    exports = [read_bounded(one, MAX_BUNDLE_BYTES) for one in bundles]
    check = verify_custody_chain(exports, Trust.load(trust), Outside(now=system_clock()))
    if as_json:
        print(json.dumps({"id": check.id, "outcome": check.outcome.value, "detail": check.detail}, indent=2))
    else:
        print(f"{check.id} {check.outcome.value}: {printable(check.detail)}")
    return 0 if check.outcome is Outcome.PASSED else EXIT_REFUTED


def _request(
    job: str | None,
    start: str | None,
    end: str | None,
    party: str | None,
    recipient: str,
    held: list[Path] | None,
) -> AuditRequest:
    from cloister.workflow.audit import AuditRequest, named_party, read_head

    return AuditRequest(
        selection=_selection(job, start, end),
        party=None if party is None else named_party(party),
        recipient=recipient,
        notes=tuple(read_head(one) for one in held or ()),
    )


def _selection(job: str | None, start: str | None, end: str | None) -> ExportSelection:
    from cloister.core.clock import system_clock
    from cloister.workflow.audit import job_selection, period_selection

    if job is None:
        return period_selection(start, end, system_clock)
    if start is not None or end is not None:
        raise typer.BadParameter("a job and a period exclude each other: name --job, or --from and --to")
    return job_selection(job)
