"""Verifying a log that lies as static files (c2sp.org/tlog-tiles), with its pinned key and nothing else.

Rules kept here:

1. Every entry is hashed, every tile compared, and the root recomputed and compared with the signed head.
2. Files are read whole within the bounds of the layout, one at a time; the size of the log costs no memory.
3. A partial file that is gone may be answered by the full one it grew into, of which its width is read.
4. Verifying needs the base installation only: no database, no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cloister.core.errors import CloisterError, InputError
from cloister.core.files import read_bounded
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import (
    MAX_CHECKPOINT_CHARS,
    Checkpoint,
    parse_checkpoint,
    verify_checkpoint,
)
from cloister.evidence.errors import EvidenceError
from cloister.evidence.log.tile_layout import (
    CHECKPOINT,
    MAX_BUNDLE_BYTES,
    TILE_HEIGHT,
    WIDTH,
    bundle_path,
    decode_bundle,
    split_hashes,
    tile_path,
    tile_widths,
)
from cloister.evidence.merkle import HASH_SIZE, CompactRange, NodeReader, leaf_hash, node_hash


@dataclass(frozen=True, slots=True)
class VerifiedTiles:
    """A log that was read from its files and holds.

    Attributes:
        checkpoint: its head, whose signature and root were verified.
        entries: how many entries were hashed: all of them.
        tiles: how many tiles of hashes were compared.
    """

    checkpoint: Checkpoint
    entries: int
    tiles: int


def verify_tiles(
    directory: Path,
    keys: Sequence[PublicKey],
    *,
    origin: str | None = None,
    visit: Callable[[int, bytes], None] | None = None,
) -> VerifiedTiles:
    """Check a folder of tiles: the head is signed, and everything leads to it.

    Args:
        directory: the folder that holds ``checkpoint`` and ``tile``.
        keys: the log's pinned keys, one of which must have signed the head.
        origin: the name the log must have; without it, the one it gives itself.
        visit: is given each entry's index and bytes, before the whole is judged.

    Returns:
        What was verified.

    Raises:
        EvidenceError: ``evidence.tiles_invalid``, ``evidence.checkpoint_malformed`` or
            ``evidence.checkpoint_unsigned``.
        SignatureInvalid: if a signature that claims to be the key's doesn't hold.
        InputError: if there is no checkpoint to read.
    """
    head = read_checkpoint(directory, keys, origin=origin)
    tree, rows = CompactRange(), _Rows(directory)
    for bundle in _bundles(directory, head.size):
        for entry in bundle:
            if visit is not None:
                visit(tree.size, entry)
            leaf = leaf_hash(entry)
            tree.append(leaf)
            rows.push(leaf)
    rows.finish()
    if tree.size != head.size or tree.root() != head.root:
        raise _invalid("the entries don't lead to the checkpoint")
    return VerifiedTiles(head, tree.size, rows.compared)


def read_checkpoint(directory: Path, keys: Sequence[PublicKey], *, origin: str | None = None) -> Checkpoint:
    """Read a folder's checkpoint and verify its signature.

    Args:
        directory: the folder.
        keys: the log's pinned keys, at least one.
        origin: the name the log must have; without it, the one it gives itself.

    Returns:
        The checkpoint.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed`` or ``evidence.checkpoint_unsigned``.
        SignatureInvalid: if a signature that claims to be the key's doesn't hold.
        InputError: if it can't be read.
    """
    data = read_bounded(directory / CHECKPOINT, MAX_CHECKPOINT_CHARS)
    try:
        head = parse_checkpoint(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise EvidenceError("evidence.checkpoint_malformed", "The checkpoint is not UTF-8.") from None
    failed: CloisterError | None = None
    for key in keys:
        try:
            verify_checkpoint(head, head.origin if origin is None else origin, key)
        except CloisterError as error:
            failed = error
        else:
            return head
    if failed is None:
        raise EvidenceError("evidence.checkpoint_unsigned", "No key is given to verify the checkpoint with.")
    raise failed


def tile_reader(directory: Path, size: int) -> NodeReader:
    """Read subtrees out of tiles, for the proofs of :mod:`cloister.evidence.merkle`; verify what it proves.

    Args:
        directory: the folder.
        size: the size of the checkpoint that the proofs are for.

    Returns:
        A reader of the subtree (level, index); it raises ``evidence.tiles_invalid`` where a tile is missing.
    """
    widths = {level: (full, partial) for level, full, partial in tile_widths(size)}

    @lru_cache(maxsize=64)
    def tile(level: int, index: int) -> tuple[bytes, ...]:
        full, partial = widths[level]
        return _read_tile(directory, level, index, WIDTH if index < full else partial)

    def node(level: int, index: int) -> bytes:
        height = level % TILE_HEIGHT
        first = index << height
        hashes = tile(level // TILE_HEIGHT, first // WIDTH)
        at = first % WIDTH
        row = hashes[at : at + (1 << height)]
        if len(row) != 1 << height:
            raise _invalid("a tile is narrower than the checkpoint's size asks")
        return _fold(row)

    return node


def _bundles(directory: Path, size: int) -> Iterator[tuple[bytes, ...]]:
    for index in range(-(-size // WIDTH)):
        width = min(WIDTH, size - index * WIDTH)
        data = _read(directory, bundle_path(index, width), bundle_path(index), MAX_BUNDLE_BYTES)
        entries = decode_bundle(data)
        if len(entries) not in (width, WIDTH):
            raise _invalid(f"entry bundle {index} has {len(entries)} entries instead of {width}")
        yield entries[:width]


class _Rows:
    """The hashes of each level as they come, compared with the tile they make as soon as it is full."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows: list[list[bytes]] = []
        self._full: list[int] = []
        self.compared = 0

    def push(self, value: bytes) -> None:
        """Add the next leaf hash."""
        level = 0
        while True:
            if level == len(self._rows):
                self._rows.append([])
                self._full.append(0)
            row = self._rows[level]
            row.append(value)
            if len(row) < WIDTH:
                return
            self._compare(level)
            value = _fold(row)
            row.clear()
            self._full[level] += 1
            level += 1

    def finish(self) -> None:
        """Compare the partial tiles at the right edge."""
        for level, row in enumerate(self._rows):
            if row:
                self._compare(level)

    def _compare(self, level: int) -> None:
        index, row = self._full[level], self._rows[level]
        if _read_tile(self._directory, level, index, len(row)) != tuple(row):
            raise _invalid(f"tile {index} of level {level} doesn't hold the hashes of what is under it")
        self.compared += 1


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def _read_tile(directory: Path, level: int, index: int, width: int) -> tuple[bytes, ...]:
    data = _read(directory, tile_path(level, index, width), tile_path(level, index), WIDTH * HASH_SIZE)
    if len(data) not in (width * HASH_SIZE, WIDTH * HASH_SIZE):
        raise _invalid(f"tile {index} of level {level} has the wrong length")
    return split_hashes(data)[:width]


def _read(directory: Path, name: str, grown: str, limit: int) -> bytes:
    try:
        return read_bounded(directory / name, limit)
    except InputError as error:
        if error.code != "input.missing_file":
            raise _invalid(f"{name} can't be read") from None
    try:
        return read_bounded(directory / grown, limit)
    except InputError:
        raise _invalid(f"{name} can't be read") from None


def _invalid(reason: str) -> EvidenceError:
    return EvidenceError("evidence.tiles_invalid", f"The tiles don't hold: {reason}.")
