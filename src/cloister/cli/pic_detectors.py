"""``pic detectors``: candidates and promoted detectors, and what an operator decides about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.options import Debug, Json
from cloister.cli.pic_options import Config, Directory, operator, print_json

if TYPE_CHECKING:
    from cloister.core.canonical import JSON
    from cloister.immune.keeping import Detector
    from cloister.immune.keeping.events import StateEvent

Number = Annotated[int, typer.Argument(help="The detector's number, as in: pic detectors list")]


_STATES = ("candidate", "active", "rejected", "expired")


def group() -> typer.Typer:
    """The group of commands."""
    made = typer.Typer(
        no_args_is_help=True, help="Candidates and detectors: list, promote, retry, reject, roll back."
    )
    made.command(
        "list",
        help="All candidates and detectors, first those that may be promoted now.",
        epilog="Example:  pic detectors list --json",
    )(_list)
    made.command(
        "promote",
        help="Let a candidate that passed its validation apply: calls like it may be blocked.",
        epilog="Examples:  pic detectors promote 3   ·   pic detectors promote shop:export --feature size   "
        "·   pic detectors promote shop:export --all-passed",
    )(_promote)
    made.command(
        "retry",
        help="Ask for another trial of a candidate that failed its validation, on 100 ordinary calls from "
        "now on; a running process that watches the function makes it.",
        epilog="Example:  pic detectors retry 3",
    )(_retry)
    made.command(
        "reject",
        help="Refuse a candidate, or switch a detector off.",
        epilog='Example:  pic detectors reject 3 --reason "the nightly export"',
    )(_reject)
    made.command(
        "rollback",
        help="Put a function's detectors back to what they were before a promotion; without a snapshot's "
        "number, list the snapshots.",
        epilog="Examples:  pic detectors rollback shop:export   ·   pic detectors rollback shop:export 2",
    )(_rollback)
    return made


def _shown(one: Detector) -> dict[str, JSON]:
    verdict = one.verdict
    return {
        "id": one.id,
        "function": one.function_name,
        "state": one.state.value,
        "threshold": one.threshold,
        "made_by": one.provenance,
        "validation": None if verdict is None else verdict.reason,
        "passed": None if verdict is None else verdict.passed,
        "retry_at": one.retry_at,
        "expires_at": one.expires_at,
        "reason": one.reason,
        "version": one.version,
    }


def _trial(one: Detector) -> str:
    """What came of its validation, and whether another one is to come."""
    found = "not validated" if one.verdict is None else one.verdict.reason
    return found if one.retry_at is None else f"{found}; to be tried again"


def _of_use(one: Detector) -> tuple[int, str, bool, int]:
    """First what an operator may promote now, and of that first what stops the very call it recognises.

    How long a call takes is known only when it is over, and stops the next one.
    """
    passed = one.verdict is not None and one.verdict.passed
    ready = one.state == "candidate" and passed
    after = one.provenance.startswith(("duration", "run"))
    return (0 if ready else 1 + _STATES.index(one.state.value), one.function_name, after, one.id)


def _list(
    config: Config = None, directory: Directory = None, as_json: Json = False, debug: Debug = False
) -> int:
    with operator(config, directory, reading=True) as opened:
        found, alarms = sorted(opened.detectors(), key=_of_use), opened.alarms
    if as_json:
        print_json({"detectors": [_shown(one) for one in found]})
        return 0
    if not found:
        why = "what was kept is damaged" if alarms else "nothing unusual was seen yet"
        print(f"No candidate and no detector: {why}.")
        return 0
    from rich.table import Table

    from cloister.cli.console import console
    from cloister.cli.text import printable

    table = Table("id", "function", "state", "made by", "validation", box=None, pad_edge=False)
    for one in found:
        table.add_row(
            str(one.id),
            printable(one.function_name),
            one.state.value,
            printable(one.provenance),
            printable(_trial(one)),
        )
    console().print(table)
    return 0


def _promote(
    which: Annotated[
        str, typer.Argument(metavar="NUMBER|FUNCTION", help="The detector's number, or whose candidates.")
    ],
    all_passed: Annotated[
        bool, typer.Option("--all-passed", help="All candidates of the function that passed.")
    ] = False,
    feature: Annotated[
        str | None,
        typer.Option("--feature", metavar="NAME", help="Those of them that name it, as in: size."),
    ] = None,
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    of_function = all_passed or feature is not None
    if of_function is which.isdecimal():
        raise typer.BadParameter("name a detector's number, or a function and --all-passed or --feature")
    with operator(config, directory) as opened:
        if not of_function:
            return said(opened.promote(int(which)), as_json=as_json)
        events = opened.promote_passed(which, feature)
    if as_json:
        print_json({"promoted": [_happened(one) for one in events]})
        return 0
    for one in events:
        said(one, as_json=False)
    return 0


def _retry(
    number: Number,
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with operator(config, directory) as opened:
        return said(opened.retry(number), as_json=as_json)


def _reject(
    number: Number,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the audit keeps it.")],
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with operator(config, directory) as opened:
        return said(opened.reject(number, reason), as_json=as_json)


def _rollback(
    function: Annotated[str, typer.Argument(help="The function, module:qualname.")],
    snapshot: Annotated[int | None, typer.Argument(help="The snapshot's number.")] = None,
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with operator(config, directory, reading=snapshot is None) as opened:
        if snapshot is not None:
            return said(opened.roll_back(function, snapshot), as_json=as_json)
        found = opened.snapshots(function)
    if as_json:
        print_json({"snapshots": [{"id": one.id, "before": one.before} for one in found]})
    for one in () if as_json else found:
        print(f"{one.id}  before the {one.before}")
    if not found and not as_json:
        print(f"{function} has no snapshot: nothing was promoted yet.")
    return 0


def _happened(event: StateEvent) -> dict[str, JSON]:
    return {
        "happened": event.kind.value,
        "function": event.function,
        "reason": event.reason,
        "detector": event.detector,
    }


def said(event: StateEvent, *, as_json: bool) -> int:
    """Say what happened."""
    if as_json:
        print_json(_happened(event))
    else:
        print(f"{event.kind.value}: {event.function}: {event.reason}")
    return 0
