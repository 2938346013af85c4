"""A small clinic's service, as they are written with FastAPI: validation, SQL, some computing, JSON.

Its five functions that touch records are wrapped by whatever is given. Two holes are left open on purpose, as
services have them: a search takes a single letter and gives up to 500 results, a letter any template's path.
"""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

PATIENTS, LABS = 4000, 30
TEMPLATES = ("recall", "results", "referral")
FUNCTIONS = ("find_patients", "read_labs", "assess", "store_visit", "letter")
WrapNamed = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""Wraps a function, known by ``module:qualname``."""

_SURNAMES = ("Example", "Sample", "Specimen", "Placeholder", "Testcase", "Nobody", "Anyone", "Somebody")


class UnknownPatientError(Exception):
    """There is no such patient."""


class Measurement(BaseModel):
    """One value that was measured at a visit."""

    code: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,20}$")]
    value: Annotated[float, Field(ge=0, le=10_000)]


class Visit(BaseModel):
    """What a visit sends."""

    patient: Annotated[int, Field(ge=1)]
    note: Annotated[str, Field(max_length=50_000)]
    measurements: Annotated[list[Measurement], Field(max_length=50)]


def create(folder: Path, seed: int = 1) -> None:
    """A database of made-up patients, and templates of letters.

    Args:
        folder: an empty one.
        seed: of the patients.
    """
    chance = random.Random(seed)
    with sqlite3.connect(folder / "clinic.db") as database:
        database.executescript(
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT, born INTEGER, sex TEXT);"
            "CREATE TABLE labs (patient INTEGER, day INTEGER, code TEXT, value REAL);"
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, patient INTEGER, note TEXT, measurements TEXT);"
        )
        for number in range(1, PATIENTS + 1):
            name, born = f"{chance.choice(_SURNAMES)} {number:04}", chance.randint(1930, 2010)
            database.execute(
                "INSERT INTO patients VALUES (?, ?, ?, ?)", (number, name, born, chance.choice("fm"))
            )
            for _ in range(chance.randint(LABS // 2, LABS * 2)):
                value = chance.lognormvariate(4.4, 0.3)
                database.execute(
                    "INSERT INTO labs VALUES (?, ?, 'creatinine', ?)",
                    (number, chance.randint(0, 3650), value),
                )
        database.execute("CREATE INDEX labs_by_patient ON labs (patient, day)")
        database.execute("CREATE INDEX patients_by_name ON patients (name)")
    (folder / "templates").mkdir()
    for template in TEMPLATES:
        (folder / "templates" / f"{template}.txt").write_text(
            f"Dear {{name}},\n\n{template} " + "text " * 200
        )


def find_patients(database: sqlite3.Connection, start: str, limit: int) -> list[dict[str, object]]:
    """Patients whose name begins so."""
    rows = database.execute(
        "SELECT id, name, born FROM patients WHERE name >= ? AND name < ? ORDER BY name LIMIT ?",
        (start, start + "\U0010ffff", limit),
    )
    return [{"id": one, "name": name, "born": born} for one, name, born in rows]


def read_labs(database: sqlite3.Connection, patient: int, days: int) -> list[tuple[int, float]]:
    """The newest laboratory values of a patient."""
    if database.execute("SELECT 1 FROM patients WHERE id = ?", (patient,)).fetchone() is None:
        raise UnknownPatientError
    query = "SELECT day, value FROM labs WHERE patient = ? AND day >= ? ORDER BY day"
    return database.execute(query, (patient, 3650 - days)).fetchall()


def assess(values: list[tuple[int, float]], age: int) -> dict[str, float]:
    """Kidney function by CKD-EPI 2021 of each value, its newest, and its trend a year by least squares."""
    if not values:
        return {"count": 0}
    rates = []
    for _, micromoles in values:
        ratio = micromoles / 88.4 / 0.9
        rates.append(142 * min(ratio, 1.0) ** -0.302 * max(ratio, 1.0) ** -1.2 * 0.9938**age)
    days = [day for day, _ in values]
    mean_day, mean = math.fsum(days) / len(days), math.fsum(rates) / len(rates)
    spread = math.fsum((day - mean_day) ** 2 for day in days)
    together = math.fsum((day - mean_day) * (rate - mean) for day, rate in zip(days, rates, strict=True))
    slope = 365 * together / spread if spread else 0.0
    return {
        "count": len(rates),
        "newest": round(rates[-1], 1),
        "a_year": round(slope, 2),
        "mean": round(mean, 1),
    }


def store_visit(database: sqlite3.Connection, patient: int, note: str, measurements: str) -> int:
    """Keep a visit; it stays when this returns."""
    with database:
        found = database.execute(
            "INSERT INTO visits (patient, note, measurements) VALUES (?, ?, ?)", (patient, note, measurements)
        )
    return found.lastrowid or 0


def letter(templates: Path, template: str, name: str) -> str:
    """A letter from a template."""
    with (templates / f"{template}.txt").open(encoding="utf-8") as file:
        return file.read().replace("{name}", name)


def application(folder: Path, wrap: WrapNamed) -> FastAPI:
    """The service on a folder that `create` filled.

    Args:
        folder: of the database and the templates.
        wrap: what its functions are wrapped with.
    """
    database = sqlite3.connect(folder / "clinic.db", check_same_thread=False)
    database.execute("PRAGMA synchronous=OFF")
    found, labs, assessed, stored, written = (
        wrap(f"clinic:{one.__name__}", one) for one in (find_patients, read_labs, assess, store_visit, letter)
    )
    app = FastAPI()
    app.state.database = database

    @app.exception_handler(UnknownPatientError)
    async def unknown(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "there is no such patient"}, status_code=404)

    @app.get("/patients")
    async def search(name: str, limit: Annotated[int, Field(ge=1, le=500)] = 10) -> list[dict[str, object]]:
        return found(database, name, limit)

    @app.get("/patients/{patient}/kidneys")
    async def kidneys(patient: int, days: Annotated[int, Field(ge=1, le=3650)] = 730) -> dict[str, object]:
        values = labs(database, patient, days)
        return {"patient": patient, **assessed(values, 30 + patient % 50)}

    @app.post("/visits")
    async def visit(sent: Visit) -> dict[str, int]:
        measured = ";".join(f"{one.code}={one.value}" for one in sent.measurements)
        return {"visit": stored(database, sent.patient, sent.note, measured)}

    @app.get("/patients/{patient}/letter")
    async def write(patient: int, template: str) -> dict[str, str]:
        try:
            return {"letter": written(folder / "templates", template, f"patient {patient}")}
        except OSError:
            raise HTTPException(404, "there is no such template") from None

    @app.post("/maintenance/preview")
    async def preview(first: int, count: Annotated[int, Field(ge=1, le=20)]) -> dict[str, int]:
        return {"values": sum(len(labs(database, first + one, 730)) for one in range(count))}

    return app
