"""A log across a fork: the child is refused before any lock, and does the parent's file no harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.errors import StorageError
from cloister.core.keys import FileKeyStore, Signer
from cloister.evidence.log import EvidenceLog
from tests.conftest import ROOT
from tests.evidence.log.places import ORIGIN, Place, fill, item

ORPHAN = """
import os, signal, sys, time
from pathlib import Path
from cloister.core.keys import FileKeyStore
from cloister.evidence.log import EvidenceLog
from tests.evidence.log.places import ORIGIN, fill
folder = Path(sys.argv[1])
signer = FileKeyStore(folder / "keys").load("shared")
log = EvidenceLog.open(folder / "log.sqlite", origin=ORIGIN, signer=signer)
fill(log, signer, 5)
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
(folder / "orphan").write_text(str(os.getpid()))
while not (folder / "go").exists():
    time.sleep(0.01)
log.close()
del log
"""


def in_child(work: Callable[[], bool]) -> bool:
    """Whether it holds in a forked process."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def refused(work: Callable[[], object]) -> bool:
    try:
        work()
    except StorageError as error:
        return error.code == "storage.forked"
    return False


def test_a_forked_child_can_use_neither_side_of_an_open_log(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 3)
        assert in_child(lambda: refused(lambda: fill(log, signer, 1, start=3)))
        assert in_child(lambda: refused(lambda: log.append_many([item(signer, 3)])))
        assert in_child(lambda: refused(log.checkpoint))
        assert in_child(lambda: refused(lambda: log.length("job")))
        fill(log, signer, 2, start=3)
        assert log.verify().size == 5


def test_a_child_is_refused_also_where_a_thread_was_appending_at_the_fork(path: Path, signer: Signer) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log, log._committing, log._group._mutex:
        assert in_child(lambda: refused(lambda: fill(log, signer, 1)))


def test_a_child_may_close_what_it_inherited_and_open_the_log_anew(place: Place, signer: Signer) -> None:
    def work() -> bool:
        log.close()
        with EvidenceLog.open(place, origin=ORIGIN, signer=signer) as own:
            fill(own, signer, 2, start=3)
            return own.size == 5

    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 3)
        assert in_child(work)
        fill(log, signer, 1, start=5)
        assert log.verify().size == 6


@pytest.mark.parametrize("closing", [True, False])
def test_an_orphan_that_ends_late_puts_no_old_state_over_what_others_wrote(
    tmp_path: Path, closing: bool
) -> None:
    signer = FileKeyStore(tmp_path / "keys").generate("shared")
    path = tmp_path / "log.sqlite"
    EvidenceLog.create(path, origin=ORIGIN, signer=signer).close()
    program = ORPHAN if closing else ORPHAN.replace("log.close()\n", "")
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT) as parent:
        assert parent.wait(60) == -signal.SIGKILL
    while not (tmp_path / "orphan").exists() or not (tmp_path / "orphan").read_text():
        time.sleep(0.01)
    orphan = int((tmp_path / "orphan").read_text())
    with EvidenceLog.open(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 20, start=5)
    (tmp_path / "go").touch()
    end = time.monotonic() + 20
    while Path(f"/proc/{orphan}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    with EvidenceLog.open(path, origin=ORIGIN, signer=signer) as log:
        assert log.verify().size == 25
