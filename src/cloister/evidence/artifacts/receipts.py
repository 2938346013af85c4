"""A receipt, with what its reader demands beyond the checks every receipt has to pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError
from cloister.evidence.artifacts.checkpoints import owner_keys
from cloister.evidence.artifacts.kinds import ArtifactKind
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands, Simulation
from cloister.evidence.checkpoint import parse_checkpoint, verify_checkpoint
from cloister.evidence.checks import Check, CheckRegistry, judged, not_run
from cloister.evidence.context import ModelArtifact, model_artifact
from cloister.evidence.receipt import ReceiptBody, parse_receipt, receipt_from_json
from cloister.evidence.trust import Trust
from cloister.evidence.verifier import Verdict, Verifier

_NO_MODEL = model_artifact(b"")


def verify_receipt(data: bytes, trust: Trust, demands: Demands, registry: CheckRegistry) -> ArtifactVerdict:
    """Judge a receipt.

    Args:
        data: the receipt file's bytes.
        trust: the pinned keys.
        demands: what has to hold besides; without a model file at hand the check of it is not run.
        registry: the checks of rooms above.

    Returns:
        The verdict; ``production``, ``measurement`` and ``held-checkpoints`` follow the receipt's checks
        where they are demanded.
    """
    verdict = Verifier(trust, registry, demands.policy).verify(data, demands.model or _NO_MODEL)
    body = _body(data) if verdict.accepted else None
    measurements = _measurements(body)
    checks = [*_with_model(verdict, demands.model), *_demanded(demands, verdict, measurements)]
    if demands.held:
        checks.append(_held(body, trust, demands))
    return ArtifactVerdict(
        ArtifactKind.RECEIPT,
        tuple(checks),
        {} if body is None else {"job": body.job_id, "hub": body.issuer, "issued at": body.issued_at},
        measurements,
        simulated=verdict.simulated,
        test_randomness=verdict.test_randomness,
    )


def _with_model(verdict: Verdict, model: ModelArtifact | None) -> Iterator[Check]:
    for check in verdict.checks:
        if check.id == "model-hash" and model is None:
            yield not_run(check.id, "no model file is at hand")
        else:
            yield check


def _demanded(demands: Demands, verdict: Verdict, measurements: tuple[str, ...]) -> Iterator[Check]:
    if demands.simulation is Simulation.REFUSE:
        simulated = ["--production accepts no simulated attestation"] if verdict.simulated else []
        if verdict.accepted or simulated:
            yield judged("production", simulated, "no attestation is simulated")
        else:
            yield not_run("production", "the receipt's own checks didn't pass")
    if demands.measurement is not None:
        if not verdict.accepted:
            yield not_run("measurement", "the receipt's own checks didn't pass")
            return
        other = measurements != (demands.measurement.lower(),)
        problems = ["--measurement names other code than was attested"] if other else []
        yield judged("measurement", problems, "the code demanded is the code attested, and no other")


def _held(body: ReceiptBody | None, trust: Trust, demands: Demands) -> Check:
    """Each log here has the root that a checkpoint held from before states, as its head or proven past.

    Other sizes can't be compared with a receipt, and that is not taken for agreement.
    """
    if body is None:
        return not_run("held-checkpoints", "the receipt's own checks didn't pass")
    links = [one.link() for one in body.consistency]
    heads = [parse_checkpoint(note) for note in body.checkpoints.values()]
    roots = {(one.origin, one.size): one.root for one in links}
    roots |= {(one.origin, one.size): one.root for one in heads}
    trust = trust.with_credentials(pem for chains in body.credentials.values() for pem in chains)
    demands = replace(demands, at=parse_time(body.issued_at))
    problems: list[str] = []
    untold: list[str] = []
    for note in demands.held:
        try:
            before = parse_checkpoint(note.decode("utf-8", "replace"))
            verify_checkpoint(before, before.origin, *owner_keys(before, trust, demands))
        except CloisterError as error:
            problems.append(f"a held checkpoint can't be used: {error.message}")
            continue
        root = roots.get((before.origin, before.size))
        if root is None:
            untold.append(f"{before.origin} with {before.size} entries")
        elif root != before.root:
            problems.append(
                f"{before.origin}: its first {before.size} entries are not those it had: rewritten"
            )
    if untold and not problems:
        return not_run(
            "held-checkpoints", f"no root is here of {'; '.join(untold)}: compare with the log's tiles"
        )
    return judged("held-checkpoints", problems, f"it has the root of each of {len(demands.held)} held")


def _body(data: bytes) -> ReceiptBody:
    return receipt_from_json(parse_receipt(data), data).body


def _measurements(body: ReceiptBody | None) -> tuple[str, ...]:
    if body is None:
        return ()
    return tuple(sorted({one.measurement for one in body.summary.execution.enclaves.values()}))
