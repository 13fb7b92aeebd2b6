"""Figures where people would rather look than read, as PNG and SVG.

| figure | shows |
|---|---|
| `attention` | whom XPA attends to on a grid, beside the true influence of neighbours |
| `examination` | of a mixed crowd, the true curve of each kind of user and the curve |
| | of each component of a mixture |
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import special, stats

from benchmarks.experiments import FULL, MAIN, Size, Trial
from benchmarks.learners import LEARNERS
from benchmarks.protocol import World, trained, world
from benchmarks.truths import neighbours
from debias.data.files import whole
from debias.models import XPA, ClickModel, Mixture
from debias.pipeline import batches

STYLE: Any = {"svg.hashsalt": "debias", "font.size": 9, "axes.titlesize": 10}


class Drawing(NamedTuple):
    """What is drawn of which row of the main table."""

    row: str
    population: str
    draw: Callable[[ClickModel, World], Figure]


def drawn(name: str, seed: int, size: Size = FULL) -> Figure:
    """The figure of that name, of a model trained in world `seed`."""
    row, crowd, draw = FIGURES[name]
    keras.backend.clear_session()
    found = world(crowd, seed, None, size)
    build = LEARNERS[row]
    model, _ = trained(found, size, seed, lambda s: build(s, found), _rate(row, crowd))
    return draw(model, found)


def _rate(row: str, crowd: str) -> float:
    """The learning rate that the main table trains the row at."""
    trials = (each for each in MAIN.experiments if isinstance(each, Trial))
    return next(t.rate for t in trials if (t.row, t.population) == (row, crowd))


def save(name: str, folder: Path, seed: int, size: Size = FULL) -> None:
    """Draws NAME.png and NAME.svg, each whole or not at all."""
    with matplotlib.rc_context(STYLE):
        figure = drawn(name, seed, size)
        for suffix in ("png", "svg"):
            with whole(folder / f"{name}.{suffix}") as aside:
                plain = {"Date": None} if suffix == "svg" else {}
                figure.savefig(aside, format=suffix, dpi=150, metadata=plain)


def attention(model: ClickModel, found: World) -> Figure:
    """Two heatmaps, place k by place j, and their rank correlation."""
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
    """Click probability by rank over that at the first, of types and of components.

    True: of lists whose items are all as attractive as the average one shown. Learned:
    the mean click probability of each component over the items shown at a rank.
    """
    assert isinstance(model, Mixture)
    log = found.test.log.take(np.arange(min(2048, found.test.log.sessions)))
    assert log.attraction is not None and log.mask is not None
    alike = np.full((1, log.list_size), log.attraction[log.mask].mean())
    batch, _ = next(iter(batches(log, found.test.data, log.sessions, shuffle=False)))
    p = special.expit(np.asarray(model(batch)["logits"])).mean(axis=0)
    share = np.exp(np.asarray(model.log_prior()))
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ranks = np.arange(1, log.list_size + 1)
    for weight, behaviour in found.population.types:
        curve = behaviour.click_probability(alike)[0]
        label = f"{type(behaviour).__name__}, {weight:.0%}"
        left.plot(ranks, curve / curve[0], marker="o", markersize=3, label=label)
    for component in np.argsort(-share):
        curve = p[:, component]
        right.plot(
            ranks,
            curve / curve[0],
            marker="o",
            markersize=3,
            label=f"component {component + 1}, {share[component]:.0%}",
        )
    for axes, title in ((left, "kinds of users"), (right, "components of the mixture")):
        axes.set_title(title)
        axes.set_xlabel("rank")
        axes.set_xticks(ranks)
        axes.legend(frameon=False)
    left.set_ylabel("clicks over those at rank 1")
    return figure


FIGURES: Mapping[str, Drawing] = {
    "attention": Drawing("xpa", "grid", attention),
    "examination": Drawing("mixture", "mixed", examination),
}
"""Entering a figure here has it drawn and tested."""
