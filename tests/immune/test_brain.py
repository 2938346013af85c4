"""The end of a brain: every step is taken, whatever fails in another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.core.keys import EphemeralKeyStore
from cloister.immune.brain import Brain
from cloister.immune.notes import Notes
from cloister.immune.settings import ImmuneSettings
from cloister.immune.wrapping.faults import FAULTS

NAME = "shop.orders:place"


def opened(folder: Path) -> Brain:
    made = Brain(
        ImmuneSettings.model_validate({"storage": {"directory": str(folder)}}),
        EphemeralKeyStore().generate("tests"),
        Notes(None, monotonic=lambda: 0.0),
        redact=str,
        switched_off=lambda: False,
        changed=lambda _: None,
        matured=lambda _name, _learned: None,
    )
    made.cell(NAME)
    return made


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_the_store_is_closed_whatever_fails_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    brain, closed = opened(tmp_path), []
    let_go = brain.store.close

    def fail(*_: object) -> None:
        raise kind

    def close() -> None:
        closed.append(True)
        let_go()

    monkeypatch.setattr(brain.baselines, "save_learned", fail)
    monkeypatch.setattr(brain.upkeep, "stop", fail)
    monkeypatch.setattr(brain.store, "close", close)
    if kind is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            brain.close()
    else:
        brain.close()
    assert closed == [True]


def test_what_fails_at_the_end_takes_the_place_of_no_interrupt_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brain, before = opened(tmp_path), FAULTS.by_kind.get(("close", "RuntimeError"), 0)

    def fail(*_: object) -> None:
        raise RuntimeError

    def run() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            brain.close()

    monkeypatch.setattr(brain.baselines, "save_learned", fail)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert FAULTS.by_kind["close", "RuntimeError"] == before + 1


def test_a_store_in_the_middle_of_a_transaction_ends_with_its_brain(tmp_path: Path) -> None:
    brain, again = opened(tmp_path), opened(tmp_path)

    def run() -> None:
        with brain.store.writing():
            try:
                raise KeyboardInterrupt
            finally:
                brain.close()

    with pytest.raises(KeyboardInterrupt):
        run()
    with again.store.writing():
        pass
    again.close()
