"""What refuses a model, a plan or records does so before the ledger is touched, in either mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch import nn

from cloister.core.clock import Clock
from cloister.evidence.transcript import ADAPTIVE, FIXED_PLAN, Mode
from cloister.federation import FederationJob
from cloister.privacy import models
from cloister.privacy.errors import PrivacyError
from cloister.privacy.ledger import BudgetLedger
from cloister.privacy.models import register_model
from tests.federation.nodes import a_job
from tests.federation.parties import DATASET, DELTA, RECORDS, Federation

if TYPE_CHECKING:
    from cloister.core.canonical import JSON


class InPlace(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(features, 4), nn.Linear(4, classes)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(torch.relu_(self.first(batch)))
        return logits


class Restless(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, classes)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(batch * (1 + torch.rand(()) * 2**-18))
        return logits


class UsesAWeightDirectly(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(rows) + rows @ self.head.weight.T
        return logits


PRIVACY = {"delta": DELTA}
Make = Callable[[int, int], nn.Module]
REFUSED: dict[str, tuple[Make, str]] = {
    "changes its values in place": (InPlace, "model.layer_unsupported"),
    "uses a weight directly": (UsesAWeightDirectly, "model.layer_unsupported"),
    "mixes records": (
        lambda f, c: nn.Sequential(nn.BatchNorm1d(f), nn.Linear(f, c)),
        "model.layer_refused",
    ),
    "is never the same": (Restless, "model.mixes_records"),
    "has no class for a label": (lambda f, _: nn.Sequential(nn.Linear(f, 1)), "privacy.data_invalid"),
}


def offered(make: Make) -> Callable[[int, int, Mapping[str, JSON]], nn.Module]:
    return lambda features, classes, _: make(features, classes)


@pytest.fixture(params=[ADAPTIVE, FIXED_PLAN], name="site")
def _site(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[FederationJob], Federation]]:
    monkeypatch.setattr(models, "_BUILDERS", dict(models._BUILDERS))
    made: list[Federation] = []

    def make(job: FederationJob) -> Federation:
        parties = Federation(job, tmp_path, clock)
        parties.ledgers["north"] = BudgetLedger.create(
            tmp_path / "north.ledger", DATASET, DELTA, mode=cast("Mode", request.param), clock=clock
        )
        made.append(parties)
        return parties

    yield make
    for one in made:
        one.close()


def refused(parties: Federation) -> str:
    ledger = parties.ledgers["north"]
    head = ledger.head
    with pytest.raises(PrivacyError) as refusal:
        parties.site("north")
    assert ledger.head == head
    assert ledger.events() == ()
    assert parties.acts("north") == []
    return refusal.value.code


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_refused_costs_nothing(
    name: str, site: Callable[[FederationJob], Federation]
) -> None:
    make, code = REFUSED[name]
    register_model(name, offered(make))
    assert refused(site(a_job(privacy=PRIVACY, model={"architecture": name}))) == code


def test_a_plan_that_no_grid_holds_costs_nothing(
    site: Callable[[FederationJob], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.privacy.noise.SUM_SLACK", 0.0)
    assert refused(site(a_job(privacy=PRIVACY))) == "privacy.plan_invalid"


def test_a_batch_larger_than_the_dataset_costs_nothing(site: Callable[[FederationJob], Federation]) -> None:
    job = a_job(privacy=PRIVACY, training={"batch_size": RECORDS["north"] + 1})
    assert refused(site(job)) == "privacy.plan_invalid"


def test_a_job_that_is_fine_is_admitted(site: Callable[[FederationJob], Federation]) -> None:
    assert site(a_job(privacy=PRIVACY)).site("north").site == "north"
