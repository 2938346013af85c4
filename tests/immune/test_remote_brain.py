"""The brain behind the service: bounded, whatever a batch holds."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cloister.core.keys import EphemeralKeyStore
from cloister.immune import remote_brain
from cloister.immune.brain import Brain
from cloister.immune.notes import Notes
from cloister.immune.remote_brain import RemoteBrain
from cloister.immune.service.brain_port import WatchdogState
from cloister.immune.service.telemetry_form import TelemetryForm
from cloister.immune.settings import ImmuneSettings
from tests.immune.service.brains import event


@pytest.fixture
def brain() -> Iterator[RemoteBrain]:
    inner = Brain(
        ImmuneSettings(),
        EphemeralKeyStore().generate("tests"),
        Notes(None, monotonic=lambda: 0.0),
        redact=str,
        switched_off=lambda: False,
        changed=lambda _: None,
        matured=lambda _name, _learned: None,
    )
    yield RemoteBrain(inner, lambda: WatchdogState.ABSENT)
    inner.close()


def told(function: str) -> TelemetryForm:
    return TelemetryForm.model_validate_json(json.dumps(event(function)))


def test_functions_beyond_the_most_are_left_out_and_counted_also_within_one_batch(
    brain: RemoteBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_brain, "MOST_FUNCTIONS", 3)
    brain.take([told(f"shop:f{number}") for number in range(5)])
    brain.take([told("shop:f9"), told("shop:f0")])
    status = brain.status()
    assert set(status["functions"]) == {"shop:f0", "shop:f1", "shop:f2"}  # type: ignore[arg-type]
    assert (status["events_taken"], status["events_left_out"]) == (4, 3)
