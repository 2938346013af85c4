"""What is left of a worker when it has ended: canary records are planted and looked for everywhere."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.enclave.sealed import SealedHost, SealedTrainer
from cloister.enclave.sealed.claims import MEASURES, Measure, SealClaims, SealLevel
from cloister.enclave.sealed.control import WorkerEnded
from cloister.enclave.sealed.destruction import DestructionRecord, Held, Wiped, record_of
from cloister.enclave.sealed.memory import LockedBuffer, wipe_bytes
from cloister.evidence.predicates.custody import WORKER_LOOKS, Destruction
from cloister.health.data import make_site
from tests.enclave.sealed.scene import (
    COLUMNS,
    SCHEMA,
    STATED,
    Violations,
    a_setup,
    a_table,
    a_trainer,
    a_worker,
    encrypted,
    give,
)

CANARY = 0.7136482915374261
NEEDLES = {
    "a record's value": struct.pack("<d", CANARY) * 4,
    "a feature": struct.pack("<f", CANARY) * 4,
}


def canary_site() -> object:
    """Sixteen equal numbers in a row, in one record in two: no other program has them."""
    raw = np.full((400, COLUMNS), CANARY)
    raw[1::2] *= -1
    return make_site("north", SCHEMA, raw, np.arange(400) % 2, salt=b"")


def memory_of(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/maps").open(encoding="ascii", errors="replace") as maps:
        regions = [line.split() for line in maps]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for region in regions:
            if "r" not in region[1] or (len(region) > 5 and region[5].startswith(("[v", "/dev"))):
                continue
            first, last = (int(one, 16) for one in region[0].split("-"))
            try:
                memory.seek(first)
                yield memory.read(last - first)
            except (OSError, OverflowError, ValueError):
                continue


def hits(pid: int, needles: dict[str, bytes]) -> dict[str, int]:
    found = dict.fromkeys(needles, 0)
    for region in memory_of(pid):
        for name, needle in needles.items():
            found[name] += region.count(needle)
    return found


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def files_since(mark: float) -> Iterator[Path]:
    places = [Path(tempfile.gettempdir()), Path("/dev/shm"), Path("/var/tmp"), Path.cwd()]
    for place in places:
        for path in place.glob("*") if place.is_dir() else ():
            try:
                if path.is_file() and path.stat().st_mtime >= mark and path.stat().st_size < 64 * 1024**2:
                    yield path
            except OSError:
                continue


def test_no_canary_is_left_in_memory_files_shared_memory_or_cores(
    sealed_host: SealedHost, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path.stat().st_mtime
    data = canary_site()
    key = os.urandom(32)
    table = encrypted(data, key)  # type: ignore[arg-type]
    for needle in NEEDLES.values():
        assert needle not in table.segments
    del data
    trainer = SealedTrainer(a_worker(sealed_host, task="dp-training"), a_setup())
    worker = trainer.worker
    give(trainer, table, key)
    trainer.prepare()
    trainer.train(a_setup().start, lambda: False)
    (pid,) = children(sealed_host.server_pid)
    as_root = os.getuid() == 0
    if as_root:  # the search finds what there is to find, so that finding nothing means something
        alive = hits(pid, NEEDLES)
        assert all(alive.values()), alive
    else:
        with pytest.raises(PermissionError):
            next(memory_of(pid))
    assert trainer.train(a_setup().start, lambda: False).params
    record = worker.close()
    assert record.method == "wiped, killed, reaped"
    assert not Path(f"/proc/{pid}").exists()
    if as_root:
        assert not any(hits(sealed_host.server_pid, NEEDLES | {"the key": key}).values())
    for path in files_since(mark):
        content = path.read_bytes()
        assert not any(needle in content for needle in NEEDLES.values()), path
    out, err = capfd.readouterr()
    assert str(CANARY)[:8] not in out + err
    assert not list(Path.cwd().glob("core*"))


def test_after_wiping_the_worker_holds_no_record_in_its_own_buffers(sealed_host: SealedHost) -> None:
    if os.getuid() != 0:
        pytest.skip("an ordinary user can't read a live worker's memory")
    data = canary_site()
    trainer = a_trainer(sealed_host, data, a_setup())  # type: ignore[arg-type]
    (pid,) = children(sealed_host.server_pid)
    held = hits(pid, NEEDLES)["a record's value"]
    trainer.worker.request("close")
    left = hits(pid, NEEDLES)["a record's value"]
    trainer.worker.close()
    assert held > 0
    assert left == 0


def test_the_record_lists_what_was_looked_at_and_fits_the_statement(sealed_host: SealedHost) -> None:
    trainer = a_trainer(sealed_host, a_table(), a_setup())
    public = hashlib.sha256(trainer.worker.public_key).hexdigest()
    record = trainer.worker.close()
    assert trainer.worker.close() is record
    outcomes = {one.name: one.outcome for one in record.checks}
    assert outcomes == {
        "record-buffers-wiped": "passed",
        "process-reaped": "passed",
        "namespaces-empty": "passed" if os.getuid() == 0 else "not_run",
        "no-core-file": "passed",
        "no-page-on-disk": "passed",
    }
    assert len(record.artifacts) == 3
    assert record.artifacts[0] == public
    stated = Destruction.model_validate({**STATED, **record.statement_fields(), "simulated": True})
    assert stated.method == "wiped, killed, reaped"
    assert tuple(one.name for one in stated.checks) == WORKER_LOOKS
    assert "no copy" not in str(record)


def test_a_server_that_may_not_look_into_every_process_claims_nothing_of_the_namespaces(
    host_and_violations: tuple[SealedHost, Violations],
) -> None:
    of, _ = host_and_violations
    status = Path(f"/proc/{of.server_pid}/status").read_text().split()
    ordinary = status[status.index("Uid:") + 1] != "0"
    record = a_trainer(of, a_table(), a_setup()).worker.close()
    (look,) = [one for one in record.checks if one.name == "namespaces-empty"]
    assert look.outcome == ("not_run" if ordinary else "passed")
    assert "not into all" in look.detail or not ordinary
    assert record.complete is not ordinary


def test_a_worker_that_was_killed_claims_no_wiping(sealed_host: SealedHost) -> None:
    trainer = a_trainer(sealed_host, a_table(), a_setup())
    record = trainer.worker.kill()
    outcomes = {one.name: one.outcome for one in record.checks}
    assert outcomes["record-buffers-wiped"] == "not_run"
    assert outcomes["process-reaped"] == "passed"
    assert record.method == "killed, reaped"
    assert not record.complete


def test_a_worker_that_was_handed_nothing_claims_no_wiping(sealed_host: SealedHost) -> None:
    record = a_worker(sealed_host).close()
    outcomes = {one.name: one.outcome for one in record.checks}
    assert outcomes["record-buffers-wiped"] == "not_run"
    assert record.method == "killed, reaped"


CLAIMS = SealClaims(SealLevel.NAMESPACES, tuple(Measure(name, "held") for name in MEASURES), "6.18")
ENDED = WorkerEnded(
    worker=1,
    cause="killed",
    status=-9,
    core=False,
    reaped_ms=1.0,
    processes_seen=90,
    processes_hidden=0,
    sees_all=True,
    left_in_spaces=0,
)
HELD = Held(("0" * 64,), bytes=1000, locked=True)
WIPED = Wiped(2, 1000)


def judged(
    held: Held = HELD,
    claims: SealClaims = CLAIMS,
    ended: WorkerEnded | None = ENDED,
    wiped: Wiped | None = WIPED,
) -> DestructionRecord:
    return record_of(1, held, claims, ended, wiped)


def lacking(*names: str) -> SealClaims:
    return replace(
        CLAIMS,
        measures=tuple(
            replace(one, outcome="failed") if one.name in names else one for one in CLAIMS.measures
        ),
    )


def test_all_that_is_as_it_should_be_is_complete() -> None:
    assert judged().complete
    assert judged().method == "wiped, killed, reaped"


@pytest.mark.parametrize(
    ("record", "look", "outcome", "method"),
    [
        (judged(wiped=Wiped(2, 999)), "record-buffers-wiped", "failed", "killed, reaped"),
        (judged(wiped=Wiped(0, 10**9)), "record-buffers-wiped", "failed", "killed, reaped"),
        (judged(wiped=None), "record-buffers-wiped", "not_run", "killed, reaped"),
        (judged(held=Held()), "record-buffers-wiped", "not_run", "killed, reaped"),
        (judged(ended=None), "process-reaped", "failed", "wiped"),
        (judged(ended=None, wiped=None), "process-reaped", "failed", "not known to have ended"),
        (judged(ended=None), "namespaces-empty", "not_run", "wiped"),
        (judged(ended=None), "no-core-file", "not_run", "wiped"),
        (
            judged(ended=ENDED.model_copy(update={"cause": "exited"})),
            "process-reaped",
            "passed",
            "wiped, ended by itself, reaped",
        ),
        (
            judged(ended=ENDED.model_copy(update={"left_in_spaces": 1})),
            "namespaces-empty",
            "failed",
            "wiped, killed, reaped",
        ),
        (
            judged(ended=ENDED.model_copy(update={"processes_seen": None})),
            "namespaces-empty",
            "not_run",
            "wiped, killed, reaped",
        ),
        (
            judged(ended=ENDED.model_copy(update={"sees_all": False})),
            "namespaces-empty",
            "not_run",
            "wiped, killed, reaped",
        ),
        (
            judged(ended=ENDED.model_copy(update={"processes_hidden": 3})),
            "namespaces-empty",
            "not_run",
            "wiped, killed, reaped",
        ),
        (
            judged(claims=replace(CLAIMS, level=SealLevel.NO_NAMESPACES)),
            "namespaces-empty",
            "not_run",
            "wiped, killed, reaped",
        ),
        (
            judged(ended=ENDED.model_copy(update={"core": True})),
            "no-core-file",
            "failed",
            "wiped, killed, reaped",
        ),
        (judged(claims=lacking("not-dumpable")), "no-core-file", "not_run", "wiped, killed, reaped"),
        (
            judged(claims=lacking("swap-off"), held=replace(HELD, locked=False)),
            "no-page-on-disk",
            "failed",
            "wiped, killed, reaped",
        ),
        (judged(claims=lacking("swap-off")), "no-page-on-disk", "passed", "wiped, killed, reaped"),
        (judged(claims=lacking("swap-off"), held=Held()), "no-page-on-disk", "not_run", "killed, reaped"),
    ],
)
def test_what_is_stated_follows_from_what_was_seen(
    record: DestructionRecord, look: str, outcome: str, method: str
) -> None:
    outcomes = {one.name: one.outcome for one in record.checks}
    assert outcomes[look] == outcome
    assert record.method == method
    assert record.complete is (set(outcomes.values()) == {"passed"})
    Destruction.model_validate({**STATED, **record.statement_fields(), "simulated": False})


def test_a_buffer_is_zero_after_wiping_whatever_held_a_view_of_it() -> None:
    buffer = LockedBuffer(100_000)
    view = np.frombuffer(buffer.view, "<f8", count=1000)
    view[:] = CANARY
    assert not buffer.is_zero
    assert buffer.wipe() == 100_000
    assert buffer.is_zero
    assert not view.any()
    held = bytearray(b"secret")
    wipe_bytes(held)
    assert held == bytes(6)
