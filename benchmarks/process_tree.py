"""Programs timed and weighed as a whole: a process with everything it started, wherever that ended up.

Memory is the proportional set size (PSS), which counts a page shared by n processes as 1/n in each, so that
the sum over a tree is what the tree takes from the machine.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "CLOISTER_BENCHMARK_TREE"


@dataclass(frozen=True)
class Finished:
    """A program that came to its end.

    Attributes:
        seconds: wall time from start to exit, interpreter start and imports included.
        output: what it printed.
        peak_mib: highest summed PSS of its tree seen, or None if it was not weighed.
        processes: most processes seen at once, or None likewise.
    """

    seconds: float
    output: str
    peak_mib: float | None = None
    processes: int | None = None


class DidNotFinishError(Exception):
    """The program ran out of time or failed; its last words are the message."""


def run(command: Sequence[str], environment: Mapping[str, str], limit: float) -> Finished:
    """Times a program, undisturbed.

    Args:
        command: program and arguments.
        environment: its environment.
        limit: seconds it may take.

    Raises:
        DidNotFinishError: it took longer or exited with an error.
    """
    return _watch(command, environment, limit, pause=None)


def weigh(command: Sequence[str], environment: Mapping[str, str], limit: float) -> Finished:
    """As run, and samples memory ten times a second, which costs the program some time."""
    return _watch(command, environment, limit, pause=0.1)


def _watch(
    command: Sequence[str], environment: Mapping[str, str], limit: float, pause: float | None
) -> Finished:
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**environment, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    peak, most = 0.0, 0
    try:
        while True:
            try:
                output, complaints = process.communicate(timeout=pause or limit)
                break
            except subprocess.TimeoutExpired:
                if time.perf_counter() - started > limit or pause is None:
                    raise DidNotFinishError(f"not done after {limit:.0f} s") from None
                members = tree(mark)
                peak = max(peak, sum(pss_mib(member) for member in members))
                most = max(most, len(members))
    finally:
        end(mark)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise DidNotFinishError(f"exit {process.returncode}: {complaints[-500:] or output[-500:]}")
    return Finished(seconds, output, peak or None, most or None)


def tree(mark: str) -> list[int]:
    """Every process that inherited the mark; parents may be gone."""
    wanted = f"{MARK}={mark}".encode()
    members = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                members.append(int(folder.name))
        except OSError:
            continue
    return members


def pss_mib(pid: int) -> float:
    """A process' proportional set size in MiB; 0 if it just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def end(mark: str) -> None:
    """Ends what a program left running."""
    for pid in tree(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
