"""The files that a package consists of, as those who measure code see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

CACHES: Final = "__pycache__"
"""Where Python keeps what it compiled: no source, and different on each machine."""


def package_files(root: Path) -> Iterator[tuple[str, Path]]:
    """All files below a package's folder but byte-code caches.

    Args:
        root: the folder.

    Returns:
        Each file's path below the folder with ``/`` between its parts, and where it is; in no order.
    """
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        if path.is_file() and CACHES not in relative.parts:
            yield relative.as_posix(), path
