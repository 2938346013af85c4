"""Each section of the immune room's benchmark runs, at a hundredth of its size, and gives what it promises.

Figures of so small a run mean nothing; that they are there, are numbers and are judged does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytest.importorskip("matplotlib", reason="matplotlib, which draws the picture, is not installed")

PEERS = ROOT / ".venv-immune-peers" / "bin" / "python"
OVERHEAD = ("CPU us", "above bare, us", "above bare, %", "p50, us", "p95, us", "p99, us", "p50 of bare")
FOUND = (
    "TPR at FPR 5 %",
    "at 1 %",
    "p<.001: TPR",
    "FPR, sessions",
    "FPR, requests",
    "exfil by wider results",
)
PROMISED: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "calls": (
        (
            "functools.wraps no-op",
            "cloister, unsampled",
            "cloister, 1 in 10",
            "cloister, observed",
            "wrapt no-op",
        ),
        ("ns above bare", "of no-op", "core"),
    ),
    "async": (
        ("async no-op", "cloister, unsampled", "cloister, judged"),
        ("ns above bare", "of no-op", "core"),
    ),
    "threads": (
        ("functools.wraps no-op", "cloister, unsampled"),
        ("1 threads, ns", "2 threads, ns", "4 threads, ns", "core"),
    ),
    "scoring": (
        ("tail tables", "L2 percentile", "EWMA z", "a whole sensor, before and after a call"),
        ("us a call", "core"),
    ),
    "acting": (("decision, ordinary call", "operation, armed, no watched function"), ("ns",)),
    "protection": (
        ("1.3 us", "20 us", "1 ms"),
        ("CPU above bare, %", "median latency, ratio", "p99, ratio", "one observed in", "core"),
    ),
    "detection": (
        (
            "tail tables, budgeted",
            "tail tables, every call",
            "tail tables, 1:10",
            "five oldest: EWMA z, 1:10",
        ),
        ("TPR at FPR 5 %", "at 1 %", "p<.001: TPR", "FPR"),
    ),
    "attacks": (
        ("latency spike", "SQL injection"),
        ("found", "of", "ordinary sessions flagged", "of sessions"),
    ),
    "pii": (("ours", "six patterns"), ("MB a second", "line by line")),
    "memory": (("the wrapper", "without the calls kept", "with 1,000 calls kept"), ("KB a function", "core")),
    "audit": (("groups of 64", "one stream"), ("durable a second", "CPU us an entry", "read a CPU second")),
    "upkeep": (
        ("100 functions", "1,000 functions"),
        ("a look, us", "save all, ms", "status, ms", "CPU s a minute", "at most", "state, MB"),
    ),
}


def figures(python: str, sections: tuple[str, ...], share: float, *more: str) -> dict[str, Any]:
    """What a run of some sections prints; it ends with 1 where a target is missed, as most are here."""
    chosen = [word for one in sections for word in ("--section", one)]
    ended = subprocess.run(
        [python, "benchmarks/immune.py", "--json", "--share", str(share), *chosen, *more],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert ended.returncode in {0, 1}, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("picture") / "immune.png"


@pytest.fixture(scope="module")
def measured(picture: Path) -> dict[str, Any]:
    return figures(sys.executable, tuple(PROMISED), 0.01, "--picture", str(picture))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("section", PROMISED)
def test_a_section_gives_the_rows_and_columns_that_it_promises(
    section: str, measured: Mapping[str, Any]
) -> None:
    rows, columns = PROMISED[section]
    found = measured[section]["rows"]
    assert set(rows) <= set(found)
    for row in rows:
        assert set(columns) <= set(found[row]), row
        assert all(isinstance(found[row][one], int | float) for one in columns if one != "core"), row


@pytest.mark.parametrize("section", PROMISED)
def test_each_section_says_how_the_machine_stood_and_which_core_ran(
    section: str, measured: Mapping[str, Any]
) -> None:
    stood = measured[section]["machine"]
    assert set(stood) == {"python", "processors", "load", "core", "load at the end"}
    ours = [row["core"] for row in measured[section]["rows"].values() if row.get("core")]
    assert set(ours) <= {stood["core"]}


def test_what_was_asked_is_judged_beside_the_figure(measured: Mapping[str, Any]) -> None:
    (unsampled, observed) = measured["calls"]["targets"]
    asked = {"pure": (0.8, 4.0), "compiled": (0.3, 1.0)}[measured["calls"]["machine"]["core"]]
    assert (unsampled["at most"], observed["at most"]) == asked
    for target in (unsampled, observed):
        assert target["figure"] == measured["calls"]["rows"][target["row"]][target["column"]]
        assert target["kept"] == (target["figure"] <= target["at most"])


def test_peers_that_are_not_installed_are_named(measured: Mapping[str, Any]) -> None:
    rows, notes = measured["calls"]["rows"], " ".join(measured["calls"]["notes"])
    for library, row in (("ddtrace", "ddtrace wrap"), ("sentry_sdk", "sentry-sdk trace")):
        assert (row in rows) != (library in notes)


def test_the_core_is_the_one_that_the_room_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from cloister.immune import core
    from immune_parts._machine import active_core

    assert active_core() == core().kind in {"pure", "compiled"}


def test_what_was_measured_is_drawn(picture: Path, measured: Mapping[str, Any]) -> None:
    assert measured
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_section_whose_library_is_absent_is_skipped_by_name() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_FASTAPI],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT / "benchmarks",
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'benchmarks'}"},
        check=False,
    )
    assert ended.returncode == 0
    assert "handler: skipped, FastAPI isn't installed (`make bench-immune` has it)" in ended.stderr


_WITHOUT_FASTAPI = """
import importlib.util, sys
whole = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "fastapi" else whole(name, *more)
sys.argv = ["immune.py", "--section", "handler"]
import immune
sys.exit(immune.main())
"""


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_service_is_measured_and_attacked_under_each_sampling() -> None:
    if not PEERS.exists():
        pytest.skip("FastAPI and the peers are in .venv-immune-peers, which `make bench-immune` sets up")
    found = figures(str(PEERS), ("handler",), 0.02)["handler"]["rows"]
    samplings = ("as shipped", "every call", "1:10")
    for row in ("bare", "functools.wraps no-op", *(f"cloister, {one}, saturated" for one in samplings)):
        assert set(OVERHEAD) <= set(found[row]), row
    assert found["HTTP, cloister, as shipped"]["CPU us"] > 0
    loads = ("as shipped, 250 a second", *(f"{one}, nothing to spare" for one in samplings))
    for one in (f"attacks, {load}" for load in loads):
        assert set(FOUND) <= set(found[one]), one
        assert all(0.0 <= found[one][column] <= 1.0 for column in FOUND), one
