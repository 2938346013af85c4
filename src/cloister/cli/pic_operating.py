"""``pic approve``, ``deploy``, ``off``, ``on``, ``logs``: what an operator sees and decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.options import Debug, Json
from cloister.cli.pic_detectors import said
from cloister.cli.pic_options import Config, Directory, operator, print_json

Function = Annotated[str, typer.Argument(help="The function, module:qualname.")]
Ahead = Annotated[
    bool,
    typer.Option(
        "--ahead", help="Decide about a function that no process watches yet, and nothing is kept of."
    ),
]
_REJECTED = 1


def attach(app: typer.Typer) -> None:
    """Attach the commands."""
    app.command(
        "approve",
        help="Say that what a function does from now on is normal: a signed baseline is taken of it. Without "
        "one, nothing of it is blocked. With --target: say that it may reach for a host, folder or program.",
        epilog="Examples:  pic approve shop:export --calls 500   ·   "
        'pic approve shop:export --target "connect 10.1.2.3"   ·   '
        'pic approve shop:export --target "write /srv/reports/"   ·   '
        "pic approve shop:export --target 9f2c81d07a44be10",
    )(_approve)
    app.command(
        "release",
        help="End a function's containment in every process, within two seconds, and forget what was held "
        "against it. Its detectors stay: reject the one that was wrong.",
        epilog="Example:  pic release shop:export",
    )(_release)
    app.command(
        "deploy",
        help="Say that a function was changed: it is only observed until it is approved anew.",
        epilog="Example:  pic deploy shop:export",
    )(_deploy)
    app.command("off", help="Throw the kill switch: nothing is blocked any more, at once.")(_off)
    app.command("on", help="Take the kill switch back.")(_on)
    app.command(
        "acknowledge",
        help="Say that the damaged files that were put aside were looked at: they are kept, and no alarm any "
        "more, so that calls may be blocked again.",
        epilog="Example:  pic acknowledge --directory /var/lib/shop/pic",
    )(_acknowledge)
    watchdog = typer.Typer(no_args_is_help=True, help="The watchdog over a brain service.")
    watchdog.command(
        "reset",
        help="Take it out of safe mode, at its next look or start; the code is compared first.",
        epilog="Example:  pic watchdog reset --directory /var/lib/pic",
    )(_reset)
    app.add_typer(watchdog, name="watchdog")
    logs = typer.Typer(no_args_is_help=True, help="The audit of decisions.")
    logs.command(
        "export",
        help="Verify the audit and write its entries as JSON Lines, with the verdict beside them.",
        epilog="Example:  pic logs export decisions.jsonl",
    )(_export)
    app.add_typer(logs, name="logs")


def _approve(
    function: Function,
    calls: Annotated[int, typer.Option("--calls", help="Observed calls that it is taken from.")] = 200,
    hours: Annotated[
        float, typer.Option("--hours", help="Least hours it is taken over: one period of the load.")
    ] = 0.0,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="What it may reach for: an operation (connect, resolve, listen, read, write, run, "
            "load, signal) and its target, or the id of a new one, as the error and pic status name it. No "
            "baseline is taken.",
        ),
    ] = None,
    ahead: Ahead = False,
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with operator(config, directory) as opened:
        if not ahead:
            opened.require_known(function)
        if target is not None:
            return said(opened.approve_target(function, target), as_json=as_json)
        return said(opened.approve(function, calls=calls, span=hours * 3600), as_json=as_json)


def _deploy(
    function: Function,
    ahead: Ahead = False,
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with operator(config, directory) as opened:
        if not ahead:
            opened.require_known(function)
        return said(opened.deploy(function), as_json=as_json)


def _release(
    function: Function,
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with operator(config, directory) as opened:
        return said(opened.release(function), as_json=as_json)


def _off(
    config: Config = None, directory: Directory = None, as_json: Json = False, debug: Debug = False
) -> int:
    with operator(config, directory) as opened:
        opened.switch_off()
        return _switch(opened.switched_off(), as_json=as_json)


def _on(
    config: Config = None, directory: Directory = None, as_json: Json = False, debug: Debug = False
) -> int:
    with operator(config, directory) as opened:
        opened.switch_on()
        return _switch(opened.switched_off(), as_json=as_json)


def _acknowledge(
    config: Config = None, directory: Directory = None, as_json: Json = False, debug: Debug = False
) -> int:
    with operator(config, directory) as opened:
        found = opened.acknowledge()
    if as_json:
        print_json({"acknowledged": list(found)})
    for name in () if as_json else found:
        print(f"acknowledged: {name}")
    if not found and not as_json:
        print("No damaged file is there.")
    return 0


def _reset(
    config: Config = None, directory: Directory = None, as_json: Json = False, debug: Debug = False
) -> int:
    with operator(config, directory) as opened:
        opened.reset_watchdog()
    if as_json:
        print_json({"watchdog": "reset asked for"})
    else:
        print("The watchdog leaves safe mode at its next look or start, if the code is what was signed.")
    return 0


def _switch(thrown: str, *, as_json: bool) -> int:
    if as_json:
        print_json({"kill_switch": thrown})
    elif thrown == "nothing":
        print("On: unusual calls of enforcing functions are blocked again.")
    else:
        print(f"Off: nothing is blocked (thrown by: {thrown}).")
    return 0


def _export(
    out: Annotated[Path, typer.Argument(help="The file to make.")],
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with operator(config, directory, reading=True) as opened:
        verdict = opened.export(out)
    if as_json:
        print(json.dumps(verdict.as_json(), indent=2, sort_keys=True))
    elif not verdict.written:
        print(f"Nothing was decided yet: there is no audit, and {out} wasn't made.")
    else:
        word = "accepted" if verdict.accepted else "REFUSED"
        print(f"{word}: {verdict.entries} entries in {out}")
        for problem in verdict.problems:
            print(f"  - {problem}")
        if not verdict.vouched_outside:
            print(
                "Nothing outside of the folder vouched for it: who owns the folder could have cut away the "
                "newest entries. Name a second place:  storage.checkpoint_directory"
            )
    return 0 if verdict.accepted else _REJECTED
