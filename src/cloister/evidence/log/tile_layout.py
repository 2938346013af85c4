"""The layout of a log as static files (c2sp.org/tlog-tiles): names, tiles, and entry bundles.

A tile of level L and index N holds up to 256 hashes: the roots of the complete subtrees of height 8 L that
begin with number 256 N. A partial tile, at the right edge, has its width in its name. Entry bundles hold the
entries under the tiles of level 0, each behind its length in two bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import HASH_SIZE

WIDTH: Final = 256
TILE_HEIGHT: Final = 8
CHECKPOINT: Final = "checkpoint"
MAX_BUNDLE_BYTES: Final = WIDTH * (2 + 65_535)


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """The name of a tile of hashes: ``tile/<L>/<N>``, with ``.p/<W>`` if it is partial."""
    return f"tile/{level}/{_number(index)}{_partial(width)}"


def bundle_path(index: int, width: int = WIDTH) -> str:
    """The name of an entry bundle: ``tile/entries/<N>``, with ``.p/<W>`` if it is partial."""
    return f"tile/entries/{_number(index)}{_partial(width)}"


def tile_widths(size: int) -> Iterator[tuple[int, int, int]]:
    """The tiles of a tree.

    Args:
        size: how many entries it has.

    Yields:
        (level, how many full tiles there are, width of the partial one or 0) for each level that has any.
    """
    level, hashes = 0, size
    while hashes:
        yield level, hashes // WIDTH, hashes % WIDTH
        level, hashes = level + 1, hashes // WIDTH


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry behind its length as a big-endian number of two bytes."""
    return b"".join(len(one).to_bytes(2, "big") + one for one in entries)


def decode_bundle(data: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle.

    Raises:
        EvidenceError: ``evidence.tiles_invalid`` if a length leads past the end, or it has more than 256.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        if len(entries) == WIDTH:
            raise EvidenceError("evidence.tiles_invalid", f"An entry bundle has more than {WIDTH} entries.")
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise EvidenceError("evidence.tiles_invalid", "An entry bundle ends within an entry.")
        entries.append(data[at + 2 : end])
        at = end
    return tuple(entries)


def split_hashes(data: bytes) -> tuple[bytes, ...]:
    """The hashes of a tile."""
    return tuple(data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE))


def _number(index: int) -> str:
    """Three digits a folder, all but the last with an x before them: 1234067 is x001/x234/067."""
    parts = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        parts.append(f"x{index % 1000:03d}")
    return "/".join(reversed(parts))


def _partial(width: int) -> str:
    return "" if width == WIDTH else f".p/{width}"
