"""Figures of the published results on open questions."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.drawing import band
from benchmarks.harness.tables import View
from benchmarks.questions import graph, horizons, offline, production

Views = Mapping[str, View]  # by population
GAINS = ("product", "listwise", "mixture", "ips_estimated_softmax", "auto")
"""The rows of `gains`."""


def by_round(found: Views) -> Figure:
    """NDCG@5 after each round, with one panel per logging policy."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    rounds = range(horizons.ROUNDS + 1)
    for axes, (population, view) in zip(panels, found.items(), strict=True):
        for row in (*horizons.LEARNERS, *horizons.BOUNDS):
            means = [view.mean(row, f"ndcg@5-round-{turn}") for turn in rounds]
            if any(means):
                band(axes, rounds, means, row)
        axes.set_title(population)
        axes.set_xlabel("round")
    panels[0].set_ylabel("NDCG@5, mean and 95% interval")
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=5, frameon=False)
    return figure


def scoreboards(found: Views) -> Figure:
    """Kendall's correlation of metrics with the truth, one colour per population."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    rows = (*offline.SCOREBOARDS, *offline.ONLINE)
    titles = {"tau_clicks": "with clicks to expect", "tau_ndcg": "with NDCG@10"}
    panels = figure.subplots(1, len(titles), sharey=True)
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        for number, (population, view) in enumerate(found.items()):
            for place, row in enumerate(rows):
                if mean := view.mean(row, metric):
                    at = place + 0.2 * (number - 1)
                    axes.errorbar(
                        mean.mean,
                        at,
                        xerr=mean.high - mean.mean,
                        color=f"C{number}",
                        marker="o",
                        markersize=3,
                        label=population if place == 0 else None,
                    )
        axes.axvline(0, color="grey", linewidth=0.5)
        axes.set_title(title)
        axes.set_xlabel("Kendall's tau, mean and 95% interval")
        axes.set_xlim(-1, 1)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].invert_yaxis()
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, frameon=False)
    return figure


def repairs(found: Views) -> Figure:
    """Correlation of estimated and true relevance, by number of graph components."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    names = [name for name in graph.BLOCKS if name in found]
    counts = [len(graph.BLOCKS[name]) for name in names]
    for row in (*graph.ROWS, *graph.BOUNDS):
        means = [found[name].mean(row, "relevance_correlation") for name in names]
        band(axes, counts, means, row)
    axes.set_xticks(counts)
    axes.set_xlabel("components of the graph of ranks")
    axes.set_ylabel("correlation with true relevance")
    axes.legend(frameon=False)
    return figure


def gains(found: Views) -> Figure:
    """Gain of debiasing over raw clicks, by strength of the production ranker.

    The figure has one row of panels per number of sessions, and one column per
    population.
    """
    measured = [
        size
        for size in production.SESSIONS
        if any(name.endswith(f"-{size}") for name in found)
    ]
    figure = Figure(figsize=(7.2, 0.8 + 2.1 * len(measured)), layout="constrained")
    crowds = production.CROWDS
    shape = (len(measured), len(crowds))
    panels = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    for line, size in zip(panels, measured, strict=True):
        for axes, crowd in zip(line, crowds, strict=True):
            _gains(
                axes, {x: found.get(f"{crowd}-{x}-{size}") for x in production.LABELS}
            )
        line[0].set_ylabel(f"{float(size):,.0f} sessions")
    for axes, crowd in zip(panels[0], crowds, strict=True):
        axes.set_title(crowd)
    panels[-1][1].set_xlabel("labels that the production ranker has seen")
    figure.supylabel("NDCG@5 minus that of softmax_naive", fontsize="medium")
    lines = panels[0][0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _gains(axes: Axes, views: Mapping[int, View | None]) -> None:
    """Each row's gain and interval by the share of labels."""
    for number, row in enumerate(GAINS):
        pairs = {x: view.paired(row, "ndcg@5") for x, view in views.items() if view}
        known = {x: pair for x, pair in pairs.items() if pair}
        if known:
            axes.errorbar(
                [x * (0.9 + 0.1 * number) for x in known],
                [pair.mean for pair in known.values()],
                yerr=[pair.high - pair.mean for pair in known.values()],
                color=f"C{number}",
                marker="o",
                markersize=3,
                label=row,
            )
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set_xscale("log")
    axes.set_xticks(production.LABELS, [f"{x}%" for x in production.LABELS])
