"""Writing a log as static files, so that a plain web server or bucket can serve it (c2sp.org/tlog-tiles).

Rules kept here:

1. The checkpoint is written last, when all it covers is on disk: whoever reads it finds everything.
2. Full tiles never change. Exporting again adds what is new, and refuses a folder that holds another log or a
   checkpoint that this log doesn't extend.
3. Every entry is verified against the log's head on its way out.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from cloister.core.errors import InputError
from cloister.core.files import read_bounded, storage_error, write_atomic
from cloister.evidence.checkpoint import MAX_CHECKPOINT_CHARS, Checkpoint, parse_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.log.reading import LogReader
from cloister.evidence.log.tile_layout import (
    CHECKPOINT,
    TILE_HEIGHT,
    WIDTH,
    bundle_path,
    encode_bundle,
    tile_path,
    tile_widths,
)


def export_tiles(log: LogReader, directory: Path) -> Checkpoint:
    """Write a log's tiles, entry bundles and checkpoint.

    Args:
        log: an open log.
        directory: the folder; made where it is missing. What an earlier export wrote stays and is added to.

    Returns:
        The checkpoint that was written.

    Raises:
        EvidenceError: ``evidence.tiles_invalid`` if the folder's checkpoint is not one of this log's past;
            ``evidence.log_mismatch`` if the log is broken.
        StorageError: if a file can't be written; the checkpoint that was there still holds.
    """
    head = log.checkpoint()
    done = _exported(log, directory, head)
    folder = _Folder(directory)
    entries = log.entries(done // WIDTH * WIDTH, head.size)
    for index in range(done // WIDTH, -(-head.size // WIDTH)):
        bundle = [one.data for one in islice(entries, WIDTH)]
        folder.write(bundle_path(index, len(bundle)), encode_bundle(bundle))
    for level, full, partial in tile_widths(head.size):
        for index in range(done >> TILE_HEIGHT * (level + 1), full + (partial > 0)):
            width = WIDTH if index < full else partial
            first = index * WIDTH
            hashes = log.subtrees(TILE_HEIGHT * level, first, first + width)
            folder.write(tile_path(level, index, width), b"".join(hashes))
    folder.write(CHECKPOINT, head.encode().encode("utf-8"))
    return head


def _exported(log: LogReader, directory: Path, head: Checkpoint) -> int:
    """How many entries the folder's checkpoint covers; 0 if there is none."""
    path = directory / CHECKPOINT
    if not path.exists():
        return 0
    try:
        old = parse_checkpoint(read_bounded(path, MAX_CHECKPOINT_CHARS).decode("utf-8"))
    except (InputError, EvidenceError, UnicodeDecodeError):
        raise _other(directory) from None
    if old.origin != head.origin or old.size > head.size or log.root_at(old.size) != old.root:
        raise _other(directory)
    return old.size


def _other(directory: Path) -> EvidenceError:
    return EvidenceError(
        "evidence.tiles_invalid",
        f"The checkpoint in {directory} is not one of this log's past.",
        "Export into an empty folder, and find out how the other came there.",
    )


class _Folder:
    """Writes files whose folders come as they are needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: set[Path] = set()

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        if path.parent not in self._made:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise storage_error(error, path.parent) from None
            self._made.add(path.parent)
        write_atomic(path, data, mode=0o644)
