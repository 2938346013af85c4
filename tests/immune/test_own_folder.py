"""The immune system's own folder: who changes it, and what every process says about its kill switch."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.immune import EgressBlocked, ImmuneError, ImmuneIncident, monitor
from cloister.immune.acting import switch
from cloister.immune.acting.switch import ThrownBy
from cloister.immune.audit_export import export_audit
from cloister.immune.audit_folder import AuditFolder
from cloister.immune.kept_state import AUDIT
from cloister.immune.protection import Protection
from cloister.immune.settings import ImmuneSettings

NAME = "tests.shop:do"


@monitor(name=NAME)
def do(what: Callable[[], object]) -> None:
    what()


def settings(folder: Path, *, enforcing: bool = True, kill_signal: str | None = None) -> ImmuneSettings:
    return ImmuneSettings.model_validate(
        {
            "effector": {"enforcing": ["tests.shop:*"] if enforcing else [], "kill_signal": kill_signal},
            "storage": {"directory": str(folder)},
        }
    )


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, before)


def entries(protection: Protection, folder: Path, kind: str) -> list[dict[str, object]]:
    assert protection.notes.trail is not None
    protection.notes.trail.flush()
    out = folder.parent / f"{os.urandom(4).hex()}.jsonl"
    export_audit(AuditFolder(folder / AUDIT), out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return [one for one in lines if one["event_type"] == kind]


CHANGES: dict[str, Callable[[Path], object]] = {
    "make a folder in place of the switch": lambda state: (state / "disabled").mkdir(),
    "write the switch": lambda state: (state / "disabled").write_text("thrown"),
    "link to it": lambda state: (state / "disabled").symlink_to("pic.yaml"),
    "lock the folder": lambda state: state.chmod(0),
    "move the folder": lambda state: state.rename(state.with_name("away")),
    "remove the database": lambda state: (state / "immune.db").unlink(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_enforcing_function_changes_nothing_in_it_and_throws_no_switch(name: str, folder: Path) -> None:
    with Protection(settings(folder)).start() as protection:
        with pytest.raises(EgressBlocked, match="own folder"):
            do(lambda: CHANGES[name](folder))
        assert protection.switch.thrown_by is ThrownBy.NOTHING
        (told,) = entries(protection, folder, "egress")
    assert (told["action"], told["function"]) == ("block", NAME)
    assert (folder / "immune.db").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mknod], ids=["pipe", "node"])
def test_what_no_audit_event_tells_of_throws_no_switch_either(
    make: Callable[[Path], None], folder: Path
) -> None:
    with Protection(settings(folder)).start() as protection:
        do(lambda: make(folder / "disabled"))
        assert protection.switch.thrown_by is ThrownBy.NOTHING
        switch.throw(folder)
        assert protection.switch.thrown_by is ThrownBy.FILE


def test_a_function_that_is_only_observed_is_told_of(folder: Path) -> None:
    with Protection(settings(folder, enforcing=False)).start() as protection:
        do(lambda: (folder / "disabled").write_text("thrown"))
        (told,) = entries(protection, folder, "egress")
    assert (told["action"], told["function"]) == ("allow", NAME)


def test_each_process_writes_down_and_alarms_when_it_sees_the_switch_change(folder: Path) -> None:
    incidents: list[ImmuneIncident] = []
    with Protection(settings(folder), on_incident=incidents.append).start() as protection:
        (folder / "disabled").write_text("by whomever")
        assert protection.switch.thrown_by is ThrownBy.FILE
        (folder / "disabled").unlink()
        assert protection.switch.thrown_by is ThrownBy.NOTHING
        told = entries(protection, folder, "kill-switch")
    assert [one["action"] for one in told] == ["seen-thrown", "seen-restored"]
    assert str(os.getpid()) in str(told[0]["reason"])
    assert [one.incident_class for one in incidents] == ["immune-switched-off"]


def test_one_that_is_thrown_before_the_start_is_told_at_the_start(folder: Path) -> None:
    switch.throw(folder)
    with Protection(settings(folder)).start() as protection:
        assert [one["action"] for one in entries(protection, folder, "kill-switch")] == ["seen-thrown"]


def test_the_signal_that_the_settings_name_throws_it_and_closing_puts_the_handler_back(folder: Path) -> None:
    received: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _: received.append(number))
    before = signal.getsignal(signal.SIGUSR2)
    with Protection(settings(folder, kill_signal="SIGUSR2")).start() as protection:
        assert not protection.switch()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert protection.switch()
        assert protection.status()["switched_off"] is True
        (told,) = entries(protection, folder, "kill-switch")
        assert "signal" in str(told["reason"])
    assert received == [signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) is before


def test_a_signal_outside_of_the_main_thread_is_a_setting_that_can_not_be(folder: Path) -> None:
    raised: list[ImmuneError] = []

    def start() -> None:
        try:
            Protection(settings(folder, kill_signal="SIGUSR1")).start()
        except ImmuneError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert [one.code for one in raised] == ["immune.setting_invalid"]


def test_an_enforcing_function_that_signals_its_own_process_does_what_it_never_did(folder: Path) -> None:
    with Protection(settings(folder)).start() as protection:
        from cloister.immune.acting.reached import GuardMode

        protection.guard.set_mode(NAME, GuardMode.ENFORCE)
        with pytest.raises(EgressBlocked, match="its first signal"):
            do(lambda: os.kill(os.getpid(), signal.SIGUSR2))
