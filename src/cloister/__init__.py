"""cloister: train models on records nobody may see, and give every party a proof of what happened.

Importing the package loads none of its rooms; users import from the room they need
(`from cloister.privacy import BudgetLedger`). `cloister.orchestrate` is loaded on first use.
"""

from __future__ import annotations

# Type checkers know this name; importing `typing` would cost more than the whole package.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from cloister.workflow.orchestrate import orchestrate as orchestrate

__version__ = "0.1.0"

__all__ = ["__version__", "orchestrate"]


def __getattr__(name: str) -> object:
    if name == "orchestrate":
        from cloister.workflow.orchestrate import orchestrate

        return orchestrate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
