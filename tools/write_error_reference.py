"""Writes docs/reference/errors.md from the codes that the rooms declare.

Use: python tools/write_error_reference.py
"""

from importlib import import_module
from pathlib import Path

import cloister
from cloister.core.errors import render_catalogue

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "errors.md"


def catalogue() -> str:
    """The page, with the codes of every room."""
    source = Path(cloister.__file__).parent
    for room in sorted(source.glob("*/errors.py")):
        import_module(f"cloister.{room.parent.name}.errors")
    return render_catalogue()


if __name__ == "__main__":
    PAGE.write_text(catalogue(), encoding="utf-8")
