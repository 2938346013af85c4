"""A commit whose answer is lost: the log looks before it speaks, and says so where it can't."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from cloister.core.database import writer
from cloister.core.errors import CloisterError, StorageError
from cloister.core.keys import Signer
from cloister.evidence.log import EvidenceLog
from cloister.evidence.log.store import Store
from tests.evidence.log.places import ORIGIN, Place, drop_logs, fill, item


def lose_answers(monkeypatch: pytest.MonkeyPatch, count: int, *, committed: bool) -> None:
    """Commits lose their answers, so many of them: after they were made, or before."""
    real, left = writer._commit, [count]

    def commit(connection: Connection) -> None:
        if not left[0]:
            return real(connection)
        left[0] -= 1
        if committed:
            real(connection)
        raise OperationalError("COMMIT", None, sqlite3.OperationalError("server closed the connection"))

    monkeypatch.setattr(writer, "_commit", commit)


@pytest.mark.parametrize("committed", [True, False])
def test_an_entry_whose_commit_got_no_answer_is_there_once_and_acknowledged(
    place: Place, signer: Signer, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 2)
        lose_answers(monkeypatch, 1, committed=committed)
        (entry,) = log.append_many([item(signer, 2)])
        assert entry.index == 2
        assert log.verify().size == 3
        fill(log, signer, 2, start=3)
        assert log.verify().size == 5


@pytest.mark.parametrize("committed", [True, False])
def test_a_log_that_cannot_find_out_says_that_the_entry_may_be_there(
    place: Place, signer: Signer, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 2)
        lose_answers(monkeypatch, 1, committed=committed)
        allowed, begin = [1], Store.transaction

        def transaction(store: Store) -> AbstractContextManager[Connection]:
            if not allowed:
                raise StorageError("storage.failed", "The server is gone.")
            allowed.pop()
            return begin(store)

        monkeypatch.setattr(Store, "transaction", transaction)
        with pytest.raises(StorageError, match="can't be asked") as caught:
            log.append_many([item(signer, 2)])
        assert caught.value.code == "storage.uncertain"
        assert log.verify().size == (3 if committed else 2)


class Cable:
    """A socket before a server's, which can be cut after the server has read a commit."""

    def __init__(self, server: str, folder: Path) -> None:
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen(20)
        self._cut_at_commit = self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at_next_commit(self) -> None:
        self._cut_at_commit = True

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                for ends in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if up and self._cut_at_commit and b"COMMIT" in data:
                    self._cut_at_commit, self._cut = False, True
                elif not up and self._cut:
                    # The server has answered: it has committed. Nobody hears of it.
                    self._cut = False
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable(postgresql: str) -> Iterator[tuple[str, Cable]]:
    asked = parse_qs(urlsplit(postgresql).query)
    folder = Path(tempfile.mkdtemp(prefix="cloister-cable-"))
    cable = Cable(f"{asked['host'][0]}/.s.PGSQL.{asked.get('port', ['5432'])[0]}", folder)
    yield f"{postgresql.split('?', maxsplit=1)[0]}?host={folder}", cable
    cable.close()
    drop_logs(postgresql)
    shutil.rmtree(folder)


def test_a_server_that_is_cut_off_after_its_commit_costs_no_writer_its_answer(
    cable: tuple[str, Cable], signer: Signer
) -> None:
    url, line = cable
    with EvidenceLog.create(url, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 1)
        line.cut_at_next_commit()
        fill(log, signer, 1, start=1)
        line.cut_at_next_commit()
        told: dict[str, int] = {}

        def work(stream: str) -> None:
            with suppress(CloisterError):
                told[stream] = log.append_many([item(signer, 0, stream=stream)])[0].index

        threads = [threading.Thread(target=work, args=(f"s{number}",)) for number in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sorted(told.values()) == list(range(2, 8))
        assert log.verify().size == 8
