"""Broken kept state: put aside, alarmed, observed only; the service starts whatever is wrong with it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.keys import EphemeralKeyStore
from cloister.immune import ImmuneIncident, monitor
from cloister.immune.acting.egress import EgressGuard
from cloister.immune.acting.reach import Operation
from cloister.immune.acting.reached import GuardMode
from cloister.immune.keeping import StateStore
from cloister.immune.keeping.files import acknowledge_damaged
from cloister.immune.kept_state import EGRESS, EgressMemory
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.settings import ImmuneSettings
from tests.conftest import ROOT

NAME = "tests.shop:keep"


@monitor(name=NAME)
def keep(amount: int) -> int:
    return sum(range(amount))


def settings(folder: Path) -> ImmuneSettings:
    return ImmuneSettings.model_validate(
        {
            "cellagent": {"sampling": "every-call"},
            "effector": {"enforcing": ["tests.shop:*"]},
            "storage": {"directory": str(folder)},
        }
    )


def begun(folder: Path) -> None:
    """A state that a protection has written."""
    with Protection(settings(folder)).start() as protection:
        for amount in range(300):
            keep(amount % 5)
        protection.guard.approve(NAME, Operation.CONNECT, "10.1.2.3")


def replaced(name: str, content: bytes) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        found = next(iter(sorted(folder.glob(name))))
        found.chmod(0o600)
        found.write_bytes(content)

    return do


def a_folder_for(name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).rename(folder / "moved")
        (folder / name).mkdir()

    return do


def a_file_for_the_audit(folder: Path) -> None:
    (folder / "audit").rename(folder.parent / "audit")
    (folder / "audit").write_text("")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut egress": replaced(EGRESS, b'{"x":'),
    "deep egress": replaced(EGRESS, b"[" * 100_000),
    "empty egress": replaced(EGRESS, b""),
    "another form of egress": replaced(EGRESS, b'{"functions":{},"version":1}'),
    "folder for egress": a_folder_for(EGRESS),
    "short pattern key": replaced("pattern.key", b"short"),
    "long pattern key": replaced("pattern.key", b"x" * 1000),
    "folder for the pattern key": a_folder_for("pattern.key"),
    "database": replaced("immune.db", b"not a database" * 1000),
    "broken audit key": replaced("audit/keys/*.pem", b"no key"),
    "audit key that others read": lambda folder: next((folder / "audit/keys").glob("*.pem")).chmod(0o644),
    "audit that is a file": a_file_for_the_audit,
    "audit that others enter": lambda folder: (folder / "audit").chmod(0o755),
    "broken sealing key": replaced("audit/sealing/*.pem", b"no key"),
}
LEFT = {name for name in DAMAGE if "audit" in name or "sealing" in name}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_service_starts_with_an_alarm_and_only_observes(name: str, folder: Path) -> None:
    begun(folder)
    DAMAGE[name](folder)
    with Protection(settings(folder)).start() as protection:
        for amount in range(300):
            keep(amount % 5)
        alarms = protection.status()["alarms"]
        assert isinstance(alarms, list)
        assert len(alarms) == 1
        assert protection.guard.mode(NAME) is not GuardMode.ENFORCE
        assert not protection.brain._sound()
    put_aside = [one.name for one in folder.glob("*.damaged-*") if not one.name.endswith(("-wal", "-shm"))]
    assert len(put_aside) == (0 if name in LEFT else 1)
    assert (NAME in json.dumps(protection.status())) is True


def test_what_was_put_aside_is_an_alarm_of_every_process_until_a_person_acknowledges_it(folder: Path) -> None:
    begun(folder)
    DAMAGE["cut egress"](folder)
    for _ in range(2):
        with Protection(settings(folder)).start() as protection:
            keep(1)
            assert len(protection.brain.alarms) == 1
    with Protection(settings(folder)).start() as protection:
        keep(1)
        (name,) = acknowledge_damaged(folder)
        protection._beat()
        assert protection.brain.alarms == ()
    assert (folder / name.replace(".damaged-", ".acknowledged-")).read_bytes() == b'{"x":'
    with Protection(settings(folder)).start() as protection:
        assert protection.brain.alarms == ()


def test_a_running_process_sees_what_another_one_put_aside(folder: Path) -> None:
    with Protection(settings(folder)).start() as protection:
        keep(1)
        (folder / "egress.json.damaged-20261122T120000Z").write_text("{")
        protection._beat()
        (alarm,) = protection.brain.alarms
    assert "what functions reach for" in alarm.reason


def test_the_damage_is_in_the_audit(folder: Path) -> None:
    begun(folder)
    DAMAGE["deep egress"](folder)
    with Protection(settings(folder)).start():
        keep(1)
    out = folder.parent / "audit.jsonl"
    with Operator(folder, "tester") as operator:
        assert operator.export(out).accepted
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    assert any(one["action"] == "state-damaged" and EGRESS in one["reason"] for one in entries)


def test_what_functions_reach_for_is_signed_and_another_key_approves_nothing(folder: Path) -> None:
    keys = EphemeralKeyStore()
    store, guard = StateStore(folder / "immune.db"), EgressGuard()
    guard.approve(NAME, Operation.CONNECT, "10.1.2.3")
    guard.approve(NAME, Operation.WRITE, "/srv/\udcff/")
    EgressMemory(folder, keys.generate("stranger"), store).save(guard)
    memory, found = EgressMemory(folder, keys.generate("own"), store), EgressGuard()
    memory.restore(found)
    assert found.state()["functions"] == {}
    assert len(store.alarms) == 1
    memory.save(guard)
    memory.restore(found)
    assert found._reached[NAME].knows((Operation.CONNECT, "10.1.2.3"))
    assert len(store.alarms) == 1
    store.close()


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_a_changed_byte_of_it_approves_nothing(folder: Path, at: int) -> None:
    signer = EphemeralKeyStore().generate("own")
    store, guard, found = StateStore(folder / "immune.db"), EgressGuard(), EgressGuard()
    guard.approve(NAME, Operation.CONNECT, "10.1.2.3")
    memory = EgressMemory(folder, signer, store)
    memory.save(guard)
    content = bytearray((folder / EGRESS).read_bytes())
    content[at % len(content)] ^= 1
    (folder / EGRESS).write_bytes(content)
    memory.restore(found)
    assert found.state()["functions"] == {}
    assert store.alarms
    store.close()


def test_a_function_whose_reaches_were_lost_learns_them_anew_before_any_is_refused(folder: Path) -> None:
    begun(folder)
    (folder / EGRESS).unlink()
    with Operator(folder, "tester") as operator:
        operator.approve(NAME)
    with Protection(settings(folder)).start() as protection:
        keep(1)
        assert protection.guard.mode(NAME) is GuardMode.LEARN


def test_it_is_kept_once_a_minute_and_not_only_at_the_end(folder: Path) -> None:
    with Protection(settings(folder)).start() as protection:
        keep(1)
        for _ in range(30):
            protection._beat()
        assert (folder / EGRESS).exists()


def test_a_wrong_setting_stays_an_error_of_the_start(tmp_path: Path) -> None:
    (tmp_path / "pic.yaml").write_text("storage: {direktory: state}\n")
    done = subprocess.run(
        [sys.executable, "-c", "import cloister.immune.auto"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "storage.direktory" in done.stderr


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000 + b"]" * 200_000, b"[]", b"{}", b"5", b"{", b"\xff", b'{"kind": "tail"}', b"1e999"],
    ids=["deep", "list", "empty", "number", "cut", "no-text", "members", "infinite"],
)
def test_whatever_was_put_in_place_of_what_was_learned_the_function_is_watched(
    folder: Path, content: bytes
) -> None:
    begun(folder)
    connection = sqlite3.connect(folder / "immune.db")
    changed = connection.execute(
        "UPDATE learned SET state = ?, sha256 = ? WHERE function = ?",
        (content, hashlib.sha256(content).hexdigest(), NAME),
    )
    assert changed.rowcount == 1
    connection.commit()
    connection.close()
    incidents: list[ImmuneIncident] = []
    with Protection(settings(folder), on_incident=incidents.append).start() as protection:
        for amount in range(60):
            keep(amount % 5)
        status = protection.status()
    assert 0 < status["functions"][NAME]["learned"] <= 60
    assert len(status["alarms"]) == 1
    assert "can't be read" in status["alarms"][0]
    assert [one.incident_class for one in incidents] == ["immune-fault"]
    with Protection(settings(folder)).start() as protection:
        keep(1)
        assert protection.status()["alarms"] == []
