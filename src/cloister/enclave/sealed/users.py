"""Which user number a worker gets that root starts: one that nobody else on the machine has.

In a container whose root isn't the machine's (rootless Podman or Docker, LXC) only some numbers exist, most
often 0 to 65535: a process can take no other. Which ones do is in ``/proc/self/uid_map`` and ``gid_map``, as
user_namespaces(7) describes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

FIRST_UID: Final = 0x70000000
"""Beyond every range that distributions and systemd hand out (UIDS-GIDS.md); each worker gets the next."""
FIRST_IN_CONTAINER: Final = 0x8000
"""Beyond those that a container's own users have, and below systemd's (60,000 and up)."""
_IN_TURN: Final = 0x4000
_MAPS: Final = (Path("/proc/self/uid_map"), Path("/proc/self/gid_map"))


def worker_user(number: int, maps: Sequence[Path] = _MAPS) -> int:
    """The user, and group, of a worker.

    Args:
        number: the worker's, from 1.
        maps: which users and groups there are here.

    Returns:
        A number that exists here, unless none that is free for workers does: then becoming it fails, and the
        worker's seal says so.
    """
    preferred, contained = FIRST_UID + number, FIRST_IN_CONTAINER + number % _IN_TURN
    ranges = [_ranges(one) for one in maps]
    for one in (preferred, contained):
        if all(any(one in each for each in there) for there in ranges):
            return one
    return preferred


def _ranges(path: Path) -> list[range]:
    try:
        lines = [[int(word) for word in line.split()] for line in path.read_text("ascii").splitlines()]
    except (OSError, ValueError):
        return []
    return [range(line[0], line[0] + line[2]) for line in lines if len(line) == 3]
