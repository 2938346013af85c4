"""Real parties for tests: keys, logs, ledgers, simulated machines and small made-up tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from cloister.core.clock import Clock
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.enclave.attestation import (
    AppraisalPolicy,
    NonceBook,
    Platforms,
    SimulatedVendor,
    TrustStore,
    Verifier,
)
from cloister.evidence import (
    EvidenceLog,
    Role,
    Statement,
    StatementWriter,
    log_origin,
    open_statement,
    sign_envelope,
)
from cloister.evidence.predicates import CheckpointHeld
from cloister.evidence.witness.book import CheckpointBook
from cloister.federation import (
    FederationJob,
    FederationResult,
    HubRuntime,
    JobFolder,
    LocalBackend,
    SiteRuntime,
    compile_job,
    initial_weights,
    seeded_test_randomness,
    training_in_this_process,
)
from cloister.federation.events import EventSink, ignore_events
from cloister.federation.exchange import HubLogs, SiteLogs
from cloister.federation.node import RoundTask, Weights
from cloister.federation.site_airlock import OutputTerms
from cloister.federation.site_training import RandomnessFor
from cloister.health import SiteData
from cloister.policy.draft import USUAL_AIRLOCK
from cloister.policy.manifest import AirlockTerms
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.ledger import BudgetLedger
from cloister.privacy.models import build_model, load_arrays

Made = TypeVar("Made")

MEASUREMENT = bytes(range(48))
RECORDS = {"north": 120, "south": 80, "west": 60}
FEATURES, CLASSES = 4, 2
DELTA = 1e-4
DATASET = "wards"


def table(site: str) -> SiteData:
    """Two noisy blobs, one per class."""
    random = np.random.default_rng(RECORDS[site])
    labels = random.integers(0, 2, RECORDS[site]).astype(np.int64)
    features = random.normal(size=(RECORDS[site], FEATURES)) * 0.3 + (2 * labels[:, None] - 1) * 0.4
    features = np.clip(features, -1, 1)
    return SiteData(
        name=site,
        raw=features,
        features=features.astype(np.float32),
        labels=labels,
        feature_names=tuple(f"f{i}" for i in range(FEATURES)),
        dataset_sha256=sha256_hex(features.tobytes()),
    )


def accuracy(job: FederationJob, weights: Weights) -> dict[str, float]:
    parameters = job.model.model_dump(mode="json")["parameters"]
    model = build_model(job.model.architecture, FEATURES, CLASSES, 0, parameters)
    load_arrays(model, weights)  # type: ignore[arg-type]
    with torch.no_grad():
        guess = model(torch.from_numpy(table("north").features)).argmax(1).numpy()
    return {"accuracy": float((guess == table("north").labels).mean())}


class OnDemand(dict[str, Made]):
    """A dictionary that makes what is asked for."""

    def __init__(self, make: Callable[[str], Made]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Made:
        self[name] = self._make(name)
        return self[name]


@dataclass
class Federation:
    """A hub and its sites in one directory."""

    job: FederationJob
    directory: Path
    clock: Clock
    seed: int | None = 5
    limits: Mapping[str, Sequence[Limit]] = field(default_factory=dict)
    measurements: Mapping[str, bytes] = field(default_factory=dict)
    airlock: AirlockTerms = USUAL_AIRLOCK

    def __post_init__(self) -> None:
        keys = EphemeralKeyStore()
        self.vendor = SimulatedVendor.create(self.clock)
        self.signers: dict[str, Signer] = {name: keys.generate(name) for name in ("hub", *self.job.clients)}
        self.logs: dict[str, EvidenceLog] = OnDemand(self._log)
        self.writers: dict[str, StatementWriter] = OnDemand(self._writer)
        self.ledgers: dict[str, BudgetLedger] = OnDemand(self.ledger)

    def _log(self, name: str) -> EvidenceLog:
        origin = log_origin(Role.HUB if name == "hub" else Role.SITE, name)
        return EvidenceLog.create(self.directory / f"{name}.log", origin=origin, signer=self.signers[name])

    def _writer(self, name: str) -> StatementWriter:
        return StatementWriter(self.logs[name], self.signers[name], name, self.job.job_id, self.clock)

    def ledger(self, site: str) -> BudgetLedger:
        path = self.directory / f"{site}.ledger"
        if path.exists():
            return BudgetLedger.open(path, DATASET, clock=self.clock)
        return BudgetLedger.create(path, DATASET, DELTA, clock=self.clock)

    def randomness(self, site: str) -> RandomnessFor:
        assert self.seed is not None
        return seeded_test_randomness(self.seed, site)

    def site(self, name: str) -> SiteRuntime:
        """A site that has seen its job's folder."""
        site = self.newcomer(name)
        site.accept_folder(compile_job(self.job))
        return site

    def newcomer(self, name: str) -> SiteRuntime:
        """A site that no back end has shown anything."""
        return SiteRuntime(
            self.job,
            table(name),
            CLASSES,
            ledger=self.ledgers[name],
            statements=self.writers[name],
            logs=self.site_logs(name),
            site_key_id=self.signers[name].public_key.key_id,
            platform=self.vendor.platform(name, self.measurements.get(name, MEASUREMENT)),
            trainer=training_in_this_process(self.randomness(name)),
            limits=self.limits.get(name, [Limit("manifest", 4.0, Scope.DATASET)]),
            outputs=OutputTerms(sha256_hex(b"manifest of " + name.encode()), self.airlock),
        )

    def site_logs(self, name: str) -> SiteLogs:
        hub = self.logs["hub"]
        return SiteLogs(
            self.logs[name], self.writers[name], self.site_book(name), hub.origin, [hub.public_key]
        )

    def site_book(self, name: str) -> CheckpointBook:
        return CheckpointBook(self.directory / f"{name}.held")

    def hub_book(self) -> CheckpointBook:
        return CheckpointBook(self.directory / "hub.held")

    def hub_logs(self) -> HubLogs:
        keys = {name: [self.signers[name].public_key] for name in self.job.clients}
        return HubLogs(self.logs["hub"], self.writers["hub"], self.hub_book(), keys)

    def hub(self) -> HubRuntime:
        return HubRuntime(
            self.job,
            initial_weights(self.job, FEATURES, CLASSES),
            statements=self.writers["hub"],
            verifier=Verifier(TrustStore.simulated(self.vendor.root_der), self.clock, self.vendor.collateral),
            nonces=NonceBook(self.clock),
            policy=AppraisalPolicy(
                measurements=(MEASUREMENT.hex(),),
                platforms=Platforms.HARDWARE_OR_SIMULATED,
            ),
            site_key_ids={name: signer.public_key.key_id for name, signer in self.signers.items()},
            records=RECORDS,
            logs=self.hub_logs(),
            evaluate=lambda weights: accuracy(self.job, weights),
        )

    def run(self, on_event: EventSink = ignore_events, folder: JobFolder | None = None) -> FederationResult:
        sites = {name: self.newcomer(name) for name in self.job.clients}
        compiled = folder or compile_job(self.job)
        return LocalBackend(self.directory).run(self.job, compiled, self.hub(), sites, on_event)

    def statements(self, party: str) -> list[Statement]:
        entries = self.logs[party].extract(self.job.job_id).entries
        return [open_statement(entry.envelope) for entry in entries]

    def acts(self, party: str) -> list[Statement]:
        """Its statements but those about other parties' logs."""
        return [one for one in self.statements(party) if not isinstance(one.predicate, CheckpointHeld)]

    def task(self, number: int, weights: Weights, site: str = "north", rounds: int = 0) -> RoundTask:
        """A round's task with what the hub shows that site of its log."""
        log = self.logs["hub"]
        entry = sign_envelope("text/plain", f"{log.size}".encode(), self.signers["hub"])
        log.append(entry, stream="elsewhere", position=log.size)
        shown = self.hub_logs()
        shown.site_has_seen(site, self.site_logs(site).hub_size())
        copies = {name: value.copy() for name, value in weights.items()}
        return RoundTask(number, rounds or self.job.rounds, copies, shown.show([site]))

    def close(self) -> None:
        for ledger in self.ledgers.values():
            ledger.close()
        for log in self.logs.values():
            log.close()
