"""What the private run is measured against, computed on public demonstration data only.

None of this is part of a private run: it pools records that hospitals would never pool, and trains
without noise. It exists so that a reader sees what privacy and separation cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloister.core.errors import InputError
from cloister.health import FederatedData, require_readable
from cloister.workflow.admission import load_data
from cloister.workflow.compute import one_thread_per_site
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.metrics import Undefined, accuracy, auroc
from cloister.workflow.scoring import scores

NOT_PRIVATE = "not part of the private run"
PUBLIC_SOURCES = frozenset({"breast-cancer-wisconsin", "uci-heart-disease"})
_STEPS = 400
_LEARNING_RATE = 0.5


@dataclass(frozen=True)
class Baseline:
    """One way to train without the protections, and how it scores on the named test set."""

    name: str
    records: int
    accuracy: float
    auroc: float | None


@dataclass(frozen=True)
class Comparison:
    """All baselines of one job."""

    source: str
    test_set: str
    test_records: int
    architecture: str
    mark: str
    baselines: tuple[Baseline, ...]


def compare(spec: JobSpec, data_dir: Path | None) -> Comparison:
    """Train the baselines of a job.

    Args:
        spec: The job.
        data_dir: Folder with the data files, for sources that need one.

    Raises:
        InputError: The job's data isn't a public demonstration set.
    """
    if spec.file.data.source not in PUBLIC_SOURCES:
        raise InputError(
            "input.schema",
            f"the source {spec.file.data.source} isn't a public demonstration set",
            "Baselines pool records; they are computed on public data only.",
        )
    with one_thread_per_site():
        return _compare(spec, load_data(spec, data_dir))


def _compare(spec: JobSpec, data: FederatedData) -> Comparison:
    readable = {name: require_readable(one, "A baseline") for name, one in sorted(data.sites.items())}
    tables = {name: (table.features, table.labels) for name, table in readable.items()}
    features = np.concatenate([table[0] for table in tables.values()])
    labels = np.concatenate([table[1] for table in tables.values()])
    found = [
        _baseline("pooled, no privacy", spec, data, _train(spec, features, labels), len(labels)),
        _baseline("federated averaging, no privacy", spec, data, _train_federated(spec, tables), len(labels)),
    ]
    for name, (own, own_labels) in tables.items():
        weights = _train(spec, own, own_labels)
        found.append(_baseline(f"{name} alone, no privacy", spec, data, weights, len(own_labels)))
    return Comparison(
        source=data.source,
        test_set=data.test.name,
        test_records=data.test.records,
        architecture=spec.file.model.architecture,
        mark=NOT_PRIVATE,
        baselines=tuple(found),
    )


def _baseline(
    name: str, spec: JobSpec, data: FederatedData, weights: Mapping[str, np.ndarray], records: int
) -> Baseline:
    risk = scores(spec.file.model, spec.file.federation.seed, weights, data.test.features)
    area = auroc(data.test.labels, risk)
    return Baseline(
        name=name,
        records=records,
        accuracy=accuracy(data.test.labels, risk),
        auroc=None if isinstance(area, Undefined) else area,
    )


def _train(
    spec: JobSpec,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    start: Mapping[str, np.ndarray] | None = None,
    steps: int = _STEPS,
) -> dict[str, np.ndarray]:
    import torch

    from cloister.privacy.models import load_arrays, state_arrays
    from cloister.workflow.scoring import model_of

    model = model_of(spec.file.model, spec.file.federation.seed, features.shape[1])
    if start is not None:
        load_arrays(model, start)
    parameters: list[torch.Tensor] = list(model.parameters())
    inputs, targets = torch.tensor(features), torch.tensor(labels)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-_LEARNING_RATE)
    return state_arrays(model)


def _train_federated(
    spec: JobSpec, tables: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    rounds = spec.file.federation.rounds
    steps = max(1, _STEPS // rounds)
    total = sum(len(labels) for _, labels in tables.values())
    weights: dict[str, np.ndarray] | None = None
    for _ in range(rounds):
        updates = [
            (len(labels) / total, _train(spec, features, labels, start=weights, steps=steps))
            for features, labels in tables.values()
        ]
        weights = {
            name: np.sum(
                [share * update[name].astype(np.float64) for share, update in updates], axis=0
            ).astype(np.float32)
            for name in updates[0][1]
        }
    assert weights is not None
    return weights
