"""A whole log as static tiles: its head, every entry under it, and that it still begins as it was held.

Who has the whole log can also tell whether it holds one chain of statements for each job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cloister.core.errors import CloisterError
from cloister.core.files import read_bounded
from cloister.evidence.artifacts.checkpoints import (
    check_cosignatures,
    check_owner,
    checkpoint_facts,
    owner_keys,
)
from cloister.evidence.artifacts.kinds import ArtifactKind
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands
from cloister.evidence.checkpoint import MAX_CHECKPOINT_CHARS, Checkpoint, parse_checkpoint, verify_checkpoint
from cloister.evidence.checks import Check, Outcome, failed, judged, not_run, passed
from cloister.evidence.log.tiles_reader import tile_reader, verify_tiles
from cloister.evidence.merkle import subtree_root
from cloister.evidence.trust import Trust
from cloister.evidence.verification.chains import Chains

LOG_CHECKS: Final = (
    "canonical-form",
    "checkpoint-signature",
    "witnesses",
    "log-entries",
    "statement-chains",
)
"""Every check of a log, in order; ``held-checkpoints`` follows where some are given."""


def verify_log(directory: Path, trust: Trust, demands: Demands) -> ArtifactVerdict:
    """Judge the folder of a log's tiles (c2sp.org/tlog-tiles).

    Args:
        directory: the folder that holds ``checkpoint`` and ``tile``.
        trust: the pinned keys.
        demands: how many witnesses are wanted, and checkpoints held from before.

    Returns:
        The verdict.
    """
    try:
        note = read_bounded(directory / "checkpoint", MAX_CHECKPOINT_CHARS)
        head = parse_checkpoint(note.decode("utf-8"))
    except (CloisterError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, CloisterError) else "it is not UTF-8"
        rest = [not_run(one, "the checkpoint can't be read") for one in LOG_CHECKS[1:]]
        return ArtifactVerdict(ArtifactKind.LOG, (failed("canonical-form", reason), *rest))
    checks = [
        passed("canonical-form", f"a checkpoint of {len(note)} bytes, the only spelling"),
        check_owner(head, trust, demands),
        check_cosignatures(head, trust, demands.witnesses or 0),
    ]
    checks += _entries(directory, head, trust, demands, checks[1])
    if demands.held:
        checks.append(_held(directory, head, trust, demands, checks[3]))
    return ArtifactVerdict(ArtifactKind.LOG, tuple(checks), checkpoint_facts(head))


def _entries(
    directory: Path, head: Checkpoint, trust: Trust, demands: Demands, owner: Check
) -> tuple[Check, Check]:
    """Every entry hashed, and the chains that their statements form."""
    chains = Chains()
    if owner.outcome is not Outcome.PASSED:
        entries = not_run("log-entries", "the checkpoint isn't the owner's")
    else:
        try:
            keys = owner_keys(head, trust, demands)
            found = verify_tiles(directory, keys, origin=head.origin, visit=chains.visit)
        except CloisterError as error:
            entries = failed("log-entries", error.message)
        else:
            told = f"{found.entries} entries hashed, {found.tiles} tiles compared, one root"
            entries = passed("log-entries", told)
            if found.checkpoint != head:
                entries = not_run("log-entries", "the checkpoint was replaced while it was read")
    if entries.outcome is not Outcome.PASSED:
        return entries, not_run("statement-chains", "the entries don't hold")
    return entries, chains.check()


def _held(directory: Path, head: Checkpoint, trust: Trust, demands: Demands, entries: Check) -> Check:
    """The log, as its tiles show it, has the root that each held checkpoint states for its size."""
    if entries.outcome is not Outcome.PASSED:
        return not_run("held-checkpoints", "the tiles don't hold")
    tiles = tile_reader(directory, head.size)
    problems: list[str] = []
    for note in demands.held:
        try:
            before = parse_checkpoint(note.decode("utf-8", "replace"))
            verify_checkpoint(before, head.origin, *owner_keys(head, trust, demands))
            if before.size > head.size:
                problems.append(f"the log had {before.size} entries before, and has {head.size}: rolled back")
            elif before.size and subtree_root(0, before.size, tiles) != before.root:
                problems.append(f"the first {before.size} entries are not those it had before: rewritten")
        except CloisterError as error:
            problems.append(f"a held checkpoint can't be used: {error.message}")
    return judged(
        "held-checkpoints", problems, f"it begins as each of {len(demands.held)} held checkpoints says"
    )
