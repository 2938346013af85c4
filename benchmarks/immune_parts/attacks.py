"""Seven real attacks on a small service at 127.0.0.1, and whether the detector finds each.

The service is Python's own HTTP server with an SQLite database: `lookup` (whose SQL is put together from
its argument, so that it can be injected), `store`, `transfer` and `upload`. Nothing is simulated:
requests go over sockets, times are taken around the functions. Each attack hits a service of its own that
had ordinary traffic:

* latency spike: another connection holds the database's lock;
* monkey-patch: the function is replaced by one that also copies the table out;
* 10x argument: bodies ten times as large;
* flood: eight clients without a pause (DDoS pattern);
* SQL injection: a name that makes the query return every row;
* slowloris: the body arrives a few bytes at a time;
* replay: one request, recorded, sent again and again.

Ordinary calls after the warm-up and before the attack are cut into sessions of 50, for the false positives.
"""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

from cloister.immune.detection import TailDetector
from cloister.immune.kpi import Detection
from cloister.immune.observation import Entered, Observed
from immune_parts._figures import Figures, Row

LEARNED, ORDINARY, SESSION, REPEATS = 1000, 1000, 50, 3
ALPHA = 0.001
ROWS = 4000


class Watched:
    """A function with a detector of its own, which judges every call and learns from it."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.detector = TailDetector()
        self.flags: list[bool] = []
        self.reasons: list[str] = []
        self.durations: list[float] = []
        self._lock = threading.Lock()

    def __call__(self, *arguments: str | bytes | socket.SocketIO) -> object:
        """Call it, judge the call, learn from it."""
        caller = sys._getframe(1)
        name = f"{caller.f_globals['__name__']}:{caller.f_code.co_qualname}"
        size = sum(len(one) if isinstance(one, str | bytes) else 1 for one in arguments)
        at, failed = time.monotonic(), True
        try:
            answer = self.function(*arguments)
            failed = False
        finally:
            spent = time.monotonic() - at
            with self._lock:
                observed = Observed(Entered(at, size, name, 1, 0, teaches=True), spent, failed)
                score = self.detector.score(observed)
                self.detector.learn(observed)
                self.flags.append(score.p < ALPHA)
                self.durations.append(spent)
                if score.p < ALPHA:
                    self.reasons.append(score.reason)
        return answer


class Service:
    """The service, its database and one watched function behind each path."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "people.db"
        with sqlite3.connect(self.database) as connection:
            connection.execute("create table people (name text primary key, note text)")
            people = [(f"person-{row}", "n" * 200) for row in range(ROWS)]
            connection.executemany("insert into people values (?, ?)", people)
        self.paths = {
            "/lookup": Watched(self.lookup),
            "/store": Watched(self.store),
            "/transfer": Watched(self.transfer),
            "/upload": Watched(self.upload),
        }

    def _query(self, statement: str) -> list[tuple[str, str]]:
        with sqlite3.connect(self.database, timeout=5) as connection:
            return connection.execute(statement).fetchall()

    def lookup(self, name: str) -> int:
        """Reads a person; its statement is put together from the name, as it should never be."""
        rows = self._query(f"select name, note from people where name = '{name}'")
        return sum(len(json.dumps(row)) for row in rows)

    def store(self, body: bytes) -> int:
        """Reads a body of fields."""
        return len(json.loads(body))

    def transfer(self, body: bytes) -> int:
        """Moves money; it checks nothing but the form."""
        return int(json.loads(body)["amount"])

    def upload(self, stream: socket.SocketIO) -> int:
        """Reads a body from its socket, line by line."""
        return sum(len(line) for line in iter(stream.readline, b"\r\n"))


@contextmanager
def running() -> Iterator[tuple[Service, int]]:
    """A service at a port of its own."""
    with tempfile.TemporaryDirectory(prefix="immune-attacks-") as folder:
        service = Service(Path(folder))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                """Call the function of the path and answer what it returns."""
                function = service.paths[self.path]
                if self.path == "/upload":
                    answer = function(self.rfile)
                else:
                    body = self.rfile.read(int(self.headers["Content-Length"]))
                    answer = function(body.decode() if self.path == "/lookup" else body)
                text = str(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield service, server.server_port
            server.shutdown()


class Client:
    """A keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes) -> None:
        """One request and its answer."""
        self.connection.request("POST", path, body)
        self.connection.getresponse().read()

    def upload(self, lines: int, pause: float) -> None:
        """A body in lines, with a pause after each."""
        stream = self.connection.sock
        stream.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(lines):
            stream.sendall(b"field: value\r\n")
            if pause:
                time.sleep(pause)
        stream.sendall(b"\r\n")
        response = http.client.HTTPResponse(stream)
        response.begin()
        response.read()


def ordinary(client: Client, path: str, random: Random) -> None:
    """One ordinary request."""
    time.sleep(random.expovariate(1.0) * 0.001)
    match path:
        case "/lookup":
            client.post(path, f"person-{random.randrange(ROWS)}".encode())
        case "/store":
            client.post(path, json.dumps({"field": "x" * random.randint(20, 200)}).encode())
        case "/transfer":
            client.post(path, json.dumps({"amount": random.randint(1, 999)}).encode())
        case "/upload":
            client.upload(random.randint(5, 20), 0.0)


def latency_spike(service: Service, client: Client, port: int, random: Random) -> None:
    """Three calls meet a lock of 150 ms."""
    for _ in range(3):
        connection = sqlite3.connect(service.database, isolation_level=None, check_same_thread=False)
        connection.execute("begin exclusive")
        timer = threading.Timer(0.15, connection.rollback)
        timer.start()
        ordinary(client, "/lookup", random)
        timer.join()
        connection.close()


def monkey_patch(service: Service, client: Client, port: int, random: Random) -> None:
    """Twenty calls of a function that was replaced by one which reads everything as well."""
    watched = service.paths["/lookup"]
    genuine = service.lookup

    def replaced(name: str) -> object:
        json.dumps(service._query("select name, note from people"))
        return genuine(name)

    watched.function = replaced
    for _ in range(20):
        ordinary(client, "/lookup", random)


def larger_argument(service: Service, client: Client, port: int, random: Random) -> None:
    """Three bodies ten times as large as the largest."""
    for _ in range(3):
        client.post("/store", json.dumps({"field": "x" * 2000}).encode())


def flood(service: Service, client: Client, port: int, random: Random) -> None:
    """Eight clients, forty requests each, without a pause."""
    body = json.dumps({"field": "x" * 100}).encode()

    def hammer() -> None:
        mine = Client(port)
        for _ in range(40):
            mine.post("/store", body)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def sql_injection(service: Service, client: Client, port: int, random: Random) -> None:
    """Three names that close the string and make the condition true for every row."""
    for _ in range(3):
        client.post("/lookup", b"nobody' or name like 'person-%' or '1'='1")


def slowloris(service: Service, client: Client, port: int, random: Random) -> None:
    """Three bodies of twenty lines, 10 ms between two."""
    for _ in range(3):
        client.upload(20, 0.01)


def replay(service: Service, client: Client, port: int, random: Random) -> None:
    """One recorded request, eighty times."""
    body = json.dumps({"amount": 500}).encode()
    for _ in range(80):
        client.post("/transfer", body)


ATTACKS: dict[str, tuple[str, Callable[[Service, Client, int, Random], None]]] = {
    "latency spike": ("/lookup", latency_spike),
    "monkey-patch": ("/lookup", monkey_patch),
    "10x argument": ("/store", larger_argument),
    "flood": ("/store", flood),
    "SQL injection": ("/lookup", sql_injection),
    "slowloris": ("/upload", slowloris),
    "replay": ("/transfer", replay),
}


def measure(share: float = 1.0) -> Figures:
    """Each attack on three services of its own."""
    found: dict[str, Row] = {}
    for name in ATTACKS:
        runs = [attacked(name, seed, share) for seed in range(max(1, round(REPEATS * share)))]
        found[name] = {
            "found": sum(one.detected for one, _ in runs),
            "of": len(runs),
            "ordinary sessions flagged": sum(one.flagged for one, _ in runs),
            "of sessions": sum(one.benign for one, _ in runs),
            "first reason": runs[0][1],
        }
    return Figures(
        "Real attacks on a service at 127.0.0.1; every call is judged, p < 0.001.",
        found,
        (),
        ("times are real: what else runs on the machine is in them",),
    )


def attacked(name: str, seed: int, share: float) -> tuple[Detection, str]:
    """One service, its traffic and one attack.

    Returns:
        Sessions of ordinary calls that were flagged, and whether the attack was; the first reason; and how
        long the third slowest ordinary call took, seconds. What a busy machine does to ordinary calls is
        ordinary there: an attack that takes no longer isn't found.
    """
    path, attack = ATTACKS[name]
    random = Random(seed)
    learned, judged = round(LEARNED * share), max(SESSION, round(ORDINARY * share))
    with running() as (service, port):
        client = Client(port)
        for _ in range(learned + judged):
            ordinary(client, path, random)
        watched = service.paths[path]
        before = watched.flags[learned:]
        sessions = [any(before[at : at + SESSION]) for at in range(0, judged, SESSION)]
        watched.reasons.clear()
        attack(service, client, port, random)
        found = any(watched.flags[learned + judged :])
        reason = watched.reasons[0] if watched.reasons else ""
        client.connection.close()
    return Detection(len(sessions), sum(sessions), 1, int(found)), reason
