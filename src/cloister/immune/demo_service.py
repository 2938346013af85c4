"""The service that ``pic demo`` attacks: made-up records behind real HTTP on this machine.

It is what a watched service looks like: one decorated function, and an answer of 403 where a call is blocked.
"""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from cloister.immune.errors import CallBlocked
from cloister.immune.wrapping.monitor import monitor

FUNCTION: Final = "demo:read_records"
RECORDS: Final = 5000
_SURNAMES: Final = ("Example", "Sample", "Specimen", "Placeholder")


class Records:
    """A table of made-up people.

    Args:
        seed: of the people.
    """

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - made-up people
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._lock = threading.Lock()
        self._connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, born INTEGER)")
        people = [(number, chance.choice(_SURNAMES), chance.randint(1930, 2010)) for number in range(RECORDS)]
        self._connection.executemany("INSERT INTO people VALUES (?, ?, ?)", people)

    @monitor(name=FUNCTION)
    def read_records(self, ids: list[int]) -> list[tuple[int, str, int]]:
        """The records of some people."""
        found = []
        with self._lock:
            for one in ids:
                row = self._connection.execute("SELECT * FROM people WHERE id = ?", (one,)).fetchone()
                if row is not None:
                    found.append(row)
        return found


@contextmanager
def running(records: Records) -> Iterator[int]:
    """The service on a free port of this machine, as long as the block runs; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query).get("id", [])
            try:
                self._answer(HTTPStatus.OK, records.read_records([int(one) for one in asked]))
            except CallBlocked as blocked:
                self._answer(HTTPStatus.FORBIDDEN, {"blocked": blocked.reason, "event": blocked.event_id})

        def _answer(self, status: HTTPStatus, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="demo-service", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
