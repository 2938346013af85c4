"""Draws how the log's costs grow: the figures of the section `growth`."""

from __future__ import annotations

from pathlib import Path

APPEND = {"append, ms": "until it is on disk", "append, CPU ms": "of that, processor time"}
PROOFS = {"inclusion proof, ms": "of inclusion", "consistency proof, ms": "of consistency"}
COLOURS = ("#0b6e99", "#b5541c")
MARKERS = ("o", "s")


def draw(figures: dict[str, float], path: Path) -> None:
    """Write a picture with a panel for appends and one for proofs, over the number of entries.

    Args:
        figures: what the section measured.
        path: the file to write; its ending says the format.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for panel, title, names in zip(
        panels, ("One durable append (median)", "One proof, verified (median)"), (APPEND, PROOFS), strict=True
    ):
        for (name, label), colour, marker in zip(names.items(), COLOURS, MARKERS, strict=True):
            found = {key: value for key, value in figures.items() if key.endswith(": " + name)}
            sizes = [int(key.partition(":")[0].replace(",", "")) for key in found]
            panel.plot(sizes, list(found.values()), color=colour, marker=marker, label=label)
        panel.set(title=title, xscale="log", xlabel="entries in the log", ylabel="ms")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
