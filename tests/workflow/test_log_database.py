"""Parties whose logs are in a PostgreSQL database: begun once, continued, held against what others hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.core.clock import Clock
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.core.settings import Settings
from cloister.evidence import StatementWriter, Subject
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.predicates import Violation
from cloister.policy import UnwitnessedLog
from cloister.workflow.party import Party
from cloister.workflow.workspace import Workspace, open_workspace
from tests.evidence.log.places import drop_logs

STREAM = "6f2a7c1e-90d4-4c56-8a41-0d2b7e4f9c11"


@pytest.fixture
def workspace(tmp_path: Path, postgresql: str) -> Iterator[Workspace]:
    with open_workspace(tmp_path, settings=Settings(log_database=postgresql)) as opened:
        yield opened
    drop_logs(postgresql)


def state(party: Party, clock: Clock) -> Checkpoint:
    party.agree_on_log(UnwitnessedLog.ALLOW)
    with party.open_log() as log:
        writer = StatementWriter(log, party.signer, party.name, STREAM, clock)
        job = Subject("job", sha256_hex(b"job"))
        writer.write(Violation, [job], rule="r", detail="d", artifact_sha256=None)
        return log.checkpoint()


def test_each_party_has_its_own_log_in_one_database(workspace: Workspace, clock: Clock) -> None:
    north, south = workspace.party("site", "north"), workspace.party("site", "south")
    assert [state(north, clock).size for _ in range(3)] == [1, 2, 3]
    assert state(south, clock).size == 1
    assert not list(workspace.root.rglob("log.sqlite"))


def test_a_log_that_was_used_and_is_gone_is_not_begun_anew(
    workspace: Workspace, clock: Clock, postgresql: str
) -> None:
    north = workspace.party("site", "north")
    state(north, clock)
    drop_logs(postgresql)
    with pytest.raises(CloisterError) as refused:
        north.open_log()
    assert refused.value.code == "evidence.log_missing"


def test_an_interrupted_first_use_is_taken_up(workspace: Workspace, clock: Clock) -> None:
    north = workspace.party("site", "north")
    north.open_log().close()
    (north.folder / "log.begun").unlink()
    assert state(north, clock).size == 1


def test_a_database_that_was_set_back_is_refused(workspace: Workspace, clock: Clock, postgresql: str) -> None:
    north, hub = workspace.party("site", "north"), workspace.party("hub", "hub")
    state(north, clock)
    hub.book.hold(state(north, clock), (), north.signer.public_key)
    drop_logs(postgresql)
    (north.folder / "log.begun").unlink()
    with pytest.raises(CloisterError) as refused:
        north.open_log()
    assert refused.value.code == "evidence.log_rolled_back"
