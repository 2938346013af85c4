"""How exports, reports and the record of access look: plain text for people, one object for machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cloister.cli.audit_files import EXPORT_FILE, REPORT_HTML, REPORT_JSON

if TYPE_CHECKING:
    from cloister.evidence.custody.access import Accessed
    from cloister.evidence.custody.verify import BundleVerdict
    from cloister.evidence.regulation import Assessment


def export_facts(out: Path, bundle: bytes, verdict: BundleVerdict) -> dict[str, object]:
    """An export as a JSON object: what it is, what it holds, and what a verifier will say.

    Args:
        out: where it was written.
        bundle: the export.
        verdict: on it.
    """
    from cloister.core.hashes import sha256_hex

    record = verdict.record
    return {
        "bundle": str(out),
        "sha256": sha256_hex(bundle),
        "bytes": len(bundle),
        "verifies": verdict.accepted,
        "owners_word": verdict.owners_word,
        "entries": {} if record is None else {name: len(group) for name, group in record.statements.items()},
        "failures": [{"id": one.id, "detail": one.detail} for one in verdict.failures],
    }


def show_export(out: Path, bundle: bytes, verdict: BundleVerdict) -> None:
    """Print the same for a person.

    Args:
        out: where it was written.
        bundle: the export.
        verdict: on it.
    """
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


def report_facts(out: Path, assessment: Assessment) -> dict[str, object]:
    """A report as a JSON object: how many clauses stand how, and where it lies.

    Args:
        out: its folder.
        assessment: what it says.
    """
    from cloister.evidence.regulation.assessment import Standing

    counts = {one.value: assessment.standing_count(one) for one in Standing}
    return {"regulation": assessment.regulation_id.value, "clauses": counts, "folder": str(out)}


def show_report(out: Path, assessment: Assessment) -> None:
    """Print the same for a person.

    Args:
        out: its folder.
        assessment: what it says.
    """
    from cloister.evidence.regulation.assessment import Standing

    print(f"{assessment.regulation.title}, clause by clause:")
    for one in Standing:
        print(f"  {assessment.standing_count(one):3d}  {one.value.replace('-', ' ')}")
    print(f"written to {out / REPORT_HTML}, with {REPORT_JSON} and the {EXPORT_FILE} it rests on")


def access_facts(found: tuple[Accessed, ...]) -> dict[str, object]:
    """Accesses as a JSON object.

    Args:
        found: what the logs state, oldest first.
    """
    rows = [
        {"log": one.origin, "index": one.index, "type": one.statement.TYPE}
        | one.statement.model_dump(mode="json", exclude={"job_id", "sequence", "previous"})
        for one in found
    ]
    return {"accesses": rows}


def show_accesses(found: tuple[Accessed, ...]) -> None:
    """Print the same as a table.

    Args:
        found: what the logs state, oldest first.
    """
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
