"""``pic status``: how every watched function stands, in the processes of a folder or at a brain service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cloister.cli.options import Debug, Json
from cloister.cli.pic_options import Config, Directory, operator, print_json, settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.core.canonical import JSON
    from cloister.immune.settings import ApiSettings
    from cloister.immune.supervisor import WatchdogStatus


_COUNTED = ("upkeep_failures", "effector_failures", "guard_failures")


def attach(app: typer.Typer) -> None:
    """Attach the command."""
    app.command(
        "status",
        help="How every watched function stands, in every process of the folder, or at a brain service.",
        epilog="Examples:  pic status   ·   pic status --directory /var/lib/shop/pic --json   ·   "
        "pic status --url http://127.0.0.1:8443",
    )(_status)


def _status(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            show_default="api.url, where the settings name no folder",
            help="Ask a running brain service instead of looking at a folder.",
        ),
    ] = None,
    config: Config = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    settings = settings_of(config, api__url=url)
    if url is not None or (
        directory is None and settings.storage.directory is None and settings.api.url is not None
    ):
        return _of_service(settings.api, as_json=as_json)
    with operator(config, directory, reading=True, tell=False) as opened:
        processes, thrown, watchdog = opened.processes(), opened.switched_off(), opened.watchdog()
        alarms = list(opened.alarms)
    for one in processes.values():
        told = one.get("alarms")
        alarms += [str(text) for text in (told if isinstance(told, list) else []) if text not in alarms]
    if as_json:
        by_process: dict[str, JSON] = {str(number): dict(one) for number, one in processes.items()}
        said: dict[str, JSON] = {"processes": by_process, "kill_switch": thrown, "alarms": list(alarms)}
        if watchdog is not None:
            said["watchdog"] = {
                "mode": watchdog.mode.value,
                "pid": watchdog.pid,
                "reason": watchdog.reason,
                "code_trust": watchdog.code_trust.value,
            }
        print_json(said)
        return 0
    from cloister.cli.console import console

    shown = console()
    _alarms(shown, alarms)
    if thrown != "nothing":
        shown.print(f"[bold yellow]OFF[/] the kill switch is thrown by: {thrown}")
    if watchdog is not None:
        _watchdog(shown, watchdog)
    if not processes:
        shown.print("No watched process is running. A brain service is asked by:  pic status --url URL")
        return 0
    _functions(shown, {f"{number}": _part(one, "functions") for number, one in processes.items()})
    _failures(shown, processes)
    _cores(shown, processes)
    return 0


def _failures(shown: Console, processes: Mapping[int, Mapping[str, JSON]]) -> None:
    """What failed inside the immune system, by kind: what a report of it needs. Calls went on."""
    from cloister.cli.text import printable

    for number, one in processes.items():
        kinds = [f"{kind} {count} times" for kind, count in _part(one, "fault_kinds").items()]
        kinds += [f"{name} {one[name]} times" for name in _COUNTED if one.get(name)]
        if kinds:
            shown.print(printable(f"Process {number}: failed inside, calls went on: {', '.join(kinds)}."))


def _cores(shown: Console, processes: Mapping[int, Mapping[str, JSON]]) -> None:
    """Whether each process judges with the compiled core, and why not."""
    from rich.text import Text

    from cloister.cli.text import printable

    for number, one in processes.items():
        said = f"Process {number} judges with the core that is {printable(str(one.get('core')))}."
        shown.print(Text(said, style="dim"))


def _of_service(api: ApiSettings, *, as_json: bool) -> int:
    from cloister.immune.service import read_status

    said = read_status(api)
    if as_json:
        print_json(said)
        return 0
    from cloister.cli.console import console
    from cloister.cli.text import printable

    shown, brain, service = console(), _part(said, "brain"), _part(said, "service")
    _alarms(shown, [str(one) for one in cast("list[JSON]", brain.get("alarms") or [])])
    left_out = brain.get("events_left_out")
    shown.print(
        printable(
            f"Version {service.get('version')}, {brain.get('events_taken')} events taken"
            + (f", {left_out} of too many functions left out." if left_out else ".")
        ),
        markup=False,
    )
    _functions(shown, {"": _part(brain, "functions")})
    return 0


def _part(said: Mapping[str, JSON], name: str) -> Mapping[str, JSON]:
    found = said.get(name)
    return found if isinstance(found, Mapping) else {}


def _alarms(shown: Console, alarms: list[str]) -> None:
    from rich.text import Text

    from cloister.cli.text import printable

    for alarm in alarms:
        shown.print(Text.assemble(("ALARM ", "bold red"), printable(alarm)))


def _watchdog(shown: Console, said: WatchdogStatus) -> None:
    from rich.text import Text

    from cloister.cli.text import printable
    from cloister.immune.watchdog import Mode

    if said.mode is Mode.WATCHING:
        shown.print(
            f"The watchdog's brain is process {said.pid}, started again {said.restarts} times lately;"
            f" whose word its code is: {said.code_trust.value}."
        )
        return
    reason = f" {printable(said.reason)}; no brain runs. End it:  pic watchdog reset"
    shown.print(Text.assemble((said.mode.value.upper(), "bold red"), reason))


def _functions(shown: Console, by_process: Mapping[str, Mapping[str, JSON]]) -> None:
    """A table of all functions; what a service doesn't know of them stays empty."""
    from rich.table import Table

    from cloister.cli.text import printable

    table = Table(
        "process", "function", "stage", "approval", "calls", "learned", "median", "blocked", box=None
    )
    for process, functions in by_process.items():
        for name, said in functions.items():
            facts = said if isinstance(said, Mapping) else {}
            median, decisions = facts.get("median_ms"), _part(facts, "decisions")
            table.add_row(
                process,
                printable(name),
                printable(str(facts.get("stage"))) + (" (enforcing)" if facts.get("enforcing") else ""),
                printable(str(facts.get("approval"))),
                str(facts.get("calls", "")),
                str(facts.get("learned")),
                f"{median:.3g} ms" if isinstance(median, int | float) else "",
                str(decisions.get("block", "")),
            )
    if table.row_count:
        shown.print(table)
    else:
        shown.print("No function was called yet.")
