"""An audit export: a job or a span of time of one or several logs, handed to an auditor."""

from __future__ import annotations

from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.evidence.artifacts.checkpoints import check_cosignatures
from cloister.evidence.artifacts.kinds import ArtifactKind
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands, OwnersWord
from cloister.evidence.checkpoint import parse_checkpoint
from cloister.evidence.checks import Check, Outcome, failed, judged, not_run
from cloister.evidence.custody import ExportBundle, Outside, verify_bundle, verify_custody_chain
from cloister.evidence.custody.bounds import check_held
from cloister.evidence.custody.record import ExportRecord
from cloister.evidence.trust import Trust


def verify_export(data: bytes, trust: Trust, demands: Demands) -> ArtifactVerdict:
    """Judge an audit export.

    Args:
        data: the bundle's bytes.
        trust: the pinned keys.
        demands: how many witnesses are wanted; heads of logs and the exports before this one, as far as they
            are at hand; and whether a log's owner's word will do for what lies outside a period.

    Returns:
        The verdict; ``witnesses`` and, where something is held, ``held-checkpoints`` and ``custody-chain``
        follow the export's checks.
    """
    outside = Outside(
        held=demands.held,
        previous=demands.previous,
        owners_word=demands.owners_word is OwnersWord.ACCEPT,
        now=demands.now,
    )
    verdict = verify_bundle(data, trust, outside)
    checks = list(verdict.checks)
    if verdict.record is None:
        checks.append(not_run("witnesses", "the export can't be read"))
    else:
        checks.append(_witnesses(verdict.record.bundle, trust, demands.witnesses or 0))
        if demands.held:
            credentials = [pem for chain in verdict.record.bundle.body.credentials.values() for pem in chain]
            checks.append(_held(verdict.record, trust, credentials, demands.held))
    if demands.previous:
        checks.append(verify_custody_chain((*demands.previous, data), trust, outside))
    facts = {} if verdict.record is None else _facts(verdict.record.bundle, data)
    return ArtifactVerdict(
        ArtifactKind.EXPORT,
        tuple(checks),
        facts,
        owners_word=verdict.owners_word and outside.owners_word,
    )


def _held(record: ExportRecord, trust: Trust, credentials: list[str], held: tuple[bytes, ...]) -> Check:
    try:
        return check_held(record, trust.with_credentials(credentials), held)
    except CloisterError as error:
        return failed("held-checkpoints", error.message)


def _witnesses(bundle: ExportBundle, trust: Trust, wanted: int) -> Check:
    logs = bundle.body.logs.items()
    found = {
        origin: check_cosignatures(parse_checkpoint(log.checkpoint), trust, wanted) for origin, log in logs
    }
    problems = [f"{log}: {one.detail}" for log, one in found.items() if one.outcome is not Outcome.PASSED]
    details = {one.detail for one in found.values()}
    same = len(details) == 1
    each = f"each of {len(found)} logs: {details.pop()}" if same else "enough for each log"
    return judged("witnesses", problems, each)


def _facts(bundle: ExportBundle, data: bytes) -> dict[str, str]:
    body = bundle.body
    return {
        "export": body.export_id,
        "exported by": f"{body.exporter_role} {body.exporter}",
        "exported at": body.exported_at,
        "recipient": body.recipient,
        "logs": ", ".join(sorted(body.logs)),
        "sha256": sha256_hex(data),
        **{
            f"previous export of {origin}": log.previous
            for origin, log in body.logs.items()
            if log.previous is not None
        },
    }
