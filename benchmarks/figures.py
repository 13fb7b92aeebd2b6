"""Figures of the results, as PNG and SVG.

| figure | shows |
|---|---|
| `attention` | learned attention of XPA on a grid, and true influence of neighbours |
| `examination` | for a mixed population, the true examination of each user type, and |
| | the learned examination of each mixture component |
| `sessions` | NDCG by number of training sessions |
| `confounding` | NDCG by share of random lists; other lists are best or worst first |
| `updates` | hit rate of retrieval by day, for each kind of update |
| `repair` | quality of estimated relevance, by graph components and by repair |
| `horizons` | NDCG after each of ten rounds in which a ranker learns from its own log |
| `offline` | agreement of each offline metric with the truth |
| `production` | gain of debiasing, by strength of the production ranker |

The command trains models for `attention` and `examination`. The other figures show
published results.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import special, stats

from benchmarks.experiments import RESULTS
from benchmarks.harness import store
from benchmarks.harness.drawing import band
from benchmarks.harness.plan import Table
from benchmarks.harness.tables import View, views
from benchmarks.questions import drawings, graph, horizons, offline, production
from benchmarks.ranking.learners import LEARNERS
from benchmarks.ranking.protocol import World, trained, world
from benchmarks.ranking.settings import Size
from benchmarks.ranking.tables import CONFOUNDED, CONFOUNDING, FULL, SESSIONS
from benchmarks.ranking.truths import neighbours
from benchmarks.retrieval import updates
from debias.data.files import atomic_write
from debias.models import XPA, ClickModel, Mixture
from debias.models.batches import batches
from debias.training.config import TrainingConfig

STYLE: Any = {"svg.hashsalt": "debias", "font.size": 9, "axes.titlesize": 10}


Draw = Callable[[ClickModel, World], Figure]
Curves = Mapping[str, np.ndarray]  # (L,) by label


def of_model(row: str, crowd: str, draw: Draw, seed: int, size: Size) -> Figure:
    """Trains a row of the main table in the world of `seed`, and draws its figure."""
    keras.backend.clear_session()
    found = world(crowd, seed, None, size)
    build = LEARNERS[row].build
    config = TrainingConfig(seed=seed)
    model, _ = trained(found, lambda s: build(s, found), config)
    return draw(model, found)


def save(name: str, folder: Path, seed: int, size: Size = FULL) -> None:
    """Draws the figure `name` as PNG and SVG, and replaces each file atomically."""
    with matplotlib.rc_context(STYLE):
        figure = FIGURES[name](seed, size)
        for suffix in ("png", "svg"):
            with atomic_write(folder / f"{name}.{suffix}") as aside:
                plain = {"Date": None} if suffix == "svg" else {}
                figure.savefig(aside, format=suffix, dpi=150, metadata=plain)


def attention(model: ClickModel, found: World) -> Figure:
    """Draws learned attention and true influence between positions as heatmaps."""
    assert isinstance(model, XPA)
    learned, true = neighbours(model, found)
    apart = ~np.eye(len(true), dtype=bool)
    rho = stats.spearmanr(learned[apart], true[apart]).statistic
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    titles = ("attention of XPA", "true influence")
    for axes, title, values in zip(
        figure.subplots(1, 2), titles, (learned, true), strict=True
    ):
        axes.imshow(np.where(apart, values, np.nan), cmap="viridis")
        places = np.arange(len(values))
        axes.set_xticks(places, places + 1)
        axes.set_yticks(places, places + 1)
        axes.set_xlabel("neighbour at place j")
        axes.set_title(title)
    figure.axes[0].set_ylabel("item at place k")
    figure.suptitle(f"Whom a cell competes with (Spearman {rho:.2f})")
    return figure


def examination(model: ClickModel, found: World) -> Figure:
    """Draws examination by rank, of true user types and of learned components.

    The curves of true types assume lists in which all items have the mean attraction of
    shown items. The curve of a learned component is its mean click probability over the
    items shown at each rank.
    """
    assert isinstance(model, Mixture)
    log = found.test.log.take(np.arange(min(2048, found.test.log.sessions)))
    assert log.attraction is not None and log.mask is not None
    alike = np.full((1, log.list_size), log.attraction[log.mask].mean())
    batch, _ = next(iter(batches(log, found.test.data, log.sessions, shuffle=False)))
    p = special.expit(np.asarray(model(batch)["logits"])).mean(axis=0)
    share = np.exp(np.asarray(model.log_prior()))
    types, components = {}, {}
    for weight, behaviour in found.population.types:
        label = f"{type(behaviour).__name__}, {weight:.0%}"
        types[label] = behaviour.click_probability(alike)[0]
    for component in np.argsort(-share):
        label = f"component {component + 1}, {share[component]:.0%}"
        components[label] = p[:, component]
    return kinds_and_components(types, components)


def kinds_and_components(types: Curves, components: Curves) -> Figure:
    """Draws two panels of examination by rank: true types, and learned components.

    The first line is the widest, so it stays visible below a line with equal values.
    """
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    drawn = {"kinds of users": types, "components of the mixture": components}
    for axes, (title, curves) in zip(
        figure.subplots(1, 2, sharey=True), drawn.items(), strict=True
    ):
        for number, (label, curve) in enumerate(curves.items()):
            ranks, width = np.arange(1, len(curve) + 1), 1.6 if number else 4
            axes.plot(ranks, curve / curve[0], marker="o", ms=3, lw=width, label=label)
        axes.set_title(title)
        axes.set_xlabel("rank")
        axes.set_xticks(ranks)
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel("clicks over those at rank 1")
    return figure


Views = Mapping[str, View]  # by population


def of_results(
    table: Table, draw: Callable[[Views], Figure], seed: int, size: Size
) -> Figure:
    """Draws a figure from the published results of a table."""
    return draw(published(table))


def published(table: Table) -> Views:
    """The published results of a table, by population."""
    path = RESULTS / f"{table.name}.jsonl"
    if not path.exists():
        raise ValueError(f"{path} does not exist: publish table {table.name} first")
    return {view.population: view for view in views(table, store.read(path))}


def sessions(found: Views) -> Figure:
    """NDCG@5 by number of training sessions, with intervals."""
    at = {float(name): view for name, view in found.items()}
    sizes = sorted(at)
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for row in SESSIONS.rows:
        of = [size for size in sizes if row in at[size].values]
        if of:
            band(axes, of, [at[size].mean(row, "ndcg@5") for size in of], row)
    axes.set_ylim(0, 1)  # the range of NDCG; intervals of few seeds may exceed it
    axes.set_xscale("log")
    axes.set_xlabel("training sessions")
    axes.set_ylabel("NDCG@5, mean and 95% interval")
    axes.legend(frameon=False)
    axes.set_title("What more clicks bring, on a mixed crowd")
    return figure


def confounding(found: Views) -> Figure:
    """NDCG@10 by share of random lists; the other lists are best or worst first."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    for axes, way in zip(
        figure.subplots(1, 2, sharey=True), ("best", "worst"), strict=True
    ):
        names = [n for n in found if n.startswith(way)]
        share = {name: float(name.rpartition("-")[2]) for name in names}
        share["random-order"] = 1.0
        names = sorted(share, key=share.__getitem__)
        for row in CONFOUNDED:
            unmeasured = any(row not in found[name].values for name in names)
            if row == "naive" or unmeasured:  # `naive` lies on `softmax_naive`
                continue
            means = [found[name].mean(row, "ndcg@10") for name in names]
            band(axes, [share[name] for name in names], means, row)
        axes.set_title(f"{way} first")
        axes.set_xlabel("share of sessions in random order")
    figure.axes[0].set_ylabel("NDCG@10, mean and 95% interval")
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=4, frameon=False)
    return figure


def by_day(found: Views) -> Figure:
    """HR@50 on each of ten days by kind of update, with one panel per population."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    days = range(1, updates.DAYS + 1)
    for axes, (population, view) in zip(panels, found.items(), strict=True):
        for row in updates.ROWS:
            means = [view.mean(row, f"hr@50-day-{day}") for day in days]
            band(axes, days, means, row)
        axes.set_title(population)
        axes.set_xlabel("day")
        axes.set_xticks(days)
    panels[0].set_ylabel("HR@50, mean and 95% interval")
    panels[-1].legend(frameon=False)
    return figure


FIGURES: Mapping[str, Callable[[int, Size], Figure]] = {
    "attention": partial(of_model, "xpa", "grid", attention),
    "examination": partial(of_model, "mixture", "mixed", examination),
    "sessions": partial(of_results, SESSIONS, sessions),
    "confounding": partial(of_results, CONFOUNDING, confounding),
    "updates": partial(of_results, updates.TABLE, by_day),
    "repair": partial(of_results, graph.TABLE, drawings.repairs),
    "horizons": partial(of_results, horizons.TABLE, drawings.by_round),
    "offline": partial(of_results, offline.TABLE, drawings.scoreboards),
    "production": partial(of_results, production.TABLE, drawings.gains),
}
"""Figures by name; each entry is drawn and tested."""
