"""Figures of the diagnosis: rank graph, profiles, calibration, populations."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Arc

from debias.diagnosis.calibration import Calibration
from debias.diagnosis.identifiability import (
    WEAK,
    Connectivity,
    Profile,
    spanning_tree,
    words,
)
from debias.diagnosis.populations import Populations
from debias.training.figures import (
    APART,
    BAD,
    INK,
    PAPER,
    SERIES,
    SOFT,
    drawing,
    rank_axis,
)

ARCS = 20  # most ranks between which all arcs are drawn
LABEL = 18  # points that the label of a rank needs


def graph(found: Connectivity, width: int = 760) -> str:
    """Draws the ranks as a graph; a darker arc means a more precise comparison.

    With more than `ARCS` ranks, only the most precise arcs that link all ranks are
    drawn, and only some ranks are labelled.
    """
    ranks, links = len(found.component), _links(found)
    room = 0.75 * width / ranks  # points per rank
    every = math.ceil(LABEL / room)
    reach = max([1, *(b - a for a, b in found.swaps), *(b - a for a, b in links)])
    # Arcs of neighbours are as wide as high.
    height = min(260 if width > 500 else 220, round(50 + reach * width / ranks))
    with drawing("graph", width, height) as (_, axes, out):
        axes.set_axis_off()
        for one, other in links:
            firm = min(1.0, 0.3 * WEAK / max(found.error[one, other], 1e-9))
            _arc(axes, one, other, SERIES[0], 0.4 + 1.4 * firm, 0.1 + 0.5 * firm)
        for a, b in found.swaps:
            _arc(axes, a - 1, b - 1, BAD, 1.8, 1.0, "--")
        for rank, component in enumerate(found.component):
            color = (
                SOFT if component < 0 else SERIES[APART[int(component) % len(APART)]]
            )
            named = rank % every == 0
            size, above = (15, 5) if named else (min(15, 0.7 * room), 4)
            axes.plot(
                rank, 0, "o", ms=size, mfc=PAPER, mec=color, mew=1.8, zorder=above
            )
            if named:
                axes.text(rank, 0, str(rank + 1), ha="center", va="center", zorder=6)
        edge = max(0.6, 0.5 * LABEL / room)
        axes.set_xlim(-edge, ranks - 1 + edge)
        axes.set_ylim(-12 * reach / (height - 50), 1.05 * reach)
    return out[0]


def _links(found: Connectivity) -> list[tuple[int, int]]:
    """Pairs of ranks, from 0, that `graph` joins by an arc."""
    if len(found.component) > ARCS:
        tree = spanning_tree(found.error, found.component >= 0)
        return sorted((min(a, b), max(a, b)) for a, b in zip(*tree.coords, strict=True))
    links = np.triu((found.pairs > 0) & np.isfinite(found.error), 1)
    return list(zip(*np.nonzero(links), strict=True))


def _arc(
    axes: Axes,
    one: int,
    other: int,
    color: str,
    lw: float,
    alpha: float,
    ls: str = "-",
) -> None:
    middle, span = (one + other) / 2, other - one
    axes.add_patch(
        Arc(
            (middle, 0),
            span,
            2 * span,
            theta1=0,
            theta2=180,
            color=color,
            lw=lw,
            alpha=alpha,
            ls=ls,
        )
    )


def profile(found: Profile, level: float = 3.84, width: int = 760) -> str:
    """Draws the profile likelihood of each rank, and a dashed line at `level`.

    The default, 3.84, is the 95% quantile of chi-squared with one degree of freedom.
    """
    with drawing("profile", width, 330 if width > 500 else 290) as (_, axes, out):
        middle = np.searchsorted(found.deltas, 0)
        moves = np.insert(found.deltas, middle, 0.0)
        ranks = np.flatnonzero(~np.isnan(found.bias))[1:]
        for order, k in enumerate(ranks):
            value = np.insert(found.statistic[k], middle, 0.0)
            share = 1 - 0.75 * order / max(1, len(ranks) - 1)
            color = SERIES[0] if found.identified[k] else BAD
            axes.plot(
                moves, value, color=color, lw=1.5, alpha=share, marker="o", ms=2.5
            )
        _name_unknown(axes, found, ranks)
        axes.axhline(level, color=INK, lw=1, ls=(0, (4, 3)))
        axes.set_yscale("symlog", linthresh=10)
        axes.set_ylim(0)
        axes.minorticks_off()
        axes.set_xlabel("move of a rank's bias, logits")
        axes.set_ylabel("2 × fall in log-likelihood")
    return out[0]


def _name_unknown(axes: Axes, found: Profile, ranks: np.ndarray) -> None:
    """Labels the lines of unidentified ranks; lines with close ends share a label."""
    ends: dict[float, list[int]] = {}
    for k in ranks[~found.identified[ranks]]:
        height = float(found.statistic[k, -1])
        near = [end for end in ends if abs(end - height) < 2]
        ends.setdefault(near[0] if near else height, []).append(int(k) + 1)
    for height, named in ends.items():
        axes.annotate(
            f"rank {words(np.array(named))}",
            (found.deltas[-1], height),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=BAD,
        )


def calibration(found: Calibration, width: int = 760) -> str:
    """Draws the calibration error by rank; ticks bound the error due to chance."""
    with drawing("calibration", width, 260) as (_, axes, out):
        x = found.position
        axes.vlines(x, found.lower, found.upper, color=SERIES[0], lw=5, alpha=0.25)
        wrong = found.error > found.chance
        for part, color in ((~wrong, SERIES[0]), (wrong, BAD)):
            axes.plot(x[part], found.error[part], "o", ms=5, color=color)
        axes.hlines(found.chance, x - 0.3, x + 0.3, color=INK, lw=1.2)
        axes.set_ylim(0)
        axes.set_ylabel("calibration error")
        rank_axis(axes, len(x))
    return out[0]


def populations(found: Populations, width: int = 760) -> str:
    """Draws the held-out gain over one population, by number of populations.

    The dashed line is the gain of a model in which a click depends on the clicks above.
    """
    with drawing("populations", width, 260) as (_, axes, out):
        reach = 1.96 * found.error
        axes.axhline(0, color=SOFT, lw=0.8)
        axes.axhline(found.earlier, color=INK, lw=1, ls=(0, (4, 3)))
        for at, count in enumerate(found.count):
            chosen = count == found.chosen
            color = SERIES[0] if chosen else SOFT
            ends = found.gain[at] - reach[at], found.gain[at] + reach[at]
            axes.plot([count, count], ends, color=color, lw=5, alpha=0.3)
            axes.plot(count, found.gain[at], "o", ms=7 if chosen else 5, color=color)
        axes.set_xticks(found.count)
        axes.set_xlim(0.5, found.count[-1] + 0.5)
        axes.set_xlabel("populations")
        axes.set_ylabel("held-out gain, nats per session")
    return out[0]
