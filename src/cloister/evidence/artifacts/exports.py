"""An audit export: a job or a span of time of one or several logs, handed to an auditor."""

from __future__ import annotations

from cloister.core.hashes import sha256_hex
from cloister.evidence.artifacts.checkpoints import check_cosignatures
from cloister.evidence.artifacts.kinds import ArtifactKind
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands
from cloister.evidence.checkpoint import parse_checkpoint
from cloister.evidence.checks import Check, Outcome, failed, judged, not_run
from cloister.evidence.custody import ExportBundle, check_custody_chain, verify_bundle
from cloister.evidence.trust import Trust


def verify_export(data: bytes, trust: Trust, demands: Demands) -> ArtifactVerdict:
    """Judge an audit export.

    Args:
        data: the bundle's bytes.
        trust: the pinned keys.
        demands: how many witnesses are wanted, and the exports before this one if they are at hand.

    Returns:
        The verdict; ``witnesses`` and, with earlier exports, ``custody-chain`` follow the export's checks.
    """
    verdict = verify_bundle(data, trust)
    checks = list(verdict.checks)
    if verdict.record is None:
        checks.append(not_run("witnesses", "the export can't be read"))
    else:
        checks.append(_witnesses(verdict.record.bundle, trust, demands.witnesses or 0))
    if demands.previous:
        checks.append(_chain((*demands.previous, data), trust))
    facts = {} if verdict.record is None else _facts(verdict.record.bundle, data)
    return ArtifactVerdict(ArtifactKind.EXPORT, tuple(checks), facts)


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


def _chain(bundles: tuple[bytes, ...], trust: Trust) -> Check:
    for number, bundle in enumerate(bundles[:-1], start=1):
        refused = verify_bundle(bundle, trust).failures
        if refused:
            return failed("custody-chain", f"earlier export {number} is refused: {refused[0].id}")
    return check_custody_chain(bundles)


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
            f"previous export of {origin}": log.previous.sha256
            for origin, log in body.logs.items()
            if log.previous is not None
        },
    }
