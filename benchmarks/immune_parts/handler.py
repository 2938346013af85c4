"""A FastAPI service under protection: what a request costs, and what is flagged, ordinary and of attacks.

The service (`_clinic.py`) has five watched functions of 20 to 150 us and answers in about 300 us. Overhead is
that of calls of the application in one process, and over HTTP with uvicorn. Attacks (`_clinic_traffic.py`)
come among ordinary requests, about 250 a second, which wait for each other as they do in a service: a process
that sleeps in between has processor time to spare, and observes more for it. With "nothing to spare" nobody
sleeps, and it has none. A session is 50 ordinary requests, or an attack; the 50 ordinary requests
after an attack count neither way ("after"). The functions are real and so are their times: what else runs on
the machine is in them.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cloister.immune.kpi import latency, true_positive_rate_at
from immune_parts._figures import Figures, Row, Target
from immune_parts._machine import active_core
from shared_data import AbsentError

FOLDER = Path(__file__).parents[1]
SHIPPED, SAMPLINGS = "as shipped", ("as shipped", "every call", "1:10")
BARE, OURS, NOTHING_TO_SPARE = "bare", "cloister", "attacks-nothing-to-spare"
REQUESTS, SERVICES = 2000, 8
AT_ONCE = os.cpu_count() or 1
"""Services, which sleep nine tenths of the time and more."""
SATURATED, PACED = 0.0, 100.0
CPU, MEDIAN = "above bare, %", "p50 of bare"
TARGETS = (
    *(
        Target(f"{OURS}, {SHIPPED}, {load}", column, "at most", bound)
        for load in ("saturated", "100 a second")
        for column, bound in ((CPU, 2.0), (MEDIAN, 1.05))
    ),
    Target(f"{OURS}, {SHIPPED}, 100 a second", "of a processor, %", "at most", 2.0),
    Target("attacks, as shipped, 250 a second", "TPR at FPR 5 %", "at least", 0.85),
    Target("attacks, as shipped, 250 a second", "at 1 %", "at least", 0.70),
    Target("attacks, as shipped, 250 a second", "p<.001: TPR", "at least", 0.80),
    Target("attacks, as shipped, 250 a second", "FPR, sessions", "at most", 0.02),
)


def measure(share: float = 1.0) -> Figures:
    """Overhead in processor time and latency, then what is flagged."""
    if find_spec("fastapi") is None:
        raise AbsentError("FastAPI isn't installed (`make bench-immune` has it)")
    found: dict[str, Row] = {}
    notes: list[str] = []
    loads = [(SHIPPED, SATURATED, "saturated"), (SHIPPED, PACED, "100 a second")]
    loads += [(sampling, SATURATED, "saturated") for sampling in SAMPLINGS[1:]]
    for sampling, a_second, load in loads:
        got = _run("overhead", sampling, share, a_second)
        for way, row in got["rows"].items():
            name = f"{OURS}, {sampling}, {load}" if way == OURS else way
            found.setdefault(name, row | {"core": active_core() if way == OURS else ""})
        seen = {name: f"{interval:.1f}" for name, interval in got["one observed in"].items()}
        notes.append(
            f"{sampling}, {load}: learned from {got['requests learned from']:,} requests; "
            f"one call observed in {_words(seen)}"
        )
    found |= over_http(max(20, round(REQUESTS * share)))
    rows = {"as shipped, 250 a second": ("attacks", SHIPPED)}
    rows |= {f"{one}, nothing to spare": (NOTHING_TO_SPARE, one) for one in SAMPLINGS}
    for load, (what, sampling) in rows.items():
        with ThreadPoolExecutor(1 if what == NOTHING_TO_SPARE else AT_ONCE) as pool:
            service = partial(_run, what, sampling, share)
            runs = list(pool.map(service, range(max(1, round(SERVICES * share)))))
        name = f"attacks, {load}"
        found[name] = detected(runs) | {"core": active_core()}
        notes.append(f"{name}: {explained(runs)}")
    return Figures("A FastAPI service of five watched functions.", found, TARGETS, tuple(notes))


def detected(runs: list[dict[str, Any]]) -> Row:
    """What was flagged of the sessions of several services."""
    calm = [session for run in runs for session in run["ordinary"]]
    after = [session for run in runs for session in run["after"]]
    hostile = {attack: [run["attacks"][attack] for run in runs] for attack in runs[0]["attacks"]}
    every = [session for sessions in hostile.values() for session in sessions]
    rarest = [rare for rare, _ in calm], [rare for rare, _ in every]
    return {
        "TPR at FPR 5 %": true_positive_rate_at(*rarest, 0.05),
        "at 1 %": true_positive_rate_at(*rarest, 0.01),
        "p<.001: TPR": _flagged(every),
        "FPR, sessions": _flagged(calm),
        "FPR, requests": sum(run["flagged requests"] for run in runs) / sum(run["requests"] for run in runs),
        "after": _flagged(after),
        **{attack: _flagged(hostile[attack]) for attack in sorted(hostile)},
    }


def _flagged(sessions: list[tuple[float, bool]]) -> float:
    return sum(flag for _, flag in sessions) / len(sessions)


def explained(runs: list[dict[str, Any]]) -> str:
    """How much was judged, and by which features what was flagged."""
    functions = []
    for name in runs[0]["functions"]:
        each = [run["functions"][name] for run in runs]
        judged = sum(one["judged"] for one in each) / sum(one["calls"] for one in each)
        functions.append(
            f"{name} {judged:.0%} ({statistics.median(one['median_us'] for one in each):.0f} us)"
        )
    false_by = sum((Counter(run["false flags"]) for run in runs), Counter())
    attacks = [
        f"{attack}: {_words(sum((Counter(run['true flags'][attack]) for run in runs), Counter()))}"
        for attack in sorted(runs[0]["attacks"])
    ]
    return (
        f"{len(runs)} services, {sum(run['requests'] for run in runs):,} ordinary requests that count; "
        f"calls judged: {', '.join(functions)}; ordinary calls flagged by feature: {_words(false_by)}; "
        f"attacks: {'; '.join(attacks)}"
    )


def _words(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"


def _command(what: str, sampling: str, share: float, number: float) -> list[str]:
    module = "immune_parts._clinic_process"
    return [sys.executable, "-m", module, what, sampling, str(share), str(number)]


def _run(what: str, sampling: str, share: float, number: float) -> dict[str, Any]:
    command = _command(what, sampling, share, number)
    done = subprocess.run(command, cwd=FOLDER, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def over_http(requests: int) -> dict[str, Row]:
    """The same requests to two servers in turns, one protected: latency, and each server's processor time."""
    from immune_parts._clinic_traffic import ordinary

    times: dict[str, list[float]] = {BARE: [], SHIPPED: []}
    cpu: dict[str, float] = {}
    with _serving(BARE) as bare, _serving(SHIPPED) as ours:
        servers = {BARE: bare, SHIPPED: ours}
        connections = {
            name: http.client.HTTPConnection("127.0.0.1", port) for name, (port, _) in servers.items()
        }
        for connection in connections.values():
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The first half is learned from, and counts for nothing.
        for number in range(2 * requests):
            if number == requests:
                cpu = {name: -_processor_seconds(process) for name, (_, process) in servers.items()}
            for name in (BARE, SHIPPED) if number % 2 else (SHIPPED, BARE):
                asked = ordinary(random.Random(number))
                began = time.perf_counter()
                connections[name].request(
                    asked.method,
                    asked.target.replace(" ", "%20"),
                    asked.body or None,
                    {"content-type": "application/json"},
                )
                connections[name].getresponse().read()
                if number >= requests:
                    times[name].append(time.perf_counter() - began)
        for name, (_, process) in servers.items():
            cpu[name] += _processor_seconds(process)
        for connection in connections.values():
            connection.close()
    plain = latency(times[BARE])
    found: dict[str, Row] = {}
    for name, taken in times.items():
        one = latency(taken)
        found[f"HTTP, {BARE}" if name == BARE else f"HTTP, {OURS}, {name}"] = {
            "CPU us": cpu[name] / requests * 1e6,
            "above bare, us": (cpu[name] - cpu[BARE]) / requests * 1e6,
            CPU: (cpu[name] / cpu[BARE] - 1) * 100,
            "p50, us": one.p50 * 1e6,
            "p95, us": one.p95 * 1e6,
            "p99, us": one.p99 * 1e6,
            MEDIAN: one.p50 / plain.p50,
            "p95 of bare": one.p95 / plain.p95,
            "p99 of bare": one.p99 / plain.p99,
            "core": active_core() if name != BARE else "",
        }
    return found


@contextmanager
def _serving(sampling: str) -> Iterator[tuple[int, int]]:
    """A server process: its port and its process id."""
    command = _command("serve", sampling, 1.0, 0)
    with subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()


def _processor_seconds(process: int) -> float:
    """Of all threads that run now, by the scheduler's count in nanoseconds."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in tasks) / 1e9
