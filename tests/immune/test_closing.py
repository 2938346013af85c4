"""Switching off: every step of it, whatever fails or interrupts another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.immune import ImmuneError, present
from cloister.immune.wrapping.faults import FAULTS
from tests.immune import watched_module
from tests.immune.scene import SteppingClock, on_with, settings

STEPS = (
    "_heartbeat.close",
    "guard.disarm",
    "_telemetry.close",
    "_upkeep.save_egress",
    "brain.save",
    "brain.store.close",
    "notes.close",
)


def _raising(error: BaseException, step: Callable[[], object] | None = None) -> Callable[..., None]:
    def raising(*_: object) -> None:
        if step is not None:
            step()
        raise error

    return raising


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("full"), RuntimeError("inside another one")])
def test_whatever_a_step_ends_with_the_others_are_taken(
    folder: Path, clock: SteppingClock, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    unwatched = watched_module.price
    on = on_with(settings(folder), clock, f"{watched_module.__name__}:price")
    assert watched_module.price is not unwatched
    on._status.write()
    faults = FAULTS.count
    owner: object = on
    *owners, name = step.split(".")
    for one in owners:
        owner = getattr(owner, one)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, _raising(error, getattr(owner, name)))
        if isinstance(error, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                on.close()
        else:
            on.close()
            assert FAULTS.count == faults + 1
    assert present() is None
    assert watched_module.price is unwatched
    assert not on.guard.armed
    assert not list((folder / "processes").iterdir())
    on.close()


def test_an_interrupt_while_it_starts_leaves_nothing_on(
    folder: Path, clock: SteppingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwatched = watched_module.price
    monkeypatch.setattr("cloister.immune.brain.Brain.save", _raising(RuntimeError("inside another one")))
    monkeypatch.setattr(
        "cloister.immune.acting.egress.EgressGuard.arm", lambda _: _raising(KeyboardInterrupt())()
    )
    with pytest.raises(KeyboardInterrupt):
        on_with(settings(folder), clock, f"{watched_module.__name__}:price")
    assert present() is None
    assert watched_module.price is unwatched


def test_a_status_file_that_cannot_be_removed_stops_nobody(folder: Path, clock: SteppingClock) -> None:
    on = on_with(settings(folder), clock)
    (folder / "processes").write_text("a file")
    on.close()
    assert present() is None


def test_another_one_is_refused_until_the_first_is_off(folder: Path, clock: SteppingClock) -> None:
    on = on_with(settings(folder), clock)
    with pytest.raises(ImmuneError, match="on in this process"):
        on_with(settings(None), clock)
    on.close()
    on_with(settings(None), clock).close()
