"""Figures of the tables of open questions, of their published results."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from benchmarks.harness.drawing import band
from benchmarks.harness.tables import View
from benchmarks.questions import graph, horizons, kinds, offline, production
from debias.metrics import Difference

Views = Mapping[str, View]  # by population


def by_round(found: Views) -> Figure:
    """NDCG@5 after each round, a panel a way of logging."""
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
    """Kendall's correlation with the truth, by scoreboard, a colour a crowd."""
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
    """Correlation of estimated and true relevance by components of the graph."""
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


def kinds_of_users(found: Views) -> Figure:
    """Difference in NDCG@5 from one kind of users, by kinds in the model."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    counts = range(2, kinds.MOST + 1)
    for population, view in found.items():
        label = f"{population} ({kinds.TRUE[population]})"
        differences = [view.paired(f"kinds_{k}", "ndcg@5", True) for k in counts]
        band(axes, counts, differences, label)
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set_xticks(counts)
    axes.set_xlabel("kinds of users in the model")
    axes.set_ylabel("NDCG@5 over one kind, % and 95% interval")
    axes.legend(frameon=False, title="crowd (kinds)")
    return figure


def map_of_winners(found: Views) -> Figure:
    """Difference in NDCG@5 from `softmax_naive`, by labels and sessions."""
    rows = ("product", "listwise", "production")
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    panels = figure.subplots(len(production.CROWDS), len(rows), squeeze=False)
    for line, crowd in zip(panels, production.CROWDS, strict=True):
        for axes, row in zip(line, rows, strict=True):
            grid = [
                [
                    _gain(found, crowd, labels, sessions, row)
                    for labels in production.LABELS
                ]
                for sessions in production.SESSIONS
            ]
            means = [[each.mean if each else 0.0 for each in some] for some in grid]
            axes.imshow(means, cmap="RdBu", vmin=-20, vmax=20, aspect="auto")
            for y, some in enumerate(grid):
                for x, each in enumerate(some):
                    if each:
                        sure = each.low > 0 or each.high < 0
                        text = f"{each.mean:+.1f}%"
                        weight = "bold" if sure else "normal"
                        axes.text(x, y, text, ha="center", va="center", weight=weight)
            axes.set_xticks(range(len(production.LABELS)), production.LABELS)
            axes.set_yticks(range(len(production.SESSIONS)), production.SESSIONS)
            axes.set_title(f"{row}, {crowd}")
    figure.supxlabel("% of the labels that the production ranker has seen")
    figure.supylabel("sessions")
    return figure


def _gain(
    found: Views, crowd: str, labels: int, sessions: str, row: str
) -> Difference | None:
    """Difference in NDCG@5 from the baseline in percent, where it was measured."""
    view = found.get(f"{crowd}-{labels}-{sessions}")
    return None if view is None else view.paired(row, "ndcg@5", True)
