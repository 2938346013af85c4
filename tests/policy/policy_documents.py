"""A hospital, a developer, and the documents they sign, as the tests of this room use them."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import cast

from cloister.core.canonical import JSON, canonicalize
from cloister.core.keys import EphemeralKeyStore
from cloister.policy import DecisionFacts, ProtocolManifest, TrainingRequest, decode_manifest, decode_request

KEYS = EphemeralKeyStore()
HOSPITAL = KEYS.generate("hospital")
DEVELOPER = KEYS.generate("developer")
STRANGER = KEYS.generate("stranger")

DATASET = "a" * 64
OTHER_DATASET = "b" * 64
BOUNDS = "d" * 64
TEST_SET = "e" * 64
SITE = "northgate"
NOW = datetime(2026, 11, 21, 14, tzinfo=UTC)

Document = dict[str, JSON]

MANIFEST: Document = {
    "document": "cloister.manifest/v1",
    "manifest_id": "0f2b1d52-6c3e-4d7a-9d52-0c8f6f1a2b3c",
    "version": "1.2.0",
    "hospital": {"id": SITE, "name": "Northgate Hospital", "public_key": HOSPITAL.public_key.pem},
    "purpose_limitation": {
        "allowed_purposes": ["diagnostic-research", "teaching"],
        "prohibited_uses": ["insurance-pricing", "marketing"],
        "data_retention_days": 0,
    },
    "dataset_scope": {
        "name": "tumour-registry",
        "contents": "test-data",
        "bounds_sha256": BOUNDS,
        "sha256": DATASET,
        "data_types": ["tabular"],
        "patient_criteria": ["Adults with a fine needle aspirate of a breast mass."],
        "temporal_range": {"start": "1989-01-01", "end": "1991-11-30"},
        "sample_size": 190,
    },
    "privacy_guardrails": {
        "unit": "record",
        "accounting": "adaptive",
        "cross_site_subjects": "linked",
        "epsilon_per_subject": 3,
        "subject_sites": 2,
        "epsilon_budget": 3,
        "delta_budget": 0.0001,
        "epsilon_hard_stop": 5,
        "minimum_group_size": 20,
        "suppression_threshold": 10,
        "allow_mock": False,
    },
    "success_metrics": {
        "primary_metric": "accuracy",
        "threshold": 0.85,
        "evaluation_method": {
            "kind": "named-test-set",
            "test_set": "wisconsin-holdout",
            "test_set_sha256": TEST_SET,
            "test_set_records": 169,
            "baseline": "best-constant",
        },
    },
    "output_constraints": {"allowed_outputs": ["model-weights"], "max_model_bytes": 1_000_000},
    "airlock": {"max_update_bytes": 1_000_000, "norm_bound": "from-clipping", "mantissa_bits": 12},
    "attestation": {"allow_simulated": True, "allowed_measurements": ["c" * 96]},
    "evidence_log": {"without_outside_checkpoint": "refuse"},
    "incentive_terms": {
        "base_credits": 100,
        "performance_multiplier": 2.5,
        "fund_destination": "public-health-fund",
    },
    "validity": {"not_before": "2026-01-01T00:00:00.000000Z", "not_after": "2028-01-01T00:00:00.000000Z"},
}

REQUEST: Document = {
    "document": "cloister.request/v1",
    "request_id": "5b8e3c1a-7f24-4e0b-8f6d-2a9c4d1e7b60",
    "ai_developer": {
        "id": "openlab",
        "name": "Open Diagnostics Lab",
        "public_key": DEVELOPER.public_key.pem,
    },
    "purpose": "diagnostic-research",
    "sites": [],
    "model_specification": {
        "architecture": "logistic-regression",
        "hyperparameters": {"bias": True, "width": 8, "slope": 0.5, "activation": "tanh"},
        "training_config": {"strategy": "FED_AVG", "rounds": 10, "local_steps": 5},
    },
    "privacy": {"epsilon": 1, "delta": 0.0001},
    "outputs": ["model-weights"],
    "compute_requirements": {"instance_type": "cpu", "max_training_minutes": 10, "memory_mib": 1024},
    "submission_timestamp": "2026-11-21T13:00:00.000000Z",
}

JOB: Document = {
    "job_id": "5b8e3c1a-7f24-4e0b-8f6d-2a9c4d1e7b61",
    "clients": [SITE],
    "min_clients": 1,
    "rounds": 10,
    "strategy": "FED_AVG",
    "model": {
        "architecture": "logistic-regression",
        "parameters": {"bias": True, "width": 8, "slope": 0.5, "activation": "tanh"},
    },
    "training": {"local_steps": 5, "sampling_probability": 0.1, "learning_rate": 0.5},
    "privacy": {
        "mechanism": "DP_SGD",
        "noise_multiplier": 1,
        "max_grad_norm": 1,
        "target_epsilon": 1,
        "delta": 0.0001,
    },
    "seed": 7,
}

Changes = dict[str, JSON]


def changed(document: Document, changes: Changes) -> Document:
    """Return a copy with the values at dotted paths replaced."""
    copied = copy.deepcopy(document)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = copied
        for parent in parents:
            place = cast(Document, place[parent])
        place[last] = value
    return copied


def without(document: Document, path: str) -> Document:
    """Return a copy without the field at a dotted path."""
    copied = copy.deepcopy(document)
    *parents, last = path.split(".")
    place = copied
    for parent in parents:
        place = cast(Document, place[parent])
    del place[last]
    return copied


def manifest(changes: Changes | None = None) -> ProtocolManifest:
    """Return the manifest with some fields changed."""
    return decode_manifest(canonicalize(changed(MANIFEST, changes or {})))


def request(
    changes: Changes | None = None, *, under: ProtocolManifest | None = None, site: Changes | None = None
) -> TrainingRequest:
    """Return the request for a manifest, with some fields of the request or of its one site changed."""
    pinned = under or manifest()
    asked: Document = {
        "site": SITE,
        "manifest_id": pinned.manifest_id,
        "manifest_version": pinned.version,
        "manifest_sha256": pinned.sha256,
        "dataset_sha256": DATASET,
    }
    return decode_request(
        canonicalize(changed(changed(REQUEST, {"sites": [changed(asked, site or {})]}), changes or {}))
    )


def facts(changes: Changes | None = None) -> DecisionFacts:
    """Return the facts at the hospital, some of them changed."""
    return DecisionFacts.model_validate(
        changed(
            {
                "site": SITE,
                "dataset_name": "tumour-registry",
                "bounds_sha256": BOUNDS,
                "dataset_sha256": DATASET,
                "records": 190,
                "test_set_sha256": TEST_SET,
                "test_set_records": 169,
                "decided_at": "2026-11-21T14:00:00.000000Z",
            },
            changes or {},
        )
    )


def facts_of(agreed: ProtocolManifest) -> DecisionFacts:
    """Return what a site knows where everything is as its manifest says."""
    scope, measured = agreed.dataset_scope, agreed.success_metrics.evaluation_method
    return facts(
        {
            "site": agreed.hospital.id,
            "dataset_name": scope.name,
            "bounds_sha256": scope.bounds_sha256,
            "dataset_sha256": scope.sha256,
            "records": scope.sample_size,
            "test_set_sha256": measured.test_set_sha256,
            "test_set_records": measured.test_set_records,
        }
    )
