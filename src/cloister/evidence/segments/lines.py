"""A segment's file, line by line, in bounded memory.

Rules kept here:

1. At most one block and one line are in memory, whatever the file's size claims.
2. Bytes behind the last line feed are no line; a reader sees them apart.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from cloister.core.files import open_plain
from cloister.evidence.segments.layout import MAX_LINE_BYTES

_BLOCK = 256 * 1024


class SegmentLines:
    """The lines of a segment, without their line feeds.

    Args:
        source: the file, or its bytes.

    Attributes:
        torn: after the last line, the bytes behind it; empty where the file ends with a line feed.

    Raises:
        InputError: ``input.missing_file`` or ``input.unreadable``.
    """

    def __init__(self, source: Path | bytes) -> None:
        self._stream: BinaryIO = (
            io.BytesIO(source) if isinstance(source, bytes) else os.fdopen(open_plain(source), "rb", 0)
        )
        self.torn = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while block := self._stream.read(_BLOCK):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
            if len(rest) > MAX_LINE_BYTES:
                yield rest
                return
        self.torn = rest
