"""Where a segment's checkpoints go: outside the process that writes the segment.

What holds a checkpoint should not be within reach of who could rewrite the segment: the collector that reads
standard output, another user's append-only file, a message to the hub. Rules kept here:

1. A checkpoint is handed over whole, one line, or the hand-over is an error. A line that was cut, by a disk
   that was full for a moment or a process that was killed, stands alone: the next begins behind a line feed.
2. A sink is given only what is already durable: it never vouches for what a crash could take away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from cloister.core.errors import CloisterError
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
        self._cut = False

    def __call__(self, checkpoint: SegmentCheckpoint) -> None:
        """Write one line.

        Raises:
            SegmentError: ``evidence.segment_unsent``.
        """
        line = checkpoint.encode() + b"\n"
        data = b"\n" + line if self._cut else line
        self._cut = True
        _write(self._descriptor, data)
        self._cut = False


class FileSink:
    """Appends checkpoints to a second file, best on another disk or where only appending is allowed.

    Processes may share the file. Each line has a line feed before it too, so that what another process was
    killed over takes no whole line with it.

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

    def __call__(self, checkpoint: SegmentCheckpoint) -> None:
        """Append one line.

        Raises:
            SegmentError: ``evidence.segment_unsent``.
        """
        _write(self._descriptor, b"\n" + checkpoint.encode() + b"\n")

    def close(self) -> None:
        """Let the file go."""
        os.close(self._descriptor)


def hand_out(
    sinks: Sequence[CheckpointSink], checkpoints: Sequence[SegmentCheckpoint]
) -> CloisterError | None:
    """Give checkpoints to every sink, also when one fails; the last failure is the answer."""
    found: CloisterError | None = None
    for sink in sinks:
        try:
            for checkpoint in checkpoints:
                sink(checkpoint)
        except CloisterError as error:
            found = error
        except Exception as error:  # whatever a caller's sink raises, the stream goes on
            found = _unsent(type(error).__name__)
    return found


def _write(descriptor: int, data: bytes) -> None:
    try:
        written = os.write(descriptor, data)
    except OSError as error:
        raise _unsent(os.strerror(error.errno or 0)) from None
    if written != len(data):
        raise _unsent("it was cut")


def _unsent(reason: str) -> SegmentError:
    return SegmentError(
        "evidence.segment_unsent",
        f"A segment's checkpoint could not be handed outside the process: {reason}.",
        "See that whoever receives checkpoints is running and has room.",
    )
