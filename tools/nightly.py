"""Runs the tests marked `nightly`, again and again with new seeds, over the minutes it is given.

A round is every nightly test once. Each test may spend CLOISTER_NIGHTLY_SECONDS seconds, its share of the
time, and CLOISTER_NIGHTLY_SEED varies what it tries; hypothesis gets the same seed. The first round always
runs whole; another starts only if the longest so far still fits. The run ends at the first round that
fails, and a round that doesn't come to an end is ended. `--seed`, printed with every round, repeats it.

Exit 0: every round passed. Exit 1: a test failed, none ran, or a round didn't come to an end.

Use: python tools/nightly.py --minutes 60 [--workers 2] [--seed 7]
"""

import argparse
import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

GRACE_SECONDS = 600
PYTEST = (sys.executable, "-m", "pytest", "-m", "nightly", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class Round:
    """What one pass over the nightly tests came to.

    Attributes:
        seed: what varied it.
        passed: how many tests passed.
        failed: names of those that failed.
        skipped: how many were skipped.
        seconds: how long it took.
        tried: cases tried, by test, of those that share out their cases.
        cases: cases there are, likewise.
    """

    seed: int
    passed: int
    failed: tuple[str, ...]
    skipped: int
    seconds: float
    tried: Counter[str] = field(default_factory=Counter)
    cases: Counter[str] = field(default_factory=Counter)


def collect() -> int:
    """Counts the nightly tests."""
    listing = subprocess.run(
        [*PYTEST, "--collect-only", "-q", "--no-header"], capture_output=True, text=True, check=False
    )
    if listing.returncode not in {0, 5}:
        sys.exit(f"nightly: the tests could not be collected.\n{listing.stdout}{listing.stderr}")
    return sum("::" in line for line in listing.stdout.splitlines())


def read_round(report: Path, seed: int, seconds: float) -> Round:
    """Reads pytest's JUnit report."""
    passed, skipped, failed = 0, 0, []
    tried: Counter[str] = Counter()
    cases: Counter[str] = Counter()
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - written by our own pytest # nosec B314
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
        name = f"{case.get('classname')}::{(case.get('name') or '').partition('[')[0]}"
        noted = {one.get("name"): one.get("value") for one in case.iter("property")}
        if "cases" in noted:
            tried[name] += int(noted["cases_tried"] or 0)
            cases[name] += int(noted["cases"] or 0)
    return Round(seed, passed, tuple(failed), skipped, seconds, tried, cases)


def wait(command: Sequence[str], environment: Mapping[str, str], limit: float) -> int:
    """Runs pytest with its workers in a session of their own, so that they can be ended together."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"nightly: not done after {limit:.0f} s, ended", file=sys.stderr)
        return -signal.SIGKILL
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_round(seed: int, share: int, workers: str, limit: float) -> Round:
    """Runs every nightly test once, with this seed and this many seconds each."""
    environment = os.environ | {"CLOISTER_NIGHTLY_SECONDS": str(share), "CLOISTER_NIGHTLY_SEED": str(seed)}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = [f"--timeout={max(300, 4 * share)}", f"--hypothesis-seed={seed}", f"--junitxml={report}"]
        started = time.monotonic()
        code = wait([*PYTEST, "-q", "-n", workers, "--durations=5", *options], environment, limit)
        seconds = time.monotonic() - started
        if not report.exists():
            return Round(seed, 0, (f"pytest ended with {code} and no report",), 0, seconds)
        outcome = read_round(report, seed, seconds)
    if code != 0 and not outcome.failed:
        return replace(outcome, failed=(f"pytest ended with {code}",))
    return outcome


def closing_lines(rounds: Sequence[Round], tests: int, given: float) -> list[str]:
    """Says what the run came to, for the note of whoever ran it."""
    failed = [f"  failed with seed {done.seed}: {name}" for done in rounds for name in done.failed]
    tried = sum((done.tried for done in rounds), Counter[str]())
    cases = rounds[0].cases
    return [
        f"nightly: {tests} tests, {len(rounds)} rounds (seeds {rounds[0].seed} to {rounds[-1].seed}), "
        f"{sum(done.passed for done in rounds)} passed, {len(failed)} failed, "
        f"{sum(done.skipped for done in rounds)} skipped, "
        f"{sum(done.seconds for done in rounds):.0f} s of {given:.0f} s",
        *(f"  {name}: {count} tried of {cases[name]} cases" for name, count in sorted(tried.items())),
        *failed,
    ]


def main(arguments: Sequence[str]) -> int:
    """Spreads the nightly tests over the minutes given."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--workers", default="auto", help="as pytest-xdist's -n")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    options = parser.parse_args(arguments)
    if not (math.isfinite(options.minutes) and options.minutes > 0):
        parser.error("--minutes takes a number above zero")

    given = options.minutes * 60
    tests = collect()
    if tests == 0:
        print("nightly: no test is marked nightly, so nothing ran.", file=sys.stderr)
        return 1
    parallel = (os.cpu_count() or 1) if options.workers == "auto" else max(1, int(options.workers))
    share = max(1, int(given * min(parallel, tests) / tests * 0.8))
    print(f"nightly: {tests} tests, {given:.0f} s, {share} s for each, from seed {options.seed}", flush=True)

    rounds: list[Round] = []
    started = time.monotonic()
    while not rounds or given - (time.monotonic() - started) > max(done.seconds for done in rounds):
        limit = given - (time.monotonic() - started) + GRACE_SECONDS
        rounds.append(run_round(options.seed + len(rounds), share, options.workers, limit))
        if rounds[-1].failed or rounds[-1].passed == 0:
            break
    print("\n".join(closing_lines(rounds, tests, given)))
    return 1 if any(done.failed or done.passed == 0 for done in rounds) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
