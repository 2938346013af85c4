"""A quote and Intel's collateral, as the verifier sees them: what SGX and TDX have in common.

Rules kept here:

* A quote is authentic without collateral: chain, quoting enclave, key and signature hold. How current the
  platform is, whether the quoting enclave is Intel's and whether a certificate is revoked is then unknown;
  the claims say so, and the appraisal refuses it.
* Collateral that is out of date rates nothing. What its lists name as revoked stays revoked.
* Of several sets for a platform the newest that holds at the time counts. A set whose signer is named by the
  root's list in any set at hand rates nothing, however new it is.
* Lists were looked at only where a set for this platform holds; without one the step is not run, and the
  policy says whether that will do.
* Only what Intel calls UpToDate is acceptable, or a state that the policy names, for advisories that it names
  one by one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec

from cloister.enclave.attestation.authenticator import Ground
from cloister.enclave.attestation.checks import Finding, Steps
from cloister.enclave.attestation.claims import Claims, PlatformDetail, Revocation, TcbStatus
from cloister.enclave.attestation.collateral import CollateralDocument, CollateralKind
from cloister.enclave.attestation.evidence import Evidence, Tee, malformed_evidence
from cloister.enclave.attestation.intel.certificates import (
    PckChain,
    Platform,
    read_chain,
    verify_chain,
    verify_raw,
    verify_validity,
)
from cloister.enclave.attestation.intel.dcap import (
    DcapCollateral,
    names_as_revoked,
    revokes_signer_of,
    same_authority,
    sound_collateral,
)
from cloister.enclave.attestation.intel.eventlog import MeasuredEvent, verify_event_log
from cloister.enclave.attestation.intel.quote import Quote
from cloister.enclave.attestation.intel.reports import TdReport
from cloister.enclave.attestation.intel.tcb import (
    Rating,
    rate_platform,
    rate_quoting_enclave,
    rate_tdx_module,
    worst_of,
)
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.errors import AttestationError

QUOTE_STEPS = (
    "structure",
    "root",
    "chain",
    "validity",
    "quoting-enclave",
    "attestation-key",
    "signature",
    "revocation-lists",
    "quoting-enclave-identity",
)
DOMAIN_STEPS = ("tdx-module", "event-log")
QUOTE_FINDINGS = ("collateral", "collateral-age", "tcb-evaluation", "tcb-status")
EVENT_LOG = "ccel"
"""The name under which evidence carries a trust domain's event log."""

_EXTRAS = {Tee.INTEL_TDX: {EVENT_LOG}, Tee.INTEL_SGX: set[str]()}
_UNRATED = Rating(status=TcbStatus.UNKNOWN)


class Standing(StrEnum):
    """What collateral there was for a platform."""

    SOUND = "sound"
    OUT_OF_DATE = "out-of-date"
    UNSOUND = "unsound"
    REVOKED = "revoked"
    MISSING = "missing"


@dataclass(frozen=True)
class QuoteDetail(PlatformDetail):
    """A quote that Intel's root vouches for.

    Attributes:
        quote: its parts.
        quote_sha256: SHA-256 of its bytes, without what came after them.
        trailing_bytes: how many bytes came after it, which nobody signed.
        platform: what the PCK certificate says of the platform.
        pck_issuer: the authority that issued it.
        standing: what collateral there was.
        collateral: the set that was used, if one is for this platform.
        events: of the event log, if one came along; its replay gives the quote's registers.
    """

    quote: Quote
    quote_sha256: str
    trailing_bytes: int
    platform: Platform
    pck_issuer: str
    standing: Standing
    collateral: DcapCollateral | None
    events: tuple[MeasuredEvent, ...]


def authenticate_quote(evidence: Evidence, ground: Ground, steps: Steps) -> Claims:
    """See `Authenticator.authenticate`; the steps are `QUOTE_STEPS`, and `DOMAIN_STEPS` of a domain."""
    with steps.step("structure"):
        if evidence.chain or not evidence.extras.keys() <= _EXTRAS[evidence.tee]:
            raise malformed_evidence()
        quote = Quote.parse(evidence.report)
        if quote.tee is not evidence.tee:
            raise AttestationError(
                "attestation.malformed", "The quote is of another kind of hardware than the evidence says."
            )
        chain = read_chain(quote.certificates)
    trailing = len(evidence.report) - quote.length
    if trailing:
        steps.found(
            "structure",
            f"a quote of {quote.length} bytes; the {trailing} behind its end count for nothing",
        )
    with steps.step("root"):
        root = ground.pinned_root(chain.root_sha256, evidence.tee)
    with steps.step("chain"):
        verify_chain(chain)
    with steps.step("validity"):
        verify_validity(chain, ground.now)
    with steps.step("quoting-enclave"):
        if not verify_raw(chain.leaf.key, quote.qe_signature, quote.qe_report_signed):
            raise AttestationError(
                "attestation.signature", "The quoting enclave's report is not signed by the platform's key."
            )
    with steps.step("attestation-key"):
        key = _attestation_key(quote)
    with steps.step("signature"):
        if not verify_raw(key, quote.signature, quote.signed):
            raise AttestationError(
                "attestation.signature", "The quote is not signed by the quoting enclave's key."
            )
    found = _find(chain, quote, ground)
    steps.uses(found.used)
    with steps.step("revocation-lists", "no list at hand names a certificate"):
        if found.revoked:
            raise AttestationError("attestation.revoked", "A certificate was revoked by who issued it.")
    usable = found.chosen if found.standing is Standing.SOUND else None
    if usable is None:
        steps.skipped("revocation-lists", "no set for this platform whose lists hold; none at hand names it")
    rating = _rate(quote, chain.platform, usable, steps)
    events = _event_log(evidence, quote, steps)
    return Claims(
        tee=evidence.tee,
        registers=quote.body.registers(),
        sealed_in=quote.body.report_data,
        debug=quote.body.debug,
        simulated=root.simulated,
        revocation=Revocation.CHECKED if usable is not None else Revocation.UNKNOWN,
        detail=QuoteDetail(
            quote=quote,
            quote_sha256=hashlib.sha256(evidence.report[: quote.length]).hexdigest(),
            trailing_bytes=trailing,
            platform=chain.platform,
            pck_issuer=chain.authority.name,
            standing=found.standing,
            collateral=found.chosen,
            events=events,
        ),
        tcb_status=rating.status,
        advisories=rating.advisories,
        collateral=found.used,
        collateral_dates=found.chosen.dates if found.chosen is not None else (),
    )


def appraise_quote(claims: Claims, policy: AppraisalPolicy, ground: Ground) -> tuple[Finding, ...]:
    """See `Authenticator.appraise`; the findings are `QUOTE_FINDINGS`."""
    detail = claims.detail
    if not isinstance(detail, QuoteDetail):
        raise TypeError("claims of another kind of hardware")
    return (
        _collateral(detail),
        *_freshness(detail, policy, ground.collateral_now),
        _tcb_status(claims, policy),
    )


def _attestation_key(quote: Quote) -> ec.EllipticCurvePublicKey:
    bound = hashlib.sha256(quote.attestation_key + quote.auth_data).digest().ljust(64, b"\0")
    if quote.qe_report.report_data != bound:
        raise AttestationError(
            "attestation.qe_binding", "The quoting enclave did not vouch for the key that signed the quote."
        )
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.attestation_key)
    except ValueError:
        raise AttestationError("attestation.alg", "The attestation key is no point of P-256.") from None


def _event_log(evidence: Evidence, quote: Quote, steps: Steps) -> tuple[MeasuredEvent, ...]:
    log = evidence.extras.get(EVENT_LOG)
    if log is None or not isinstance(quote.body, TdReport):
        steps.skipped("event-log", "no event log came along, and none is needed")
        return ()
    with steps.step("event-log", "its replay gives the quote's registers"):
        return verify_event_log(log, quote.body.rtmrs)


@dataclass(frozen=True)
class _Found:
    """The collateral at hand: the set for this platform, how it stands, and whether any set revokes."""

    standing: Standing
    chosen: DcapCollateral | None
    used: tuple[CollateralDocument, ...]
    revoked: bool


def _find(chain: PckChain, quote: Quote, ground: Ground) -> _Found:
    documents = ground.collateral.of(CollateralKind.INTEL_DCAP)
    read = [(one, sound_collateral(one.data)) for one in documents]
    revoking = tuple(document for document, one in read if one is not None and names_as_revoked(one, chain))
    sets = [(document, one) for document, one in read if one is not None]
    fitting = [
        (document, one)
        for document, one in sets
        if one.tee is quote.tee
        and one.root_sha256 == chain.root_sha256
        and one.tcb_info.fmspc == chain.platform.fmspc
        and one.tcb_info.pceid == chain.platform.pceid
        and same_authority(one.pck_authority, chain.authority)
    ]
    signed = [pair for pair in fitting if not any(revokes_signer_of(one, pair[1]) for _, one in sets)]
    holding = [pair for pair in signed if pair[1].holds_at(ground.collateral_now)]
    if fitting:
        standing = Standing.SOUND if holding else Standing.OUT_OF_DATE if signed else Standing.REVOKED
        document, chosen = max(holding or signed or fitting, key=lambda pair: pair[1].age_rank)
        against = tuple(other for other, one in sets if revokes_signer_of(one, chosen))
        used = tuple(dict.fromkeys((document, *against, *revoking)))
        return _Found(standing, chosen, used, bool(revoking))
    unsound = tuple(document for document, one in read if one is None)
    standing = Standing.UNSOUND if unsound else Standing.MISSING
    return _Found(standing, None, (*unsound[:1], *revoking), bool(revoking))


def _rate(quote: Quote, platform: Platform, usable: DcapCollateral | None, steps: Steps) -> Rating:
    """Rate what runs beneath the quote; unknown without collateral, or where no level fits."""
    body = quote.body
    domain = body if isinstance(body, TdReport) else None
    if usable is None:
        for name in ("quoting-enclave-identity", "tdx-module"):
            steps.skipped(name, "no collateral that holds")
        return _UNRATED
    with steps.step("quoting-enclave-identity"):
        ratings = [rate_quoting_enclave(usable.qe_identity, quote.qe_report)]
    if domain is not None:
        with steps.step("tdx-module"):
            ratings.append(rate_tdx_module(usable.tcb_info, domain))
    level = rate_platform(usable.tcb_info, platform, domain.tee_tcb_svn if domain is not None else None)
    return _UNRATED if level is None else worst_of([level, *ratings])


def _collateral(detail: QuoteDetail) -> Finding:
    codes = {
        Standing.SOUND: "attestation.collateral",
        Standing.UNSOUND: "attestation.collateral",
        Standing.REVOKED: "attestation.revoked",
        Standing.OUT_OF_DATE: "attestation.collateral_expired",
        Standing.MISSING: "attestation.collateral_missing",
    }
    what = {
        Standing.UNSOUND: "what is at hand is not what its issuer signed",
        Standing.MISSING: "none at hand for this platform",
    }
    chosen = detail.collateral
    text = what.get(detail.standing, "")
    if detail.standing is Standing.REVOKED:
        text = "who signed it was revoked by the root"
    elif chosen is not None:
        text = (
            f"evaluation {chosen.evaluation}, holds from {chosen.valid_from:%Y-%m-%dT%H:%M:%SZ}"
            f" to {chosen.valid_until:%Y-%m-%dT%H:%M:%SZ}"
        )
    return Finding("collateral", codes[detail.standing], detail.standing is Standing.SOUND, text)


def _freshness(detail: QuoteDetail, policy: AppraisalPolicy, now: datetime) -> tuple[Finding, Finding]:
    chosen, days, least = detail.collateral, policy.maximum_collateral_age_days, policy.minimum_tcb_evaluation
    young = days is None or (chosen is not None and now - chosen.issued_at <= timedelta(days=days))
    late = least is None or (chosen is not None and chosen.evaluation >= least)
    return (
        Finding(
            "collateral-age",
            "attestation.collateral_expired",
            young,
            f"maximum_collateral_age_days {'not asked for' if days is None else days}",
        ),
        Finding(
            "tcb-evaluation",
            "attestation.collateral_expired",
            late,
            f"minimum_tcb_evaluation {'not asked for' if least is None else least}",
        ),
    )


def _tcb_status(claims: Claims, policy: AppraisalPolicy) -> Finding:
    status = claims.tcb_status
    unnamed = [one for one in claims.advisories if one not in policy.accepted_advisories]
    excused = status.value in policy.accepted_tcb_statuses and bool(claims.advisories) and not unnamed
    text = "below every level that Intel lists, or not rated" if status is TcbStatus.UNKNOWN else status.value
    if claims.advisories:
        text += f" ({', '.join(claims.advisories)})"
    if status is not TcbStatus.UP_TO_DATE:
        text += f"; accepted_tcb_statuses: {', '.join(policy.accepted_tcb_statuses) or 'none'}"
        text += f"; not in accepted_advisories: {', '.join(unnamed)}" if unnamed else ""
    return Finding(
        "tcb-status",
        "attestation.tcb_unacceptable",
        status is TcbStatus.UP_TO_DATE or excused,
        text,
    )
