"""Search another process's memory, as root can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

_REGION = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)$")
_BLOCK = 8 * 1024 * 1024


def occurrences(pid: int, needles: list[bytes]) -> int:
    """How often any needle is found in the readable memory of a process; skips by name where that is not
    permitted.

    Args:
        pid: the process.
        needles: what is looked for, each at least 8 bytes.
    """
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            return sum(_in_region(memory, *region, needles) for region in _regions(pid))
    except PermissionError:
        pytest.skip("reading another process's memory is not permitted here (needs root)")


def _regions(pid: int) -> Iterator[tuple[int, int]]:
    """Where something of the process's own can be: not in pages that are still those of a file on disk."""
    held: tuple[int, int, bool] | None = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if (found := _REGION.match(line)) is not None:
            start, end, rights, inode, name = found.groups()
            readable = rights.startswith("r") and name not in ("[vvar]", "[vsyscall]", "[vvar_vclock]")
            shared_or_own = inode == "0" or rights.endswith("s")
            held = (int(start, 16), int(end, 16), shared_or_own) if readable else None
            if held is not None and shared_or_own:
                yield held[:2]
        elif held is not None and not held[2] and line.startswith("Anonymous:") and line.split()[1] != "0":
            yield held[:2]


def _in_region(memory: BinaryIO, start: int, end: int, needles: list[bytes]) -> int:
    found, tail = 0, b""
    overlap = max(map(len, needles)) - 1
    while start < end:
        try:
            memory.seek(start)
            block = memory.read(min(_BLOCK, end - start))
        except (OSError, ValueError, OverflowError):
            return found
        if not block:
            return found
        window = tail + block
        found += sum(window.count(needle) for needle in needles)
        tail = window[-overlap:]
        start += len(block)
    return found
