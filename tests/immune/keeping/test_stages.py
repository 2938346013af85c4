"""Kept containments: signed, of one function, and no word of a process that never saw one."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.immune.keeping import Happened, StateStore
from cloister.immune.keeping.schema import VERSION
from cloister.immune.keeping.stages import (
    CONTAIN,
    HALF_OPEN,
    RELEASE,
    KeptStage,
    StageKeeper,
    forget_old_stages,
)
from tests.immune.keeping.conftest import FUNCTION, START, HandClock


@pytest.fixture
def keeper(store: StateStore, signer: Signer) -> StageKeeper:
    return StageKeeper(store, signer)


def kept(keeper: StageKeeper, stage: str = CONTAIN, *, began: float = START) -> KeptStage:
    return KeptStage(FUNCTION, stage, began, 60.0, 0.0, 7, keeper.keeper)


def put(path: Path, document: bytes, signature: bytes, function: str = FUNCTION) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO stages (function, document, signature, kept_at) VALUES (?, ?, ?, 0)",
            (function, document, signature),
        )


def test_what_is_kept_is_found_by_the_next_process(
    path: Path, hand: HandClock, keeper: StageKeeper, signer: Signer
) -> None:
    assert keeper.keep(FUNCTION, kept(keeper))
    after = StateStore(path, hand)
    assert StageKeeper(after, signer).find(FUNCTION) == (kept(keeper), None)
    assert StageKeeper(after, signer).find("shop.orders:other") == (None, None)
    after.close()


@settings(max_examples=100)
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255), st.booleans())
def test_a_row_that_was_changed_in_any_byte_restores_nothing_and_raises_the_alarm(
    place: int, change: int, in_signature: bool
) -> None:
    signer = EphemeralKeyStore().generate("a")
    store = StateStore(None, HandClock())
    keeper = StageKeeper(store, signer)
    document = kept(keeper).document()
    parts = [document, signer.sign(document)]
    spoiled = bytearray(parts[in_signature])
    spoiled[place % len(spoiled)] ^= change
    parts[in_signature] = bytes(spoiled)
    with store.writing() as connection:
        connection.execute("INSERT INTO stages VALUES (?, ?, ?, 0)", (FUNCTION, *parts))
    found, event = keeper.find(FUNCTION)
    assert found is None
    assert event is not None
    assert event.kind is Happened.STAGE_INVALID
    assert [alarm.kind for alarm in store.alarms] == ["stage_forged"]
    assert keeper.find(FUNCTION) == (None, None)
    store.close()


def test_a_containment_that_another_key_signed_or_of_another_function_is_forged(
    path: Path, store: StateStore, keeper: StageKeeper, signer: Signer
) -> None:
    document = kept(keeper).document()
    put(path, document, EphemeralKeyStore().generate("thief").sign(document))
    assert keeper.find(FUNCTION)[0] is None
    put(path, document, signer.sign(document), "shop.orders:pay")
    assert keeper.find("shop.orders:pay")[0] is None
    put(path, "text", "text")  # type: ignore[arg-type]
    assert keeper.find(FUNCTION)[0] is None
    assert len(store.alarms) == 3


@pytest.mark.parametrize(
    "wrong",
    [{"stage": "observe"}, {"seconds": 0.0}, {"seconds": -1.0}, {"detector": -1}, {"detector": True}],
    ids=["stage", "no length", "negative length", "negative detector", "no number"],
)
def test_signed_nonsense_is_no_containment(
    path: Path, keeper: StageKeeper, signer: Signer, wrong: dict[str, object]
) -> None:
    document = replace(kept(keeper), **wrong).document()  # type: ignore[arg-type]
    put(path, document, signer.sign(document))
    assert keeper.find(FUNCTION)[0] is None


def test_a_process_that_never_saw_a_containment_doesnt_end_what_another_one_keeps(
    store: StateStore, hand: HandClock, keeper: StageKeeper, signer: Signer
) -> None:
    keeper.keep(FUNCTION, kept(keeper))
    neighbour = StageKeeper(store, signer)
    assert not neighbour.keep(FUNCTION, None)
    assert not neighbour.keep(FUNCTION, kept(neighbour, RELEASE))
    assert keeper.find(FUNCTION)[0] == kept(keeper)
    again = kept(neighbour, began=START + 5)
    assert neighbour.keep(FUNCTION, again)
    assert keeper.find(FUNCTION)[0] == again


def test_a_process_ends_what_it_keeps_itself_took_over_or_is_over_and_an_operator_ends_all(
    store: StateStore, hand: HandClock, keeper: StageKeeper, signer: Signer
) -> None:
    keeper.keep(FUNCTION, kept(keeper))
    assert keeper.keep(FUNCTION, None)
    keeper.keep(FUNCTION, kept(keeper))
    successor = StageKeeper(store, signer)
    successor.find(FUNCTION)
    assert successor.keep(FUNCTION, kept(successor, HALF_OPEN))
    neighbour = StageKeeper(store, signer)
    assert not neighbour.keep(FUNCTION, None)
    hand.now += 61
    assert neighbour.keep(FUNCTION, None)
    keeper.keep(FUNCTION, kept(keeper, began=hand.now))
    assert neighbour.keep(FUNCTION, None, by_operator=True)
    assert neighbour.find(FUNCTION) == (None, None)


def test_a_state_of_the_version_before_gets_the_table_and_keeps_what_it_holds(
    path: Path, hand: HandClock, signer: Signer
) -> None:
    StateStore(path, hand).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE stages")
        connection.execute("ALTER TABLE detectors DROP COLUMN retry_at")
        connection.execute("PRAGMA user_version=1")
        connection.execute("INSERT INTO learned VALUES ('shop.orders:place', 0, x'00', '')")
    store = StateStore(path, hand)
    with store.reading() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("SELECT count(*) FROM learned").fetchone() == (1,)
    keeper = StageKeeper(store, signer)
    assert keeper.keep(FUNCTION, kept(keeper))
    assert not store.alarms
    store.close()


def test_what_nobody_wrote_for_long_is_removed(
    store: StateStore, hand: HandClock, keeper: StageKeeper
) -> None:
    keeper.keep(FUNCTION, kept(keeper))
    with store.writing() as connection:
        forget_old_stages(connection, START)
    assert keeper.find(FUNCTION)[0] is not None
    with store.writing() as connection:
        forget_old_stages(connection, START + 1)
    assert keeper.find(FUNCTION) == (None, None)
