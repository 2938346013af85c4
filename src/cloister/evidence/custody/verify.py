"""Judging audit exports: from a bundle's bytes and pinned keys to a verdict, without network or database.

Rules kept here:

1. Pure: what isn't in the bundle or pinned isn't looked up. There is always a verdict.
2. Every check is made; one that breaks or can't be made counts as not run, hence as failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from cloister.core.canonical import parse_canonical
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.evidence.checks import Check, Outcome, failed, judged, not_run, passed
from cloister.evidence.custody.bundle import EXPORT_SCHEMA, MAX_BUNDLE_BYTES, decode_bundle, read_bundle
from cloister.evidence.custody.completeness import (
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
class BundleVerdict:
    """What the verifier found.

    Attributes:
        checks: every check, in the order of ``EXPORT_CHECK_IDS``.
        record: the parsed export; None where it can't be read. Believe it only if ``accepted``.
    """

    checks: tuple[Check, ...]
    record: ExportRecord | None

    @property
    def accepted(self) -> bool:
        """Whether every check passed."""
        return all(one.outcome is Outcome.PASSED for one in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed or were not run."""
        return tuple(one for one in self.checks if one.outcome is not Outcome.PASSED)


def verify_bundle(data: bytes, trust: Trust) -> BundleVerdict:
    """Judge an audit export.

    Args:
        data: the bundle's bytes.
        trust: the pinned keys.

    Returns:
        The verdict; this never raises for a bad bundle.
    """
    done: dict[str, Check] = {}
    record = _read(data, done)
    if record is not None:
        credentials = [pem for chain in record.bundle.body.credentials.values() for pem in chain]
        try:
            believed = trust.with_credentials(credentials)
        except CloisterError as error:
            done["trust"], believed = failed("trust", error.message), trust
        for check_id, check in _CHECKS.items():
            if check_id not in done:
                done[check_id] = _run(check_id, check, record, believed)
    listed = (done.get(one) or not_run(one, "the export can't be read this far") for one in EXPORT_CHECK_IDS)
    return BundleVerdict(tuple(listed), record)


def check_custody_chain(bundles: Sequence[bytes]) -> Check:
    """Whether exports made from the same logs name the ones before them; a break is located.

    The exports themselves are judged one by one with :func:`verify_bundle`.

    Args:
        bundles: the exports, oldest first.

    Returns:
        The check ``custody-chain``.
    """
    problems: list[str] = []
    newest: dict[str, tuple[str, str]] = {}
    for bundle in bundles:
        try:
            body = decode_bundle(bundle).body
        except CloisterError as error:
            return failed("custody-chain", error.message)
        for origin, log in body.logs.items():
            named = None if log.previous is None else log.previous.sha256
            before, sha256 = newest.get(origin, ("", named))
            if named != sha256:
                problems.append(
                    f"{origin}: export {body.export_id} doesn't follow {before}: one between is missing, "
                    "or one of them was replaced"
                )
            newest[origin] = (body.export_id, sha256_hex(bundle))
    return judged("custody-chain", problems, f"{len(bundles)} exports, each naming the one before it")


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
