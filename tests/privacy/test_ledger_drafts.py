"""A process killed while it makes a ledger leaves nothing that the next one does not clear."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from cloister.privacy.ledger import BudgetLedger

DATASET = "wards"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wards.sqlite"


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def killed_while_making(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a ledger in a process that is killed when its draft is whole and not yet published."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", die)
        child = os.fork()
        if child == 0:
            BudgetLedger.create(path, DATASET, 1e-4)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_killed_processs_draft_is_cleared_when_the_ledger_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_while_making(path, monkeypatch)
    assert len(names(path)) == 1
    assert not path.exists()
    BudgetLedger.create(path, DATASET, 1e-4).close()
    assert names(path) == ["wards.sqlite"]


def test_a_killed_processs_draft_is_cleared_when_the_ledger_is_opened(path: Path) -> None:
    BudgetLedger.create(path, DATASET, 1e-4).close()
    draft = path.with_name(".wards.sqlite.0123456789abcdef")
    os.link(path, draft)
    for ending in ("-wal", "-shm"):
        draft.with_name(draft.name + ending).touch()
    BudgetLedger.open(path, DATASET).close()
    assert names(path) == ["wards.sqlite"]


def test_a_draft_that_is_being_made_is_left_alone(path: Path) -> None:
    BudgetLedger.create(path, DATASET, 1e-4).close()
    draft = path.with_name(".wards.sqlite.0123456789abcdef")
    draft.touch()
    held = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    BudgetLedger.open(path, DATASET).close()
    assert draft.exists()
    os.close(held)
    BudgetLedger.open(path, DATASET).close()
    assert not draft.exists()


def test_only_drafts_of_this_ledger_are_cleared(path: Path) -> None:
    others = [".wards.sqlite.backup", ".clinics.sqlite.0123456789abcdef", "wards.sqlite.0123456789abcdef"]
    for name in others:
        path.with_name(name).touch()
    BudgetLedger.create(path, DATASET, 1e-4).close()
    assert names(path) == sorted([*others, "wards.sqlite"])
