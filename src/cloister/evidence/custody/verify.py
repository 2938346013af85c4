"""Judging audit exports: from a bundle's bytes and pinned keys to a verdict, without network or database.

Rules kept here:

1. Pure: what isn't in the bundle, pinned or held isn't looked up. There is always a verdict.
2. Every check is made; one that breaks or can't be made counts as not run, hence as failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, TypeAlias

from cloister.core.canonical import parse_canonical
from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.evidence.checks import Check, Checked, Outcome, failed, judged, not_run, passed
from cloister.evidence.custody.bounds import (
    Bounded,
    Earlier,
    Outside,
    bound_period,
    check_period,
    on_owners_word,
)
from cloister.evidence.custody.bundle import EXPORT_SCHEMA, MAX_BUNDLE_BYTES, decode_bundle, read_bundle
from cloister.evidence.custody.completeness import (
    CLOCK_TOLERANCE,
    check_chain,
    check_completeness,
    check_custody,
    check_order,
)
from cloister.evidence.custody.record import ExportRecord, export_record
from cloister.evidence.custody.signatures import (
    check_checkpoint_signatures,
    check_claims,
    check_export_signature,
    check_log_inclusion,
    check_statement_signatures,
    check_trust,
)
from cloister.evidence.trust import Trust

EXPORT_CHECK_IDS: Final = (
    "canonical-form",
    "schema",
    "export-signature",
    "trust",
    "checkpoint-signature",
    "log-inclusion",
    "statement-signature",
    "statement-order",
    "statement-chain",
    "completeness",
    "period",
    "custody",
    "claims",
)
"""Every check of an export's verdict, in the order in which it lists them."""


ExportCheck: TypeAlias = Callable[[ExportRecord, Trust], Check]

_CHECKS: Final[Mapping[str, ExportCheck]] = MappingProxyType(
    {
        "export-signature": check_export_signature,
        "trust": check_trust,
        "checkpoint-signature": check_checkpoint_signatures,
        "log-inclusion": check_log_inclusion,
        "statement-signature": check_statement_signatures,
        "statement-order": check_order,
        "statement-chain": check_chain,
        "completeness": check_completeness,
        "custody": check_custody,
        "claims": check_claims,
    }
)


@dataclass(frozen=True, slots=True)
class BundleVerdict(Checked):
    """What the verifier found.

    Attributes:
        checks: every check, in the order of ``EXPORT_CHECK_IDS``.
        record: the parsed export; None where it can't be read. Believe it only if ``accepted``.
        bounded: for a period, by log: what the export shows, and what bounds it.
    """

    checks: tuple[Check, ...]
    record: ExportRecord | None
    bounded: Mapping[str, Bounded] = field(default_factory=dict)

    @property
    def owners_word(self) -> bool:
        """Whether what lies outside of a period is so on a log's owner's word alone."""
        return on_owners_word(self.bounded)

    @property
    def sound(self) -> bool:
        """Whether all but the bounds of its period hold."""
        return all(one.id == "period" for one in self.failures)


_NOTHING_OUTSIDE: Final = Outside()


def verify_bundle(data: bytes, trust: Trust, outside: Outside = _NOTHING_OUTSIDE) -> BundleVerdict:
    """Judge an audit export.

    Args:
        data: the bundle's bytes.
        trust: the pinned keys.
        outside: what is held beside the export, and whether a log's owner's word bounds a period.

    Returns:
        The verdict; this never raises for a bad bundle.
    """
    earlier: list[Earlier] = []
    for bundle in outside.previous:
        before = _judge(bundle, trust, outside, earlier)
        if before.record is not None and before.sound:
            earlier.append(Earlier(before.record.bundle.body.export_id, before.bounded))
    return _judge(data, trust, outside, earlier)


def _judge(data: bytes, trust: Trust, outside: Outside, earlier: Sequence[Earlier]) -> BundleVerdict:
    done: dict[str, Check] = {}
    record = _read(data, done)
    bounded: dict[str, Bounded] = {}
    if record is not None:
        credentials = [pem for chain in record.bundle.body.credentials.values() for pem in chain]
        try:
            believed = trust.with_credentials(credentials)
        except CloisterError as error:
            done["trust"], believed = failed("trust", error.message), trust
        for check_id, check in _CHECKS.items():
            if check_id not in done:
                done[check_id] = _run(check_id, check, record, believed)

        def bound(record: ExportRecord, trust: Trust) -> Check:
            bounded.update(bound_period(record, trust, outside, earlier))
            return check_period(record, bounded, outside)

        done["period"] = _run("period", bound, record, believed)
        if outside.now is not None and done["statement-order"].outcome is Outcome.PASSED:
            done["statement-order"] = _not_ahead(record, outside.now, done["statement-order"])
    listed = (done.get(one) or not_run(one, "the export can't be read this far") for one in EXPORT_CHECK_IDS)
    return BundleVerdict(tuple(listed), record, bounded)


def _not_ahead(record: ExportRecord, now: datetime, otherwise: Check) -> Check:
    if parse_time(record.bundle.body.exported_at) > now + CLOCK_TOLERANCE:
        return failed("statement-order", "the export is dated later than it is by the clock here")
    return otherwise


def check_custody_chain(bundles: Sequence[bytes]) -> Check:
    """Whether exports made from the same logs name the ones before them; a break is located.

    The exports themselves are judged one by one with :func:`verify_bundle`.

    Args:
        bundles: the exports, oldest first.

    Returns:
        The check ``custody-chain``; not run where there is nothing to compare: less than two exports, or one
        with no log in common with those before it.
    """
    if len(bundles) < 2:
        return not_run("custody-chain", "there is no chain of less than two exports")
    problems: list[str] = []
    strangers: list[str] = []
    newest: dict[str, tuple[str, str]] = {}
    compared = 0
    for number, bundle in enumerate(bundles):
        try:
            body = decode_bundle(bundle).body
        except CloisterError as error:
            return failed("custody-chain", error.message)
        if number and newest.keys().isdisjoint(body.logs):
            strangers.append(f"export {body.export_id} has no log in common with those before it")
        for origin, log in body.logs.items():
            before = newest.get(origin)
            newest[origin] = (body.export_id, sha256_hex(bundle))
            if before is None:
                continue
            compared += 1
            if log.previous != before[1]:
                problems.append(
                    f"{origin}: export {body.export_id} doesn't follow {before[0]}: one between is missing, "
                    "or one of them was replaced"
                )
    if strangers and not problems:
        return not_run("custody-chain", "; ".join(strangers[:3]))
    told = f"{len(bundles)} exports; each names the one before it, {compared} times by a log"
    return judged("custody-chain", [*problems, *strangers], told)


def verify_custody_chain(
    bundles: Sequence[bytes], trust: Trust, outside: Outside = _NOTHING_OUTSIDE
) -> Check:
    """Judge each export of a chain, and whether each names the one before.

    What bounds the periods of the earlier ones isn't asked here: each has a verdict of its own.

    Args:
        bundles: the exports, oldest first.
        trust: the pinned keys.
        outside: what is held beside them.

    Returns:
        The check ``custody-chain``.
    """
    for number, bundle in enumerate(bundles, start=1):
        verdict = _judge(bundle, trust, outside, ())
        if not verdict.sound:
            refused = next(one for one in verdict.failures if one.id != "period")
            return failed("custody-chain", f"export {number} is refused: {refused.id}: {refused.detail}")
    return check_custody_chain(bundles)


def _read(data: bytes, done: dict[str, Check]) -> ExportRecord | None:
    try:
        value = parse_canonical(data, max_bytes=MAX_BUNDLE_BYTES)
    except CloisterError as error:
        done["canonical-form"] = failed("canonical-form", error.message)
        return None
    done["canonical-form"] = passed("canonical-form", f"{len(data)} bytes, the only spelling")
    try:
        record = export_record(read_bundle(value, data))
    except CloisterError as error:
        done["schema"] = failed("schema", error.message)
        return None
    except Exception as error:  # whatever a bundle brings about, there is a verdict, and it refuses
        done["schema"] = failed("schema", f"reading it broke: {type(error).__name__}")
        return None
    done["schema"] = passed("schema", EXPORT_SCHEMA)
    return record


def _run(check_id: str, check: ExportCheck, record: ExportRecord, trust: Trust) -> Check:
    try:
        return check(record, trust)
    except CloisterError as error:
        return failed(check_id, error.message)
    except Exception as error:  # whatever a bundle brings about, there is a verdict, and it refuses
        return not_run(check_id, f"the check broke: {type(error).__name__}")
