"""The figures of an audit's report, as SVG that stands in the page. Colours are Okabe and Ito's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cloister.privacy.audit.canaries import CanaryAudit
from cloister.privacy.audit.check import Conformance
from cloister.privacy.audit.membership import Membership, Roc, most_true

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cloister.privacy.audit.report import Pictures

_BLUE, _RED, _GREEN, _PINK, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"


def noise_scales(result: Conformance) -> str:
    """Each tensor's measured noise over what the plan says, with the span where no alarm is raised."""
    found = [
        one for one in result.checks if one.name.partition("/")[0] in {"noise-scale", "empty-batch", "model"}
    ]
    figure, axes = _axes("noise: measured over stated standard deviation", height=0.5 + 0.24 * len(found))
    for place, one in enumerate(reversed(found)):
        # The chi-square's span, by its normal approximation: for the eye alone.
        reach = float(np.sqrt(-2 * np.log(one.alarm / 2)) / np.sqrt(2 * one.draws))
        axes.plot([max(0.0, 1 - reach), min(2.5, 1 + reach)], [place, place], color="#c9d3dc", linewidth=6)
        axes.plot(
            [min(one.observed, 2.5)], [place], "o" if one.passed else "X", color=_BLUE if one.passed else _RED
        )
    axes.axvline(1, color=_GREY, linewidth=0.8)
    axes.set_yticks(
        range(len(found)), [f"{one.name} ({one.draws:,})" for one in reversed(found)], fontsize=7.5
    )
    axes.set_xlim(0.25, 1.75)
    axes.grid(visible=False)
    return _svg(figure)


def canary_scores(found: CanaryAudit) -> str:
    """How the scores of canaries that were in and out lie."""
    figure, axes = _axes("canaries: the auditor's score")
    low, high = np.quantile(found.scores, [0.001, 0.999])
    bins = np.linspace(low, max(high, low + 1e-9), 50)
    for inside, colour, name in ((True, _RED, "were in"), (False, _BLUE, "were out")):
        chosen = found.scores[found.inside == inside]
        axes.hist(np.clip(chosen, low, high), bins=list(bins), color=colour, alpha=0.55, label=name)
    axes.set_ylabel("canaries", fontsize=9)
    axes.set_xlabel("score: the higher, the surer that it was in", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def bounds(found: CanaryAudit) -> str:
    """The lower bound beside the claim."""
    figure, axes = _axes("epsilon: lower bound and claim")
    axes.barh(["lower bound", "claimed"], [found.bound, found.claimed], color=[_RED, _BLUE], height=0.55)
    for place, value in enumerate([found.bound, found.claimed]):
        axes.text(value, place, f" {value:.2f}", va="center", fontsize=8)
    axes.set_xlim(0, 1.15 * max(found.bound, found.claimed, 0.1))
    axes.grid(visible=False)
    return _svg(figure)


def curves(ways: Sequence[Membership], model: Roc | None, epsilon: float, delta: float) -> str:
    """Members found against others accused, both on logarithmic axes; empty where nothing was attacked."""
    lines = [(f"{one.name}, LiRA", one.lira, "-") for one in ways]
    lines += [(f"{one.name}, loss", one.loss_threshold, ":") for one in ways]
    if model is not None:
        lines.append(("this model, loss", model, "--"))
    if not lines:
        return ""
    figure, axes = _axes("membership: members found against others accused", height=4.0)
    rates = np.logspace(-2, 0, 200)
    axes.plot(rates, rates, color=_GREY, linewidth=0.8, label="guessing")
    most = [most_true(rate, epsilon, delta) for rate in rates]
    axes.plot(
        rates, most, color="#000000", linewidth=1, linestyle="-.", label=f"most at epsilon {epsilon:.3g}"
    )
    colours = dict(zip([one.name for one in ways], (_RED, _BLUE, _GREEN), strict=False))
    for name, curve, style in lines:
        colour = colours.get(name.rpartition(",")[0], _PINK)
        axes.plot(
            curve.false_rates,
            curve.true_rates,
            style,
            color=colour,
            label=f"{name} ({curve.area:.3f})",
            drawstyle="steps-post",
        )
    axes.set(xscale="log", yscale="log", xlim=(1e-2, 1), ylim=(1e-2, 1.05))
    axes.set_xlabel("share of others taken for members", fontsize=9)
    axes.set_ylabel("share of members found", fontsize=9)
    axes.legend(
        frameon=False, fontsize=7.5, loc="lower right", title="area under the curve", title_fontsize=7.5
    )
    return _svg(figure)


def gallery(pictures: Pictures) -> str:
    """The records in the first row, and below it what was rebuilt of each from each update."""
    from matplotlib.figure import Figure

    count = min(len(pictures.originals), 10)
    rows = [("the records", pictures.originals), *((one.name, one.rebuilt) for one in pictures.results)]
    figure = Figure(figsize=(1.9 + 0.75 * count, 0.95 * len(rows)), layout="constrained")
    low, high = float(pictures.originals.min()), float(pictures.originals.max())
    height, width = pictures.shape
    grid = figure.subplots(len(rows), count, squeeze=False)
    for (name, records), line in zip(rows, grid, strict=True):
        line[0].set_ylabel(name.replace(", ", ",\n"), fontsize=7.5, rotation=0, ha="right", va="center")
        for record, axes in zip(records, line, strict=False):
            picture = np.full(height * width, low)
            picture[: len(record)] = record
            axes.imshow(
                picture.reshape(height, width), cmap="gray", vmin=low, vmax=high, interpolation="nearest"
            )
            axes.set_xticks([])
            axes.set_yticks([])
    return _svg(figure)


def _axes(title: str, *, height: float = 2.6) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context(
        {"svg.hashsalt": "cloister", "svg.fonttype": "none", "font.family": "sans-serif"}
    ):
        figure.savefig(text, format="svg", metadata={"Date": None})
    document = text.getvalue()
    return document[document.index("<svg") :]
