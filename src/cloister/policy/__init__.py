"""Manifests, requests and the decisions on them.

A hospital signs a :class:`ProtocolManifest`, a developer signs a :class:`TrainingRequest`, and
:func:`decide` says whether the one allows the other, with every reason if it doesn't.

Drafts, schemas and the receipt check are loaded on first use: the first two read YAML, which a verifier
does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use
from cloister.evidence.terms import MANIFEST_TYPE, REQUEST_TYPE
from cloister.policy.decision import Decision, DecisionFacts, Reason, decide
from cloister.policy.errors import PolicyError
from cloister.policy.job_decision import JobTerms, decide_job, job_terms
from cloister.policy.manifest import (
    OutputKind,
    PrimaryMetric,
    ProtocolManifest,
    UnwitnessedLog,
    decode_manifest,
    open_manifest,
    sign_manifest,
)
from cloister.policy.request import (
    TrainingRequest,
    decode_request,
    open_request,
    sign_request,
)

if TYPE_CHECKING:
    from cloister.policy.draft import (
        ManifestDraft,
        RequestDraft,
        load_manifest_draft,
        load_request_draft,
    )
    from cloister.policy.json_schemas import schemas
    from cloister.policy.receipt_check import POLICY_CHECK_ID, check_policy

_LAZY = {
    "ManifestDraft": "draft",
    "RequestDraft": "draft",
    "load_manifest_draft": "draft",
    "load_request_draft": "draft",
    "schemas": "json_schemas",
    "POLICY_CHECK_ID": "receipt_check",
    "check_policy": "receipt_check",
}

__all__ = [
    "MANIFEST_TYPE",
    "POLICY_CHECK_ID",
    "REQUEST_TYPE",
    "Decision",
    "DecisionFacts",
    "JobTerms",
    "ManifestDraft",
    "OutputKind",
    "PolicyError",
    "PrimaryMetric",
    "ProtocolManifest",
    "Reason",
    "RequestDraft",
    "TrainingRequest",
    "UnwitnessedLog",
    "check_policy",
    "decide",
    "decide_job",
    "decode_manifest",
    "decode_request",
    "job_terms",
    "load_manifest_draft",
    "load_request_draft",
    "open_manifest",
    "open_request",
    "schemas",
    "sign_manifest",
    "sign_request",
]

__getattr__ = on_first_use(__name__, _LAZY)
