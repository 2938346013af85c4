"""The report a person reads after a job: one HTML file that needs nothing else, plots included.

It shows only what the receipt and the named test set support, and repeats above everything else
what was simulated.
"""

from __future__ import annotations

import io
from importlib import resources
from itertools import cycle

import jinja2

from cloister.workflow.outcome import JobOutcome

# Okabe and Ito's palette: told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def render_report(outcome: JobOutcome) -> str:
    """Render the report of a finished job.

    Args:
        outcome: The job.

    Returns:
        A complete HTML document.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("cloister.workflow").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        job=outcome,
        metric_plot=_metric_plot(outcome),
        epsilon_plot=_epsilon_plot(outcome),
    )


def _metric_plot(outcome: JobOutcome) -> str:
    figure, axes = _axes(f"{outcome.metric} on {outcome.test_set}", outcome)
    rounds = [record.number for record in outcome.rounds]
    values = [record.metric for record in outcome.rounds]
    axes.plot(
        rounds, values, color=_COLOURS[0], marker="o", markersize=4, clip_on=False, label="global model"
    )
    axes.axhline(outcome.threshold, color=_COLOURS[1], linestyle="--", label="threshold in the manifest")
    axes.axhline(outcome.baseline, color="#666666", linestyle=":", label=f"baseline: {outcome.baseline_name}")
    axes.set_ylim(min(0.5, *values, outcome.baseline) - 0.02, 1.0)
    axes.legend(frameon=False, fontsize=8, loc="best")
    return _svg(figure)


def _epsilon_plot(outcome: JobOutcome) -> str:
    figure, axes = _axes(f"epsilon spent (delta {outcome.sites[0].delta:g})", outcome)
    rounds = [0, *(record.number for record in outcome.rounds)]
    # Sites with the same plan spend alike: ever thinner lines let the lower ones show.
    widths = range(2 + 2 * len(outcome.sites), 2, -2)
    for colour, width, site in zip(cycle(_COLOURS), widths, outcome.sites, strict=False):
        spent = [0.0, *(record.epsilon.get(site.site, 0.0) for record in outcome.rounds)]
        axes.plot(rounds, spent, color=colour, linewidth=width * 0.6, label=site.site, clip_on=False)
    limit = min(site.epsilon_limit for site in outcome.sites)
    axes.axhline(limit, color="#666666", linestyle="--", label=f"limit {limit:g}")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure)


def _axes(title: str, outcome: JobOutcome):  # type: ignore[no-untyped-def]  # matplotlib ships no types here
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("round", fontsize=9)
    axes.set_xlim(0, max(record.number for record in outcome.rounds))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure) -> str:  # type: ignore[no-untyped-def]
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context(
        {"svg.hashsalt": "cloister", "svg.fonttype": "none", "font.family": "sans-serif"}
    ):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    document = text.getvalue()
    return document[document.index("<svg") :]
