"""Where a segment's checkpoints go: outside the process that writes the segment.

What holds a checkpoint should not be within reach of who could rewrite the segment: the collector that reads
standard output, another user's append-only file, a message to the hub. Rules kept here:

1. A checkpoint is handed over whole, one line, or the hand-over is an error.
2. A sink is given only what is already durable: it never vouches for what a crash could take away.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cloister.core.files import storage_error
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments.checkpoint import SegmentCheckpoint

CheckpointSink: TypeAlias = Callable[[SegmentCheckpoint], None]


class DescriptorSink:
    """Writes checkpoints to an open descriptor, such as standard output or a pipe.

    A line is shorter than what a pipe takes in one piece, so that several writers' lines don't mix. A reader
    who doesn't read makes the writer wait.

    Args:
        descriptor: stays the caller's; it isn't closed here.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, checkpoint: SegmentCheckpoint) -> None:
        """Write one line.

        Raises:
            SegmentError: ``evidence.segment_unsent``.
        """
        line = checkpoint.encode() + b"\n"
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise _unsent(os.strerror(error.errno or 0)) from None
        if written != len(line):
            raise _unsent("it was cut")


class FileSink:
    """Appends checkpoints to a second file, best on another disk or where only appending is allowed.

    Args:
        path: made with mode 0600 where it is missing; its folder has to exist.

    Raises:
        StorageError: the file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise storage_error(error, path) from None
        self._sink = DescriptorSink(self._descriptor)

    def __call__(self, checkpoint: SegmentCheckpoint) -> None:
        """Append one line.

        Raises:
            SegmentError: ``evidence.segment_unsent``.
        """
        self._sink(checkpoint)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._descriptor)


def _unsent(reason: str) -> SegmentError:
    return SegmentError(
        "evidence.segment_unsent",
        f"A segment's checkpoint could not be handed outside the process: {reason}.",
        "See that whoever receives checkpoints is running and has room.",
    )
