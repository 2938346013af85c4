"""Federated jobs: what the parties agree to, the nodes that keep their side, and the engine between them.

`FederationJob` and the events are cheap to import; the rest loads NVFlare, torch and NumPy on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.federation.backends.base import Backend, FederationResult, RoundRecord
    from cloister.federation.backends.local import LocalBackend
    from cloister.federation.compile import JobFolder, compile_job
    from cloister.federation.errors import AdmissionError, FederationError, JobError, RefusalError
    from cloister.federation.events import (
        EventSink,
        FederationEvent,
        RoundFinished,
        RoundStarted,
        SiteAdmitted,
        SiteLeft,
        SiteRefused,
        SiteRoundFinished,
    )
    from cloister.federation.hub import HubRuntime, initial_weights
    from cloister.federation.job import (
        AggregationStrategy,
        FederationJob,
        ModelSpec,
        PrivacyConfig,
        TrainingConfig,
    )
    from cloister.federation.node import HubNode, SiteNode, Weights
    from cloister.federation.site import SiteRuntime
    from cloister.federation.site_plan import plan_round
    from cloister.federation.site_training import (
        os_randomness,
        sealed_training,
        seeded_test_randomness,
        training_in_this_process,
    )

_HOME = {
    "AdmissionError": "errors",
    "AggregationStrategy": "job",
    "Backend": "backends.base",
    "EventSink": "events",
    "FederationError": "errors",
    "FederationEvent": "events",
    "FederationJob": "job",
    "FederationResult": "backends.base",
    "HubNode": "node",
    "HubRuntime": "hub",
    "JobError": "errors",
    "JobFolder": "compile",
    "LocalBackend": "backends.local",
    "ModelSpec": "job",
    "PrivacyConfig": "job",
    "RefusalError": "errors",
    "RoundFinished": "events",
    "RoundRecord": "backends.base",
    "RoundStarted": "events",
    "SiteAdmitted": "events",
    "SiteLeft": "events",
    "SiteNode": "node",
    "SiteRefused": "events",
    "SiteRoundFinished": "events",
    "SiteRuntime": "site",
    "TrainingConfig": "job",
    "Weights": "node",
    "compile_job": "compile",
    "initial_weights": "hub",
    "os_randomness": "site_training",
    "plan_round": "site_plan",
    "sealed_training": "site_training",
    "seeded_test_randomness": "site_training",
    "training_in_this_process": "site_training",
}

__all__ = [
    "AdmissionError",
    "AggregationStrategy",
    "Backend",
    "EventSink",
    "FederationError",
    "FederationEvent",
    "FederationJob",
    "FederationResult",
    "HubNode",
    "HubRuntime",
    "JobError",
    "JobFolder",
    "LocalBackend",
    "ModelSpec",
    "PrivacyConfig",
    "RefusalError",
    "RoundFinished",
    "RoundRecord",
    "RoundStarted",
    "SiteAdmitted",
    "SiteLeft",
    "SiteNode",
    "SiteRefused",
    "SiteRoundFinished",
    "SiteRuntime",
    "TrainingConfig",
    "Weights",
    "compile_job",
    "initial_weights",
    "os_randomness",
    "plan_round",
    "sealed_training",
    "seeded_test_randomness",
    "training_in_this_process",
]

__getattr__ = on_first_use(__name__, _HOME)
