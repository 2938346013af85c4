"""Live progress of a job: one bar for the rounds and one for each hospital, with epsilon spent.

It goes to stderr, so that stdout holds the summary alone. The bars appear with the first site that is
attested: a job refused before that shows none.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cloister.federation.events import (
    RoundFinished,
    SiteAdmitted,
    SiteLeft,
    SiteRefused,
    SiteRoundFinished,
)
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.watching import RunEvent, Stage


def silent(event: RunEvent) -> None:
    """Show nothing."""


class JobProgress:
    """A live view of one job; a context manager, fed through :meth:`show`.

    Args:
        spec: The job that is about to run.
        mark: What everything of the run carries; empty for a protected one.
    """

    def __init__(self, spec: JobSpec, mark: str) -> None:
        self._attested = f"[yellow]attested ({mark})[/]" if mark else "attested"
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        rounds = spec.file.federation.rounds
        self._rounds = self._progress.add_task("rounds", total=rounds, note="")
        self._sites: dict[str, TaskID] = {
            site: self._progress.add_task(f"  {site}", total=rounds, note="")
            for site in sorted(spec.file.data.sites)
        }

    def __enter__(self) -> JobProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def show(self, event: RunEvent) -> None:
        """Show one event.

        Args:
            event: What happened.
        """
        match event:
            case Stage(sentence):
                self._console.print(sentence, style="dim")
            case SiteAdmitted(site):
                self._progress.start()
                self._note(site, self._attested)
            case SiteRefused(site, reason):
                self._progress.start()
                self._note(site, f"[bold red]refused: {reason}[/]")
            case SiteLeft(site, code=code):
                self._note(site, f"[bold red]left: {code}[/]")
            case SiteRoundFinished(site, number, epsilon):
                spent = "" if epsilon is None else f"epsilon {epsilon:.3f}"
                self._progress.update(self._sites[site], completed=number + 1, note=spent)
            case RoundFinished(number, metrics=metrics):
                shown = "  ".join(f"{name} {value:.3f}" for name, value in sorted(metrics.items()))
                self._progress.update(self._rounds, completed=number + 1, note=shown)
            case _:
                pass

    def _note(self, site: str, text: str) -> None:
        if site in self._sites:
            self._progress.update(self._sites[site], note=text)
