"""What the fork server sees of workers in ``/proc``: what holds a live one, and that a dead one is gone.

What the kernel shows here comes before what a worker said of itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from cloister.core.canonical import parse_canonical
from cloister.core.errors import InputError
from cloister.enclave.sealed.claims import LISTENER, MEASURES, SWAP_OFF, Measure, Observation, Outcome

_DETAIL = 200
_CAP_SYS_PTRACE: Final = 19


def outcomes(
    packet: bytes, pid: int, *, listener_asked: bool, listener_held: bool
) -> tuple[dict[str, tuple[Outcome, str]], dict[str, int]]:
    """What came of each measure, as far as it holds when looked at.

    Args:
        packet: what the worker said when it was done.
        pid: the worker.
        listener_asked: whether its level has a listener.
        listener_held: whether the server holds one.

    Returns:
        The outcomes by measure, and the numbers of the worker's namespaces by kind.
    """
    measures = {name: Measure(name, "not_tried") for name in MEASURES}
    try:
        said = parse_canonical(packet, max_bytes=65536, max_depth=4)
    except InputError:
        said = {}
    told = said.get("measures") if isinstance(said, dict) else None
    for name, one in told.items() if isinstance(told, dict) else ():
        if name in measures and isinstance(one, list) and len(one) == 2:
            held: Outcome = "held" if one[0] == "held" else "failed"
            measures[name] = Measure(name, held, str(one[1])[:_DETAIL])
    spaces = said.get("spaces") if isinstance(said, dict) else None
    numbers = spaces if isinstance(spaces, dict) else {}
    if listener_asked and not listener_held:
        measures[LISTENER] = Measure(LISTENER, "failed", measures[LISTENER].detail)
    measures[SWAP_OFF] = swap_off()
    observe(pid).against(measures, os.getuid())
    return (
        {name: (one.outcome, one.detail) for name, one in measures.items()},
        {kind: number for kind, number in numbers.items() if isinstance(number, int)},
    )


def observe(pid: int) -> Observation:
    """What ``/proc`` shows of a process from outside; nothing good of one that isn't there."""
    shown: dict[bytes, bytes] = {}
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123
            shown = dict(line.rstrip(b"\n").split(b":\t", 1) for line in file if b":\t" in line)
    except OSError:
        return Observation(0, no_new_privs=False, capabilities=-1, uids=frozenset({0}), threads=0)
    capabilities = 0
    # The bounding set is left out: it gives nothing to who can never raise a capability again.
    for name in (b"CapInh", b"CapPrm", b"CapEff", b"CapAmb"):
        capabilities |= int(shown.get(name, b"1"), 16)
    return Observation(
        seccomp=int(shown.get(b"Seccomp", b"0")),
        no_new_privs=shown.get(b"NoNewPrivs") == b"1",
        capabilities=capabilities,
        uids=frozenset(int(one) for one in shown.get(b"Uid", b"0").split()),
        threads=int(shown.get(b"Threads", b"0")),
    )


def swap_off() -> Measure:
    """Whether the machine swaps to nothing, so that locked or not no page reaches a disk."""
    try:
        with open("/proc/swaps", "rb") as file:  # noqa: PTH123
            devices = len(file.readlines()) - 1
    except OSError:
        return Measure(SWAP_OFF, "not_tried", "unreadable")
    return Measure(SWAP_OFF, "held" if devices <= 0 else "failed", f"{max(0, devices)} swap devices")


def look_for_leftovers(spaces: Mapping[str, int]) -> dict[str, int | bool]:
    """Look whether a process is in one of these namespaces.

    Args:
        spaces: the namespaces' numbers by kind.

    Returns:
        What was seen, by the names of `WorkerEnded`.
    """
    seen = hidden = left = 0
    since = started_at("self")
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if not entry.isdigit():
            continue
        numbers = []
        for name, number in spaces.items():
            kind = "pid" if name == "pid_for_children" else name
            try:
                numbers.append(os.stat(f"/proc/{entry}/ns/{kind}").st_ino == number)  # noqa: PTH116
            except PermissionError:
                # What is older than this server was left by none of its workers.
                hidden += started_at(entry) >= since
                break
            except OSError:  # it has ended meanwhile
                break
        else:
            seen += 1
            left += any(numbers)
    return {
        "processes_seen": seen,
        "processes_hidden": hidden,
        "sees_all": may_look_into_all(),
        "left_in_spaces": left,
    }


def started_at(process: str) -> int:
    """When a process started, in the kernel's ticks since the machine did; 0 for one that is gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def may_look_into_all() -> bool:
    """Whether this process has the right to look into others' (CAP_SYS_PTRACE)."""
    with open("/proc/self/status", "rb") as file:  # noqa: PTH123
        effective = next((line for line in file if line.startswith(b"CapEff:")), b"CapEff: 0")
    return bool(int(effective.split()[1], 16) & 1 << _CAP_SYS_PTRACE)
