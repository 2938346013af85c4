"""``cloister audit``: exports an auditor verifies with public keys, regulatory reports, and who read what."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cloister.evidence import Trust
    from cloister.evidence.custody.access import Accessed, Actor
    from cloister.evidence.custody.verify import BundleVerdict
    from cloister.evidence.predicates import ExportSelection
    from cloister.evidence.regulation import Assessment
    from cloister.workflow.audit import AuditRequest

OWN, PINNED = "the workspace's own", "pinned"
EXPORT_FILE, REPORT_JSON, REPORT_HTML = "export.json", "report.json", "report.html"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks. Not on data you may not show.")]
Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        show_default="cloister-work, or CLOISTER_WORKSPACE, or cloister.toml",
        help="Folder with the parties' logs.",
    ),
]
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
Name = Annotated[
    str | None, typer.Option("--actor", metavar="NAME", help="Who you are, beside your account's name.")
]
ActorRole = Annotated[str, typer.Option("--role", help="In what role you ask.")]
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
Purpose = Annotated[str, typer.Option("--purpose", metavar="TEXT", help="Why; the log states it.")]


class RegulationName(StrEnum):
    """The regulations that ``report`` knows."""

    DPDP = "dpdp"
    HIPAA = "hipaa"
    GDPR = "gdpr"


def attach(app: typer.Typer) -> None:
    """Attach the commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="Export logs, report on them, and see who read them.")
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
    app.add_typer(group, name="audit")


def acting(name: str | None, role: str, purpose: str) -> Actor:
    """Who asks: the account this process runs under, and what they call themselves.

    Args:
        name: their own name for themselves, if any.
        role: in what role.
        purpose: why.

    Returns:
        What the log will state.
    """
    from cloister.evidence.custody.access import Actor
    from cloister.workflow.audit import operating_system_user

    account = operating_system_user()
    return Actor(account if name is None else f"{account} as {name}", role, purpose)


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
    actor: Name = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.failure import EXIT_REFUTED
    from cloister.core.clock import system_clock
    from cloister.core.files import StagedFile
    from cloister.core.hashes import sha256_hex
    from cloister.core.settings import load_settings
    from cloister.evidence import Trust
    from cloister.evidence.custody import Outside, verify_bundle
    from cloister.workflow.audit import export_audit, own_trust, require_workspace
    from cloister.workflow.workspace import open_workspace

    _require_new(out)
    if job is None and start is None and end is None:
        raise typer.BadParameter("name what to export: --job ID, or --from and --to")
    settings = load_settings({"workspace": workspace})
    request = _request(job, start, end, party, recipient, held)
    pinned = None if trust is None else Trust.load(trust)
    with (
        open_workspace(require_workspace(settings.workspace), settings=settings) as opened,
        StagedFile(out) as staged,
    ):
        bundle = export_audit(opened, request, acting(actor, role, purpose), system_clock, staged.write)
        staged.appear()
        outside = Outside(owners_word=accept_owners_word)
        verdict = verify_bundle(bundle, pinned or own_trust(opened), outside)
    if as_json:
        answer = {"bundle": str(out), "sha256": sha256_hex(bundle), "bytes": len(bundle)}
        print(json.dumps({**answer, **_counted(verdict)}, indent=2))
    else:
        _show_export(out, bundle, verdict)
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
    actor: Name = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock
    from cloister.core.files import read_bounded, write_new
    from cloister.evidence import Trust
    from cloister.evidence.custody import Outside, verify_bundle
    from cloister.evidence.custody.bundle import MAX_BUNDLE_BYTES
    from cloister.evidence.regulation import RegulationId, assess

    if bundle is not None and trust is None:
        raise typer.BadParameter("an export of somebody else's is verified with pinned keys: name --trust")
    if bundle is not None and any((job, start, end, party)):
        raise typer.BadParameter("a bundle already says what it is about")
    for name in (EXPORT_FILE, REPORT_JSON, REPORT_HTML):
        _require_new(out / name)
    chosen = RegulationId(regulation.value)
    pinned = None if trust is None else Trust.load(trust)
    if bundle is not None and pinned is not None:
        data = read_bounded(bundle, MAX_BUNDLE_BYTES)
        notes = tuple(read_bounded(one, MAX_BUNDLE_BYTES) for one in held or ())
        outside = Outside(held=notes, owners_word=accept_owners_word, now=system_clock())
        assessment = assess(verify_bundle(data, pinned, outside), chosen, PINNED)
        _make_folder(out)
        write_new(out / EXPORT_FILE, data)
    else:
        request = _request(job, start, end, party, recipient, held)
        asking = acting(actor, role, purpose)
        verdict = _exported(out, workspace, request, asking, pinned, accept_owners_word=accept_owners_word)
        assessment = assess(verdict, chosen, PINNED if pinned is not None else OWN)
    _write_report(out, assessment)
    if as_json:
        counts = {one.value: assessment.standing_count(one) for one in _standings()}
        print(json.dumps({"regulation": chosen.value, "clauses": counts, "folder": str(out)}, indent=2))
    else:
        _show_report(out, assessment)
    return 0


def _exported(
    out: Path,
    workspace: Path | None,
    request: AuditRequest,
    actor: Actor,
    pinned: Trust | None,
    *,
    accept_owners_word: bool,
) -> BundleVerdict:
    """Make the export that a report rests on, beside the report, and judge it."""
    from cloister.core.clock import system_clock
    from cloister.core.files import StagedFile
    from cloister.core.settings import load_settings
    from cloister.evidence.custody import Outside, verify_bundle
    from cloister.workflow.audit import export_audit, own_trust, require_workspace
    from cloister.workflow.workspace import open_workspace

    settings = load_settings({"workspace": workspace})
    with open_workspace(require_workspace(settings.workspace), settings=settings) as opened:
        made = not out.exists()
        _make_folder(out)
        try:
            with StagedFile(out / EXPORT_FILE) as staged:
                data = export_audit(opened, request, actor, system_clock, staged.write, action="report")
                staged.appear()
        except BaseException:
            if made:
                out.rmdir()
            raise
        keys = pinned or own_trust(opened)
    return verify_bundle(data, keys, Outside(owners_word=accept_owners_word))


def _write_report(out: Path, assessment: Assessment) -> None:
    from cloister.core.files import write_new
    from cloister.evidence.regulation.render import render_report

    written = json.dumps(assessment.as_json(), indent=2, sort_keys=True).encode() + b"\n"
    for name, content in ((REPORT_JSON, written), (REPORT_HTML, render_report(assessment).encode())):
        write_new(out / name, content)


def _log(
    party: Party = None,
    actor: Name = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock
    from cloister.core.settings import load_settings
    from cloister.workflow.audit import named_party, read_accesses, require_workspace
    from cloister.workflow.workspace import open_workspace

    settings = load_settings({"workspace": workspace})
    chosen = None if party is None else named_party(party)
    with open_workspace(require_workspace(settings.workspace), settings=settings) as opened:
        found = read_accesses(opened, chosen, acting(actor, role, purpose), system_clock)
    if as_json:
        rows = [
            {"log": one.origin, "index": one.index, "type": one.statement.TYPE}
            | one.statement.model_dump(mode="json", exclude={"job_id", "sequence", "previous"})
            for one in found
        ]
        print(json.dumps({"accesses": rows}, indent=2))
    else:
        _show_accesses(found)
    return 0


def _chain(
    bundles: Annotated[list[Path], typer.Argument(help="The exports, oldest first.")],
    trust: Annotated[
        Path, typer.Option("--trust", help="Folder of pinned public keys, one folder per role.")
    ],
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


def _require_new(path: Path) -> None:
    from cloister.core.errors import StorageError

    if path.exists():
        raise StorageError(
            "storage.exists", f"{path} is already there.", "Move it away or choose another name."
        )


def _make_folder(path: Path) -> None:
    from cloister.core.files import storage_error

    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise storage_error(error, path) from None


def _standings() -> list[StrEnum]:
    from cloister.evidence.regulation.assessment import Standing

    return list(Standing)


def _counted(verdict: BundleVerdict) -> dict[str, object]:
    record = verdict.record
    logs = {} if record is None else {name: len(group) for name, group in record.statements.items()}
    failures = [{"id": one.id, "detail": one.detail} for one in verdict.failures]
    told = {"verifies": verdict.accepted, "owners_word": verdict.owners_word}
    return {**told, "entries": logs, "failures": failures}


def _show_export(out: Path, bundle: bytes, verdict: BundleVerdict) -> None:
    from cloister.core.hashes import sha256_hex

    record = verdict.record
    count = 0 if record is None else len(record.selected)
    logs = 0 if record is None else len(record.statements)
    print(f"{count} statements of {logs} logs exported to {out}")
    print(f"SHA-256 {sha256_hex(bundle)}; the export is stated in each of these logs")
    for one in verdict.failures:
        print(f"a verifier will refuse it: {one.id}: {one.detail}")
    if verdict.accepted and verdict.owners_word:
        print(
            "what lies outside the period is so on the owner's word alone; whoever gets it has to accept that"
        )


def _show_report(out: Path, assessment: Assessment) -> None:
    print(f"{assessment.regulation.title}, clause by clause:")
    for one in _standings():
        print(f"  {assessment.standing_count(one):3d}  {one.value.replace('-', ' ')}")
    print(f"written to {out / REPORT_HTML}, with {REPORT_JSON} and the {EXPORT_FILE} it rests on")


def _show_accesses(found: tuple[Accessed, ...]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from cloister.cli.console import console
    from cloister.cli.text import printable
    from cloister.evidence.predicates import Access
    from cloister.workflow.audit import describe

    table = Table(title="Access", title_justify="left", box=None, pad_edge=False, header_style="dim")
    for heading in ("when", "log", "entry", "who", "what", "why or for whom"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "when")
    for one in found:
        said = one.statement
        if isinstance(said, Access):
            who, why = f"{said.actor}, {said.role}", said.purpose
            what = f"{said.action}: {said.what}"
        else:
            who, why = said.party, f"for {said.recipient}"
            what = f"bundle {said.bundle_sha256[:16]}: {describe(said.selection)}"
        cells = (f"{said.recorded_at[:19]}Z", one.origin, str(one.index), who, what, why)
        table.add_row(*(escape(printable(cell)) for cell in cells))
    console().print(table)
