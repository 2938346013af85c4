"""Who asks the clinic's service for what: ordinary requests, and six attacks on it.

* exfil: searches widened to every name and 300 results, 25 times among ordinary requests;
* argument jump: three visits whose notes are twenty times as long as the longest;
* rate burst: 150 searches as fast as they are answered;
* error burst: thirty requests for patients, half of whom don't exist;
* new caller: five previews of maintenance, which nobody uses, reading laboratory values;
* egress: two letters whose template lies elsewhere.
"""

from __future__ import annotations

import json
import random
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from immune_parts._clinic import PATIENTS, TEMPLATES

EXFIL, JUMP, RATE = "exfil by wider results", "argument jump", "rate burst"
ERRORS, CALLER, EGRESS = "error burst", "new caller", "egress"
ATTACKS = (EXFIL, JUMP, RATE, ERRORS, CALLER, EGRESS)
_LETTERS = "ESPTNA"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        method: of HTTP.
        path: without the query.
        query: by name.
        body: JSON, or nothing.
        hasty: whether it is sent as soon as the one before was answered.
    """

    method: str
    path: str
    query: dict[str, object] = field(default_factory=dict)
    body: bytes = b""
    hasty: bool = False

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{urllib.parse.urlencode(self.query)}" if self.query else self.path


def ordinary(chance: random.Random) -> Asked:
    """What people ask for in a day; one in a hundred mistypes a number."""
    patient = chance.randint(1, PATIENTS) if chance.random() > 0.01 else PATIENTS + chance.randint(1, 999)
    kind = chance.random()
    if kind < 0.35:
        name = chance.choice(("Example", "Sample", "Specimen", "Testcase", "Nobody"))
        return Asked(
            "GET",
            "/patients",
            {"name": f"{name} {chance.randint(0, 39):02}", "limit": chance.choice((5, 10, 10, 20))},
        )
    if kind < 0.75:
        return Asked("GET", f"/patients/{patient}/kidneys", {"days": chance.choice((365, 730, 730, 1825))})
    if kind < 0.9:
        return visit(chance, int(chance.lognormvariate(5.0, 0.6)))
    return Asked("GET", f"/patients/{patient}/letter", {"template": chance.choice(TEMPLATES)})


def visit(chance: random.Random, length: int) -> Asked:
    """A visit with a note of so many characters, 2,000 at most where it is ordinary."""
    measured = [
        {"code": code, "value": round(chance.uniform(10, 200), 1)}
        for code in ("systolic", "diastolic", "weight", "pulse")[: chance.randint(1, 4)]
    ]
    note = "x" * length
    body = {"patient": chance.randint(1, PATIENTS), "note": note, "measurements": measured}
    return Asked("POST", "/visits", body=json.dumps(body).encode())


def attack(name: str, chance: random.Random, folder: Path) -> Iterator[Asked]:
    """The requests of one attack.

    Args:
        name: one of `ATTACKS`.
        chance: of the details.
        folder: where the attack on letters finds a file; another for each attack.
    """
    if name == EXFIL:
        for _ in range(25):
            yield Asked("GET", "/patients", {"name": chance.choice(_LETTERS), "limit": 300})
            yield ordinary(chance)
    elif name == JUMP:
        for _ in range(3):
            yield visit(chance, chance.randint(30_000, 40_000))
            yield ordinary(chance)
    elif name == RATE:
        for _ in range(150):
            query = {"name": f"Example {chance.randint(0, 39):02}", "limit": 10}
            yield Asked("GET", "/patients", query, hasty=True)
    elif name == ERRORS:
        for _ in range(30):
            patient = chance.randint(1, PATIENTS) + PATIENTS * (chance.random() < 0.5)
            yield Asked("GET", f"/patients/{patient}/kidneys", {"days": 730})
            yield ordinary(chance)
    elif name == CALLER:
        for _ in range(5):
            query = {"first": chance.randint(1, PATIENTS - 20), "count": 1}
            yield Asked("POST", "/maintenance/preview", query)
            yield ordinary(chance)
    else:
        (folder / "private.txt").write_text("private " * 50)
        for _ in range(2):
            yield Asked("GET", "/patients/1/letter", {"template": str(folder / "private")})
            yield ordinary(chance)


async def ask(app: Any, asked: Asked) -> int:
    """The status that an application answers a request with."""
    status = 0

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": asked.body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": asked.path,
        "raw_path": asked.path.encode(),
        "query_string": urllib.parse.urlencode(asked.query).encode(),
        "root_path": "",
        "headers": [(b"host", b"clinic"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return status
