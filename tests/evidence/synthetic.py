"""A whole small job with real keys, real logs and a real receipt, and a hub that can lie about it.

Sites write their logs honestly and keep their keys. The hub writes its own log and composes the receipt; a
test may let it lie in both, since it holds the hub's key.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from unittest.mock import patch

from cloister.core.canonical import JSON, b64encode, canonicalize, parse
from cloister.core.clock import Clock
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence import (
    EvidenceLog,
    LogExtract,
    Predicate,
    Role,
    StatementWriter,
    Subject,
    Trust,
    TrustEntry,
    log_origin,
    sign_envelope,
)
from cloister.evidence.airlock_policy import constraints_of, policy_sha256
from cloister.evidence.change_limit import Descent, change_limit
from cloister.evidence.checkpoint import sign_checkpoint
from cloister.evidence.checks import Check, CheckRegistry, passed
from cloister.evidence.context import ReceiptContext, model_artifact
from cloister.evidence.envelope import Envelope
from cloister.evidence.predicates import (
    OS_ENTROPY,
    RELEASE_CONSTRAINTS,
    AttestationVerdict,
    BudgetSpend,
    CheckpointHeld,
    DataCommitment,
    Destruction,
    Evaluation,
    HeldCheckpoint,
    HubEnding,
    JobClosed,
    JobOpened,
    KeyRelease,
    ManifestAccepted,
    Release,
    RequestDecided,
    RoundAggregated,
    UpdateReleased,
    Violation,
    WorkerSealed,
)
from cloister.evidence.predicates.custody import WORKER_LOOKS
from cloister.evidence.predicates.log import to_be_held
from cloister.evidence.receipt import ModelFile, compose_receipt, signed_bytes
from cloister.evidence.scoring import improvement_score
from cloister.evidence.statement import open_statement
from cloister.evidence.terms import MANIFEST_TYPE, REQUEST_TYPE
from cloister.evidence.transcript import SampledGaussian, event_to_json
from cloister.evidence.verifier import TestRandomness, Verdict, VerificationPolicy, Verifier
from cloister.evidence.weights import TensorForm, model_file_weights
from cloister.evidence.witness.links import ConsistencyLink, consistency_links

HUB = "hub-one"
JOB_ID = "11111111-2222-4333-8444-555555555555"
OTHER_JOB_ID = "99999999-2222-4333-8444-555555555555"
RECEIPT_ID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"


def model_file(*values: float) -> bytes:
    """A model file with one tensor, written without the library that the product uses."""
    header = f'{{"weight":{{"dtype":"F32","shape":[{len(values)}],"data_offsets":[0,{4 * len(values)}]}}}}'
    return len(header).to_bytes(8, "little") + header.encode() + struct.pack(f"<{len(values)}f", *values)


MODEL = model_file(0.5, -1.25, 3.0)
RECORDS, ACCURACY, BASELINE = 171, 159 / 171, 107 / 171
START = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)

Fields = dict[str, object]
Step = tuple[type[Predicate], Fields]
Lie = Callable[[list[Step]], None]


def digest(text: str) -> Sha256:
    """A hash that stands for a thing by its name."""
    return sha256_hex(text.encode())


def ticking() -> Clock:
    """A clock that moves one second each time it is asked."""
    moments = iter(START + timedelta(seconds=second) for second in range(10**6))
    return lambda: next(moments)


def plugged() -> CheckRegistry:
    """A registry in which the rooms above are content with everything."""

    def content(name: str) -> Callable[[ReceiptContext], Check]:
        return lambda _: passed(name, "re-run")

    registry = CheckRegistry()
    for name in ("policy", "attestation"):
        registry.register(name, content(name))
    return registry


@dataclass
class SyntheticJob:
    """The job: who takes part, under which documents, and what each party logs."""

    folder: Path
    sites: tuple[str, ...] = ("north", "south")
    rounds: int = 2
    noise_generator: str = OS_ENTROPY
    noise_multiplier: float = 8.0
    calibrated: bool = False
    batch_size: int | None = None
    airlock: Mapping[str, JSON] = field(default_factory=dict)
    contents: str = "test-data"
    bits_cap: int | None = None
    job_id: str = JOB_ID
    keys: Mapping[str, Signer] = field(default_factory=dict)
    extracts: dict[str, LogExtract] = field(default_factory=dict)
    proofs: dict[tuple[str, int, bytes], tuple[bytes, ...]] = field(default_factory=dict)

    def weights(self, number: int) -> Sha256:
        """Hash of the global weights after so many rounds; the last ones are those in the model file."""
        return model_file_weights(MODEL).sha256 if number == self.rounds else digest(f"model {number}")

    def records(self, site: str) -> int:
        """How many records a site trains on."""
        return 100 + 50 * self.sites.index(site)

    def __post_init__(self) -> None:
        if not self.keys:
            names = [
                "hub",
                "developer",
                *(f"{kind}-{one}" for kind in ("site", "hospital") for one in self.sites),
            ]
            store = EphemeralKeyStore()
            self.keys = {name: store.generate(name) for name in names}

    @property
    def pinned(self) -> list[tuple[Role, str, str]]:
        """Whose keys a verifying party pinned: role, party, and the key's name here."""
        entries = [(Role.HUB, HUB, "hub"), (Role.DEVELOPER, "lab", "developer")]
        entries += [(Role.SITE, one, f"site-{one}") for one in self.sites]
        entries += [(Role.HOSPITAL, one, f"hospital-{one}") for one in self.sites]
        return entries

    @property
    def trust(self) -> Trust:
        """What a verifying party pinned."""
        return Trust(
            TrustEntry(role, party, self.keys[key].public_key.pem.encode())
            for role, party, key in self.pinned
        )

    @property
    def job(self) -> dict[str, JSON]:
        """The job every site consents to."""
        return {
            "job_id": self.job_id,
            "clients": list(self.sites),
            "min_clients": 2,
            "rounds": self.rounds,
            "strategy": "FED_AVG",
            "privacy": {
                "mechanism": "DP_SGD",
                "noise_multiplier": None if self.calibrated else self.noise_multiplier,
                "target_epsilon": 3.0,
                "delta": 1e-5,
                "max_grad_norm": 1.0,
            },
            "training": {
                "sampling_probability": 0.1 if self.batch_size is None else None,
                "batch_size": self.batch_size,
                "local_steps": 5,
                "learning_rate": 0.5,
            },
            "seed": 7,
        }

    def manifest(self, site: str, **guardrails: JSON) -> Envelope:
        """The signed manifest of a site's hospital."""
        document: dict[str, JSON] = {
            "manifest_id": f"{self.sites.index(site):08d}-2222-4333-8444-555555555555",
            "version": "1.0.0",
            "hospital": {
                "id": site,
                "name": f"Hospital {site}",
                "public_key": self.keys[f"hospital-{site}"].public_key.pem,
            },
            "dataset_scope": {
                "name": "tumours",
                "contents": self.contents,
                "sha256": digest(f"data {site}"),
                "bounds_sha256": digest("bounds"),
            },
            "privacy_guardrails": {
                "unit": "record",
                "accounting": "adaptive",
                "cross_site_subjects": "linked",
                "epsilon_per_subject": 4.0,
                "subject_sites": 2,
                "epsilon_budget": 4.0,
                "delta_budget": 1e-5,
                "epsilon_hard_stop": 5.0,
                "minimum_group_size": 20,
                **guardrails,
            },
            "success_metrics": {
                "primary_metric": "accuracy",
                "threshold": 0.8,
                "evaluation_method": {
                    "test_set": "holdout",
                    "test_set_sha256": digest("holdout"),
                    "test_set_records": RECORDS,
                },
            },
            "output_constraints": {
                "allowed_outputs": ["model-weights", "dp-scalars", "single-class-flag"],
                "max_model_bytes": 10_000,
            },
            "airlock": {
                "max_update_bytes": 100,
                "norm_bound": "from-clipping",
                "mantissa_bits": 12,
                **self.airlock,
            },
            "attestation": {"allow_simulated": True, "allowed_measurements": ["ab" * 48]},
            "validity": {
                "not_before": "2026-01-01T00:00:00.000000Z",
                "not_after": "2027-01-01T00:00:00.000000Z",
            },
        }
        return sign_envelope(MANIFEST_TYPE, canonicalize(document), self.keys[f"hospital-{site}"])

    @property
    def request(self) -> Envelope:
        """The developer's signed request."""
        document: dict[str, JSON] = {
            "request_id": "77777777-2222-4333-8444-555555555555",
            "ai_developer": {"id": "lab", "public_key": self.keys["developer"].public_key.pem},
            "purpose": "tumour-classification",
            "privacy": {"epsilon": 3.0, "delta": 1e-5},
            "sites": [
                {
                    "site": site,
                    "manifest_sha256": self.manifest(site).payload_sha256,
                    "dataset_sha256": digest(f"data {site}"),
                }
                for site in self.sites
            ],
        }
        return sign_envelope(REQUEST_TYPE, canonicalize(document), self.keys["developer"])

    @property
    def job_sha256(self) -> Sha256:
        """Hash of the job."""
        return sha256_hex(canonicalize(self.job))

    @property
    def never_shown(self) -> HeldCheckpoint:
        """Where a site isn't shown the hub's log: a head that this log never had."""
        return to_be_held(sign_checkpoint(log_origin(Role.HUB, HUB), 1, bytes(32), self.keys["hub"]))

    def site_steps(self, site: str) -> list[Step]:
        """What an honest site states; a `Seat` names the hub's log as it was shown."""
        manifest, request, data = self.manifest(site), self.request, digest(f"data {site}")
        manifest_id = f"{self.sites.index(site):08d}-2222-4333-8444-555555555555"
        event = event_to_json(SampledGaussian(0.1, self.noise_multiplier, 5))
        steps: list[Step] = [
            (
                ManifestAccepted,
                {
                    "manifest_sha256": manifest.payload_sha256,
                    "hospital_id": site,
                    "manifest_id": manifest_id,
                    "version": "1.0.0",
                    "epsilon_budget": 4.0,
                    "delta_budget": 1e-5,
                },
            ),
            (
                RequestDecided,
                {
                    "request_sha256": request.payload_sha256,
                    "manifest_sha256": manifest.payload_sha256,
                    "job_sha256": self.job_sha256,
                    "approved": True,
                    "reasons": [],
                    "facts": {"dataset_sha256": data, "records": 100},
                },
            ),
            (
                DataCommitment,
                {
                    "dataset_name": "tumours",
                    "dataset_sha256": data,
                    "records": self.records(site),
                    "subject_count": None,
                    "features": 30,
                    "single_class": False,
                    "normalisation": "declared-public-bounds",
                    "bounds_sha256": digest("bounds"),
                },
            ),
        ]
        steps += self.key_steps(site)
        for number in range(self.rounds):
            steps.append(
                (
                    BudgetSpend,
                    {
                        "round": number,
                        "purpose": "training",
                        "event": event,
                        "delta": 1e-5,
                        "unit": "record",
                        "relation": "add_or_remove_one",
                        "mode": "adaptive",
                        "plan_steps": None,
                        "reserved_steps": 5,
                        "executed_steps": 5,
                        "dataset_sha256": data,
                        "noise_generator": self.noise_generator,
                        "ledger_head": digest(f"ledger {site} {number}"),
                        "prior_events": [event] if number == 0 else [],
                    },
                )
            )
            steps.append(
                (
                    UpdateReleased,
                    {
                        "round": number,
                        "hub_log": self.never_shown,
                        "model_sha256": self.weights(number),
                        "update_sha256": digest(f"update {site} {number}"),
                        "tensors": [{"name": "weight", "shape": [3], "dtype": "float32"}],
                        "scalars": [],
                        "bytes": 12,
                        **self.airlock_statement(site),
                    },
                )
            )
            if number == 0:
                steps.append(
                    (Violation, {"rule": "airlock", "detail": "refused once", "artifact_sha256": None})
                )
        return [*steps, (Destruction, self.destruction(site))]

    def destruction(self, site: str) -> dict[str, object]:
        """What an honest site states of its worker's end."""
        return {
            "what": "worker-memory",
            "method": "wiped, killed, reaped",
            "artifacts": [digest(f"worker {site}"), digest(f"table {site}")],
            "checks": [{"name": name, "outcome": "passed", "detail": ""} for name in WORKER_LOOKS],
            "simulated": False,
        }

    def key_steps(self, site: str) -> list[Step]:
        """What an honest site states of its worker and of the key that it got."""
        enclave_key = "sha256:" + digest(f"worker {site}")
        seal: dict[str, JSON] = {
            "level": "namespaces",
            "kernel": "6.12",
            "measures": [
                {"name": name, "outcome": "held", "detail": ""} for name in ("user-namespace", "call-filter")
            ],
        }
        return [
            (
                WorkerSealed,
                {"enclave_key": enclave_key, **seal},
            ),
            (
                KeyRelease,
                {
                    "outcome": "released",
                    "code": None,
                    "policy_sha256": digest(f"release policy {site}"),
                    "data_key": "dk-" + "0" * 32,
                    "purpose": self.contents,
                    "dataset": f"table/{site}/{digest(f'data {site}')}",
                    "scope": self.job_id,
                    "number": 1,
                    "limit": 1,
                    "refusals": 0,
                    "enclave_key": enclave_key,
                    "seal_sha256": sha256_hex(canonicalize(seal)),
                    "nonce_sha256": digest(f"challenge {site}"),
                    "evidence_sha256": digest(f"evidence {site}"),
                    "collateral": [],
                    "attested": {
                        "platform": "simulated SEV-SNP",
                        "simulated": True,
                        "measurement": "ab" * 48,
                        "tcb_status": "NotRated",
                        "advisories": [],
                    },
                    "checks": [],
                    "evaluated_at": "2026-11-21T14:00:00.000000Z",
                },
            ),
        ]

    def airlock_statement(self, site: str) -> dict[str, object]:
        """What an honest site says of the airlock that let an update through."""
        limit = change_limit(
            Descent(
                clip_norm=1.0,
                noise_multiplier=self.noise_multiplier,
                sampling_probability=0.1,
                units=self.records(site),
                steps=5,
                learning_rate=0.5,
                parameters=3,
            )
        ).rounded_to(12)
        change = None if self.airlock.get("norm_bound") == "none" else limit
        weight = TensorForm("weight", "float32", (3,))
        return {
            "airlock_policy_sha256": policy_sha256(
                [weight], max_bytes=100, mantissa_bits=12, change=change, max_bits=self.bits_cap
            ),
            "manifest_sha256": self.manifest(site).payload_sha256,
            "attested_key_id": self.keys[f"site-{site}"].public_key.key_id,
            "max_bytes": 100,
            "mantissa_bits": 12,
            "bits": 63,
            "max_bits": self.bits_cap,
            "change": None
            if change is None
            else {"l2": change.l2, "largest": change.largest, "rounding": change.rounding},
            "constraints": constraints_of(mantissa_bits=12, change=change, max_bits=self.bits_cap),
        }

    def hub_steps(self) -> list[Step]:
        """What an honest hub states."""
        steps: list[Step] = [
            (
                JobOpened,
                {
                    "job_sha256": self.job_sha256,
                    "job_folder_sha256": digest("folder"),
                    "code_measurement": "ab" * 48,
                    "sites": sorted(self.sites),
                    "rounds": self.rounds,
                    "strategy": "FED_AVG",
                    "test_set": "holdout",
                },
            )
        ]
        steps += [(AttestationVerdict, self._verdict(site)) for site in self.sites]
        total = sum(self.records(site) for site in self.sites)
        for number in range(self.rounds):
            steps.append(
                (
                    RoundAggregated,
                    {
                        "round": number,
                        "strategy": "FED_AVG",
                        "updates": {site: digest(f"update {site} {number}") for site in self.sites},
                        "weights": {site: self.records(site) / total for site in self.sites},
                        "absent": {},
                        "model_sha256_before": self.weights(number),
                        "model_sha256_after": self.weights(number + 1),
                    },
                )
            )
        steps.append(
            (
                Evaluation,
                {
                    "test_set": "holdout",
                    "test_set_sha256": digest("holdout"),
                    "records": RECORDS,
                    "metric": "accuracy",
                    "value": ACCURACY,
                    "baseline_name": "best-constant",
                    "baseline_value": BASELINE,
                    "improvement_score": improvement_score(ACCURACY, BASELINE),
                    "threshold": 0.8,
                    "passed": True,
                    "sites": [
                        {"site": one, "metric": "auroc", "value": None, "reason": "one class"}
                        for one in self.sites
                    ],
                },
            )
        )
        steps.append(
            (
                Release,
                {
                    "model_sha256": sha256_hex(MODEL),
                    "model_bytes": len(MODEL),
                    "weights_sha256": self.weights(self.rounds),
                    "constraints": [
                        {"name": name, "satisfied": True, "detail": ""} for name in RELEASE_CONSTRAINTS
                    ],
                    "approved": True,
                },
            )
        )
        return steps

    def _verdict(self, site: str) -> Fields:
        return {
            "site": site,
            "site_key_id": self.keys[f"site-{site}"].public_key.key_id,
            "nonce": b64encode(b"n" * 32),
            "evidence": {
                "tee": "amd-sev-snp",
                "report": b64encode(b"r" * 1184),
                "chain": [b64encode(b"c" * 500)] * 3,
                "extras": {},
                "devices": [],
            },
            "tcb_status": "NotRated",
            "advisories": [],
            "registers": {},
            "collateral": [],
            "policy_id": "policy",
            "policy": {"measurements": ["ab" * 48], "vmpl": 0},
            "status": "TRUSTED",
            "simulated": True,
            "platform": "simulated SEV-SNP",
            "checks": [{"name": "measurement", "outcome": "passed", "detail": ""}],
            "evaluated_at": "2026-11-21T14:00:00.000000Z",
            "measurement": "ab" * 48,
        }

    def write(
        self,
        role: Role,
        party: str,
        steps: list[Step],
        *,
        file: str = "",
        outcome: Literal["completed", "refused", "failed"] = "completed",
        hub_ending: HubEnding | None = None,
    ) -> LogExtract:
        """Write one party's log alone, without anybody looking at it meanwhile, and hand over its extract."""
        with Seat(self, role, party, file or party) as seat:
            seat.state(steps)
            seat.writer.close(outcome, hub_ending=hub_ending)
            return self._hand_over(seat)

    def run(self) -> SyntheticJob:
        """Let every site and the hub do their part."""
        self.extracts = self.play({site: self.site_steps(site) for site in self.sites}, self.hub_steps())
        return self

    def play(
        self, of_sites: Mapping[str, list[Step]], of_hub: list[Step], *, failed: tuple[str, ...] = ()
    ) -> dict[str, LogExtract]:
        """Let the parties state their steps round by round, each holding the others' checkpoints."""
        folder = f"play-{len(list(self.folder.iterdir()))}"
        (self.folder / folder).mkdir()
        with ExitStack() as stack:
            hub = stack.enter_context(Seat(self, Role.HUB, HUB, f"{folder}/{HUB}"))
            sites = [stack.enter_context(Seat(self, Role.SITE, one, f"{folder}/{one}")) for one in self.sites]
            todo = {seat.party: list(of_sites[seat.party]) for seat in sites} | {HUB: list(of_hub)}
            opening = next((place for place, one in enumerate(of_hub) if one[0] is RoundAggregated), 0)
            hub.state(taken(todo[HUB], opening))
            for number in range(self.rounds):
                for seat in sites:
                    before_round = [one for one in todo[seat.party] if one[0] in _BEFORE_TRAINING]
                    seat.state(taken(todo[seat.party], len(before_round)))
                    seat.hold(number, [hub])
                    seat.state(taken(todo[seat.party], through(todo[seat.party], UpdateReleased, number)))
                hub.hold(number, sites)
                hub.state(taken(todo[HUB], through(todo[HUB], RoundAggregated, number)))
            for seat in (*sites, hub):
                seat.state(todo[seat.party])
            shown = hub.end()
            for seat in sites:
                seat.writer.close("failed" if seat.party in failed else "completed", hub_ending=shown)
            return {seat.party: self._hand_over(seat) for seat in (*sites, hub)}

    def _hand_over(self, seat: Seat) -> LogExtract:
        """An extract; the proofs that the log grew from any earlier size to it are kept too."""
        extract = seat.log.extract(self.job_id)
        size = extract.checkpoint.size
        for old in range(1, size + 1):
            proof = seat.log.consistency_proof(old, size)
            self.proofs[extract.origin, old, extract.checkpoint.root] = proof
        return extract

    def links_between(self, extracts: Iterable[LogExtract]) -> list[ConsistencyLink]:
        """The links of a receipt over these extracts, as far as there are any such proofs."""
        of = {one.origin: one for one in extracts}

        def prove(origin: str, old: int, _: int) -> tuple[bytes, ...]:
            return self.proofs.get((origin, old, of[origin].checkpoint.root), ())

        return consistency_links(of, prove)

    def receipt(self, **replaced: object) -> bytes:
        """The receipt, with any of the composer's arguments replaced."""
        arguments: dict[str, object] = {
            "receipt_id": RECEIPT_ID,
            "issuer": HUB,
            "signer": self.keys["hub"],
            "clock": lambda: START + timedelta(hours=1),
            "job": self.job,
            "manifests": {site: self.manifest(site) for site in self.sites},
            "request": self.request,
            "model": ModelFile("model.safetensors", sha256_hex(MODEL), len(MODEL)),
            "extracts": list(self.extracts.values()),
        }
        chosen = {**arguments, **replaced}
        chosen.setdefault("consistency", self.links_between(chosen["extracts"]))  # type: ignore[arg-type]
        return compose_receipt(**chosen)  # type: ignore[arg-type]

    def lying_site(self, site: str, lie: Lie) -> bytes:
        """The receipt an honest hub issues over a site that lies, with its own key, in its own log."""
        steps = {one: copy.deepcopy(self.site_steps(one)) for one in self.sites}
        lie(steps[site])
        return self.receipt(extracts=list(self.play(steps, self.hub_steps()).values()))

    def lying_hub(self, lie: Lie, **replaced: object) -> bytes:
        """The receipt of a hub that lies from the start, with its own key, in its own log."""
        return self.receipt(extracts=list(self.told_otherwise(lie).values()), **replaced)

    def told_otherwise(self, lie: Lie) -> dict[str, LogExtract]:
        """The logs of a job in which the hub lies from the start."""
        steps = copy.deepcopy(self.hub_steps())
        lie(steps)
        return self.play({one: self.site_steps(one) for one in self.sites}, steps)

    def rewriting_hub(self, lie: Lie) -> bytes:
        """The receipt of a hub that rewrites its own log afterwards, keeping only what the sites gave it."""
        rewritten = self.told_otherwise(lie)[HUB]
        return self.careless_receipt(extracts=[*(self.extracts[site] for site in self.sites), rewritten])

    def careless_receipt(self, **replaced: object) -> bytes:
        """The receipt of a hub that leaves out its own look at what is missing."""
        with patch("cloister.evidence.receipt.missing_statements", return_value=()):
            return self.receipt(**replaced)

    @property
    def shown(self) -> HubEnding:
        """The hub's ending, as every site stated it."""
        closed = open_statement(self.extracts[self.sites[0]].entries[-1].envelope).predicate
        assert isinstance(closed, JobClosed)
        assert closed.hub_ending is not None
        return closed.hub_ending


class Seat:
    """A party with its log open, as it takes part in a job after an earlier one."""

    def __init__(self, job: SyntheticJob, role: Role, party: str, file: str) -> None:
        self._job = job
        self._role = role
        self.party = party
        self.signer = signer = job.keys["hub" if role is Role.HUB else f"site-{party}"]
        path = job.folder / f"{file}.sqlite"
        self.log = EvidenceLog.create(path, origin=log_origin(role, party), signer=signer)
        StatementWriter(self.log, signer, party, OTHER_JOB_ID, ticking()).close("completed")
        self.writer = StatementWriter(self.log, signer, party, job.job_id, ticking())
        self._hub_log = job.never_shown

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    def state(self, steps: list[Step]) -> None:
        """State some steps, about the job; an honest update names what was shown of the hub's log."""
        about = [Subject(f"job {self._job.job_id}", self._job.job_sha256)]
        for kind, fields in steps:
            honest = fields.get("hub_log") == self._job.never_shown
            self.writer.write(kind, about, **fields | ({"hub_log": self._hub_log} if honest else {}))

    def end(self) -> HubEnding:
        """Close the job, as its hub; what the sites are shown of it."""
        written = self.writer.close("completed")
        root = self.log.root_at(self.log.size)
        return HubEnding(
            statement_sha256=written.sha256, origin=self.log.origin, size=self.log.size, root=root.hex()
        )

    def hold(self, number: int, others: list[Seat]) -> None:
        """Hold the checkpoints of other parties' logs in a round; a hub states them at once."""
        held = [to_be_held(seat.log.checkpoint()) for seat in others]
        if self._role is Role.SITE:
            (self._hub_log,) = held
            return
        subjects = [Subject(one.origin, Sha256(one.root)) for one in held]
        self.writer.write(CheckpointHeld, subjects, round=number, held=held)


_BEFORE_TRAINING = (ManifestAccepted, RequestDecided, DataCommitment, WorkerSealed, KeyRelease)


def taken(steps: list[Step], count: int) -> list[Step]:
    """The first steps, taken off the list."""
    taken, steps[:] = steps[:count], steps[count:]
    return taken


def through(steps: list[Step], kind: type[Predicate], number: int) -> int:
    """How many steps there are up to the one of this kind and round; none if it isn't there."""
    for place, (found, fields) in enumerate(steps, start=1):
        if found is kind and fields.get("round") == number:
            return place
    return 0


def verify(
    job: SyntheticJob,
    receipt: bytes,
    *,
    model: bytes = MODEL,
    trust: Trust | None = None,
    accept: TestRandomness = TestRandomness.REFUSE,
) -> Verdict:
    """Judge a receipt as a party that pinned the job's keys."""
    return Verifier(trust or job.trust, plugged(), VerificationPolicy(test_randomness=accept)).verify(
        receipt, model_artifact(model)
    )


def failing(verdict: Verdict) -> set[str]:
    """The ids of the checks that did not pass."""
    return {one.id for one in verdict.failures}


def edited(receipt: bytes, edit: Callable[[dict[str, JSON]], None]) -> bytes:
    """A receipt whose body somebody edited without having any key."""
    value = parse(receipt)
    assert isinstance(value, dict)
    edit(value["body"])  # type: ignore[arg-type]
    return canonicalize(value)


def resealed(receipt: bytes, hub: Signer, edit: Callable[[dict[str, JSON]], None]) -> bytes:
    """A receipt whose body a hostile hub edited and signed again."""
    value = parse(edited(receipt, edit))
    assert isinstance(value, dict)
    signature = b64encode(hub.sign(signed_bytes(value["body"])))
    return canonicalize(
        {
            "body": value["body"],
            "signature": {"key_id": hub.public_key.key_id, "sig": signature},
            "timestamps": value["timestamps"],
        }
    )
