"""A log's checkpoint on its own: who signed it, and whether it contradicts those held from before."""

from __future__ import annotations

from typing import Final

from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.artifacts.kinds import ArtifactKind
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint, verify_cosignature
from cloister.evidence.checks import Check, failed, judged, not_run, passed
from cloister.evidence.extract import log_owner
from cloister.evidence.key_order import by_former, head_place
from cloister.evidence.predicates.base import Role
from cloister.evidence.trust import Trust

CHECKPOINT_CHECKS: Final = ("canonical-form", "checkpoint-signature", "witnesses")
"""Every check of a checkpoint, in order; ``held-checkpoints`` follows where some are given."""


def verify_checkpoint_note(data: bytes, trust: Trust, demands: Demands) -> ArtifactVerdict:
    """Judge a checkpoint.

    Args:
        data: the signed note.
        trust: the pinned keys.
        demands: checkpoints held from before, if any.

    Returns:
        The verdict.
    """
    try:
        checkpoint = parse_checkpoint(data.decode("utf-8"))
    except (CloisterError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, CloisterError) else "it is not UTF-8"
        rest = [not_run(one, "the checkpoint can't be read") for one in CHECKPOINT_CHECKS[1:]]
        return ArtifactVerdict(ArtifactKind.CHECKPOINT, (failed("canonical-form", reason), *rest))
    checks = [
        passed("canonical-form", f"{len(data)} bytes, the only spelling"),
        check_owner(checkpoint, trust, demands),
        check_cosignatures(checkpoint, trust, demands.witnesses or 0),
    ]
    if demands.held:
        checks.append(check_held(checkpoint, demands, trust))
    return ArtifactVerdict(ArtifactKind.CHECKPOINT, tuple(checks), checkpoint_facts(checkpoint))


def checkpoint_facts(checkpoint: Checkpoint) -> dict[str, str]:
    """What a checkpoint says, for people."""
    return {"log": checkpoint.origin, "entries": str(checkpoint.size), "root": checkpoint.root.hex()}


def check_held(checkpoint: Checkpoint, demands: Demands, trust: Trust) -> Check:
    """The owner of this checkpoint never signed another root over as many entries, as far as is held.

    Two checkpoints of different sizes need the log, or its tiles, to be compared; they are counted.
    """
    problems: list[str] = []
    same = other = 0
    for note in demands.held:
        try:
            before = parse_checkpoint(note.decode("utf-8", "replace"))
            verify_checkpoint(before, before.origin, *owner_keys(before, trust, demands))
        except CloisterError as error:
            problems.append(f"a held checkpoint can't be used: {error.message}")
            continue
        if before.origin != checkpoint.origin:
            problems.append(f"a held checkpoint is of {before.origin}")
        elif before.size != checkpoint.size:
            other += 1
        elif before.root != checkpoint.root:
            problems.append(f"its owner signed two roots over {before.size} entries: a split view")
        else:
            same += 1
    if not problems and other:
        return not_run("held-checkpoints", f"{other} held of another size: compare with the log's tiles")
    return judged("held-checkpoints", problems, f"equal to {same} held")


def owner_keys(checkpoint: Checkpoint, trust: Trust, demands: Demands) -> tuple[PublicKey, ...]:
    """The keys of the party whose log this is: pinned, former ones too, or certified at the time demanded.

    Raises:
        EvidenceError: it is no log of ours, or its owner isn't known by any key that holds.
    """
    role, party = log_owner(checkpoint.origin)
    return trust.with_credentials(demands.certificates).keys(role, party, at=demands.at)


def check_owner(checkpoint: Checkpoint, trust: Trust, demands: Demands) -> Check:
    """The party whose log this is signed the checkpoint."""
    try:
        role, party = log_owner(checkpoint.origin)
        keys = owner_keys(checkpoint, trust, demands)
        verify_checkpoint(checkpoint, checkpoint.origin, *keys)
    except CloisterError as error:
        return failed("checkpoint-signature", error.message)
    former = by_former(trust, role, party, [one.key_id for one in head_place(checkpoint, keys)])
    return passed("checkpoint-signature", f"signed by {role.value} {party}{former}")


def check_cosignatures(checkpoint: Checkpoint, trust: Trust, wanted: int) -> Check:
    """Enough of the pinned witnesses cosigned, and every line that claims to be one's holds."""
    problems: list[str] = []
    signed: list[str] = []
    named = {one.name for one in checkpoint.signatures}
    pinned = trust.parties(Role.WITNESS)
    for witness in pinned:
        if witness not in named:
            continue
        try:
            verify_cosignature(checkpoint, witness, trust.key(Role.WITNESS, witness))
            signed.append(witness)
        except CloisterError as error:
            problems.append(f"{witness}: {error.message}")
    count = f"{len(signed)} of {len(pinned)} pinned witnesses cosigned"
    if len(signed) < wanted:
        problems.append(f"{count}, {wanted} are wanted")
    detail = f"{count}: {', '.join(signed)}" if signed else f"{count}; none is wanted"
    return judged("witnesses", problems, detail)
