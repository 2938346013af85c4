"""``cloister run``: live progress while a job runs, a summary when it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.cli.failure import EXIT_REFUTED
from cloister.enclave.protection import Protection
from cloister.evidence.predicates import MOCK, SEEDED_TEST

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.workflow.attester import ProvenMachine
    from cloister.workflow.outcome import JobOutcome


def run_command(
    job: Path,
    workspace: Path | None,
    data: Path | None,
    test_seed: int | None,
    *,
    as_json: bool,
    quiet: bool,
    protection: Protection = Protection.SIMULATED,
    machine: ProvenMachine | None = None,
    options: Mapping[str, str] | None = None,
) -> int:
    """Run a job and return the exit code.

    Args:
        job: The job file.
        workspace: Folder for keys, logs, budgets and finished jobs; None for the settings' one.
        data: Folder with the data files; None for the settings' one.
        test_seed: Seed of the test-only generator, or None for the operating system's entropy.
        as_json: Print JSON.
        quiet: Print nothing.
        protection: What a run on simulated chips is: a simulation, or insecure on purpose.
        machine: The machine that has proved itself, for a protected run; then ``protection`` isn't asked.
        options: Settings for this run alone, by name.

    Returns:
        0 if the model reached its threshold and the receipt verified, else 1.
    """
    from cloister.cli.progress import JobProgress, silent
    from cloister.core.clock import system_clock
    from cloister.core.settings import load_settings
    from cloister.workflow.attester import SimulatedChips, require_fitting_attestation
    from cloister.workflow.jobfile import load_job
    from cloister.workflow.sealing import begin_sealing

    given = {"workspace": workspace, "data_dir": data}
    settings = load_settings({**(options or {}), **{name: one for name, one in given.items() if one}})
    spec = load_job(job, data_dir=settings.data_dir)
    require_fitting_attestation(spec, protection if machine is None else Protection.PROTECTED)
    # The fork server loads the libraries while this process loads its own.
    begin_sealing()
    from cloister.workflow.run import run_job
    from cloister.workflow.workspace import open_workspace

    view: AbstractContextManager[object] = nullcontext()
    watch = silent
    if not (quiet or as_json):
        progress = JobProgress(spec, (protection if machine is None else machine.protection).mark)
        view, watch = progress, progress.show
    with open_workspace(settings.workspace, settings=settings) as opened, view:
        attester = machine or SimulatedChips(opened.simulated_vendor(system_clock), protection)
        outcome = run_job(
            spec,
            opened,
            watch=watch,
            data_dir=settings.data_dir,
            test_seed=test_seed,
            log_level=settings.log_level,
            log_file=settings.log_file,
            attester=attester,
        )
    if as_json:
        print(json.dumps(outcome.as_json(), indent=2))
    elif not quiet:
        _summarise(outcome)
    return 0 if outcome.accepted else EXIT_REFUTED


def _summarise(outcome: JobOutcome) -> None:
    from rich.table import Table

    from cloister.cli.console import (
        console,
        insecure_banner,
        mock_banner,
        simulated_banner,
        test_randomness_banner,
    )

    out = console()
    table = Table(title="Hospitals", title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("site")
    for name in (
        "patients",
        "steps",
        "noise",
        "epsilon / job limit",
        "all jobs / budget",
        f"accuracy on {outcome.test_set}",
        "AUROC",
    ):
        table.add_column(name, justify="right")
    for site in outcome.sites:
        table.add_row(
            site.site,
            str(site.records),
            str(site.steps),
            f"{site.noise_multiplier:.3f}",
            f"{site.epsilon:.4f} / {site.epsilon_limit:g}",
            f"{site.epsilon_dataset:.4f} / {site.epsilon_budget:g}",
            "n/a" if site.accuracy is None else f"{site.accuracy:.3f}",
            "undefined" if site.auroc is None else f"{site.auroc:.3f}",
        )
    out.print(table)
    for site in outcome.sites:
        if site.note:
            out.print(f"  {site.site}: {site.note}", style="dim")
    for site_name, reason in outcome.refused_sites.items():
        out.print(f"  [bold red]{site_name} took no part[/]: {reason}")

    passed = "[bold green]reached[/]" if outcome.passed else "[bold red]missed[/]"
    spread = (
        f", 95 % interval {outcome.interval[0]:.3f} to {outcome.interval[1]:.3f}" if outcome.interval else ""
    )
    out.print(
        f"\n{outcome.metric} [bold]{outcome.value:.3f}[/] on {outcome.test_set}"
        f" ({outcome.test_records} patients{spread}): threshold {outcome.threshold:g} {passed}"
    )
    out.print(
        f"improvement score {outcome.improvement:.3f} over {outcome.baseline_name} ({outcome.baseline:.3f});"
        f" {len(outcome.rounds)} rounds in {outcome.training_seconds:.1f} s"
    )
    if outcome.improvement <= 0:
        out.print("[bold yellow]no better than a constant answer[/]: the model learned nothing of use")
    banners = (
        (outcome.protection is Protection.INSECURE, insecure_banner),
        (outcome.simulated, simulated_banner),
        (outcome.randomness == MOCK, mock_banner),
        (outcome.randomness == SEEDED_TEST, test_randomness_banner),
    )
    for stands, banner in banners:
        if stands:
            out.print(banner())
    failed = [check.id for check in outcome.verdict.checks if check.outcome.value != "passed"]
    flag = " --accept-test-randomness" if outcome.randomness == SEEDED_TEST else ""
    if failed:
        out.print(f"[bold red]receipt refused[/]: {', '.join(failed)}")
    elif flag:
        out.print(f"receipt: all checks passed with test randomness accepted; refused without{flag}")
    else:
        out.print(f"receipt: all {len(outcome.verdict.checks)} checks passed")
    _show_noticed(outcome, out)
    for label, path in (
        ("model", outcome.model),
        ("receipt", outcome.receipt),
        ("report", outcome.report),
    ):
        out.print(f"  {label:8}{path}", soft_wrap=True)
    out.print(
        f"check it: cloister verify {outcome.receipt} --trust {outcome.trust}{flag}",
        soft_wrap=True,
        style="dim",
    )


def _show_noticed(outcome: JobOutcome, out: Console) -> None:
    for one in outcome.noticed:
        out.print(
            f"[bold yellow]noticed[/]: {one.incident_class} ({one.severity})"
            f" at {one.function or 'the immune system'}: {one.response} (event {one.event_id})"
        )
