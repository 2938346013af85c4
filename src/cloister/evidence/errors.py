"""Every error the evidence room raises, with its stable code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cloister.core.errors import CloisterError


class EvidenceError(CloisterError):
    """A statement, log, receipt or trust directory is not what it has to be."""

    exit_code: ClassVar[int] = 1
    CODES: ClassVar[Mapping[str, str]] = {
        "evidence.tree_invalid": "The stored Merkle tree doesn't fit its stored head.",
        "evidence.out_of_range": "The log has no such entry or size.",
        "evidence.proof_invalid": "An inclusion or consistency proof doesn't hold.",
        "evidence.envelope_malformed": "An envelope is not a canonical DSSE envelope.",
        "evidence.envelope_unsigned": "An envelope carries no signature of the expected key.",
        "evidence.statement_malformed": "A statement is not a canonical in-toto Statement v1.",
        "evidence.statement_unknown": "A statement's type or version is not known here.",
        "evidence.statement_missing": "A receipt can't be issued because required statements are missing.",
        "evidence.statement_refused": "A writer was asked for a statement that its party may not make.",
        "evidence.checkpoint_malformed": "A checkpoint is not a canonical signed note.",
        "evidence.checkpoint_unsigned": "A checkpoint carries no signature of the log's key.",
        "evidence.log_inconsistent": "A log shows a past that contradicts a checkpoint held of it.",
        "evidence.cosignature_missing": "A checkpoint carries no valid cosignature of the witness.",
        "evidence.witness_refused": "A witness doesn't follow this log, or can't sign this checkpoint.",
        "evidence.witness_stale": "A proof doesn't begin at the size that the witness holds of the log.",
        "evidence.job_closed": "The party has closed this job and may add nothing to it.",
        "evidence.receipt_refused": "A receipt can't be issued over what the statements say.",
        "evidence.receipt_malformed": "A receipt is not canonical or not of the known schema.",
        "evidence.tiles_invalid": "A directory of tiles doesn't lead to its checkpoint.",
        "evidence.timestamp_invalid": "A timestamp is not a time-stamping authority's word on this receipt.",
        "evidence.model_malformed": "A model file is not a strict safetensors file of float tensors.",
        "evidence.export_malformed": "An audit export is not canonical or not of the known schema.",
        "evidence.export_unverified": "An audit export doesn't verify, so nothing may be reported from it.",
        "evidence.mapping_malformed": "The mapping from statements to a regulation's clauses is not sound.",
    }


class LogError(EvidenceError):
    """A log can't be used as it is, or can't take what it was given."""

    exit_code: ClassVar[int] = 5
    CODES: ClassVar[Mapping[str, str]] = {
        "evidence.log_missing": "There is no log at this path.",
        "evidence.log_exists": "There is already a log at this path.",
        "evidence.log_mismatch": "A log's entries, tree and signed head don't agree, or it is another log.",
        "evidence.log_rolled_back": "A log is older than a checkpoint of it that somebody else holds.",
        "evidence.entry_too_large": "An entry is larger than a log takes.",
        "evidence.log_closed": "A log was closed and takes no more entries.",
        "evidence.log_unwitnessed": "Nothing held off this machine shows whether a log is its newest copy.",
    }


class TrustError(EvidenceError):
    """The keys that somebody wants to verify with can't be used."""

    exit_code: ClassVar[int] = 2
    CODES: ClassVar[Mapping[str, str]] = {
        "evidence.trust_malformed": "A trust directory can't be read as roles and keys.",
        "evidence.trust_conflict": "One key appears twice in a trust directory.",
        "evidence.trust_unknown": "The trust directory names no such party in this role.",
    }


class CertificateError(TrustError):
    """A certificate or revocation list doesn't make a key one that may be believed."""

    exit_code: ClassVar[int] = 1
    CODES: ClassVar[Mapping[str, str]] = {
        "evidence.certificate_malformed": "A certificate or chain is not strict DER in PEM.",
        "evidence.certificate_untrusted": "A chain doesn't lead to a root that is pinned for the role.",
        "evidence.certificate_signature": "A certificate is not signed by the next of its chain.",
        "evidence.certificate_expired": "A certificate's validity has ended.",
        "evidence.certificate_not_yet_valid": "A certificate's validity has not begun.",
        "evidence.certificate_revoked": "A certificate was revoked by its issuer.",
        "evidence.certificate_role": "A certificate is for another role or party than was asked or allowed.",
        "evidence.certificate_extension": "A certificate has a critical extension that is not known here.",
        "evidence.certificate_usage": "A certificate's key is not for this use: signing, or issuing.",
        "evidence.crl_malformed": "A revocation list is not strict DER of the known kind.",
        "evidence.crl_untrusted": "A revocation list is not signed by the authority it names.",
        "evidence.crl_expired": "A revocation list is older than it says it may be used, or not yet valid.",
        "evidence.crl_missing": "Revocation lists are held, but none of an authority in the chain.",
        "evidence.pki_refused": "An authority was asked for a certificate that it may not issue.",
    }


class DemandError(EvidenceError):
    """A verifying party demands something that has no meaning for the artifact at hand."""

    exit_code: ClassVar[int] = 2
    CODES: ClassVar[Mapping[str, str]] = {
        "evidence.demand_foreign": "A verifier was asked for what this kind of artifact doesn't have.",
    }


class AuditError(EvidenceError):
    """An export or a report can't be made of what was asked for."""

    exit_code: ClassVar[int] = 2
    CODES: ClassVar[Mapping[str, str]] = {
        "evidence.export_refused": "An audit export can't be made of what was asked for.",
    }


class SegmentError(EvidenceError):
    """A segment of a local audit stream, or what is needed to write or read one, is not what it has to be."""

    exit_code: ClassVar[int] = 1
    CODES: ClassVar[Mapping[str, str]] = {
        "evidence.segment_malformed": "A line or a checkpoint is not one that a segment's writer makes.",
        "evidence.segment_broken": "A segment doesn't verify, so nothing of it may be read.",
        "evidence.segment_secrets": "A segment's secrets can't be opened with the keys at hand.",
        "evidence.segment_closed": "The writer was closed, and takes nothing more.",
        "evidence.segment_unsent": "A segment's checkpoint could not be handed outside the process.",
        "evidence.segment_lost": "An entry was not made durable, because writing its segment failed.",
    }
