"""Figures of the report as inline SVG, with colours from the page.

Each function draws at a given width in pixels. A page holds a wide and a narrow version
with the same font size. Placeholder colours are replaced by CSS variables, so one
drawing serves light and dark mode.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from debias.diagnosis.calibration import Calibration
from debias.diagnosis.identifiability import WEAK, Connectivity, Profile
from debias.diagnosis.populations import Populations
from debias.propensity.examination import Examination

# Placeholders by CSS variable; no drawing uses these colours otherwise.
INK, SOFT, GRID, PAPER, BAD = (f"#0100{i:02x}" for i in range(5))
SERIES = tuple(f"#0200{i:02x}" for i in range(9))
# Similar methods have similar colours: harvesting, position-based models, others.
METHODS = (
    *("pivot", "adjacent_chain", "all_pairs"),
    *("pbm_em", "pbm_mle", "pbm_conditional"),
    *("dla", "regression_em", "bias_tower"),
)
APART = (0, 3, 6, 7, 8, 1, 4, 2, 5)  # SERIES in decreasing order of contrast
_VARIABLES = {
    **dict(
        zip(
            (INK, SOFT, GRID, PAPER, BAD),
            ("ink", "soft", "grid", "paper", "bad"),
            strict=True,
        )
    ),
    **{color: f"series-{i}" for i, color in enumerate(SERIES)},
}
POINTS = 0.75  # points per CSS pixel
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
}


@contextmanager
def drawing(
    name: str, width: int, height: int
) -> Iterator[tuple[Figure, Axes, list[str]]]:
    """Context manager for a figure; its list receives the SVG as the only entry.

    Args:
        name: Prefix of the ids in the SVG; must be unique on a page.
        width, height: Pixels.
    """
    out: list[str] = []
    style: Any = {**_STYLE, "svg.hashsalt": f"{name} {width}"}
    with matplotlib.rc_context(style):
        size = (width * POINTS / 72, height * POINTS / 72)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.tick_params(pad=4)
        yield figure, axes, out
        target = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=nothing)
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :]
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # Screen readers read the sentence of the figure instead.
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*"', r'\1aria-hidden="true"', svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    # Ids are unique within a page.
    prefix = f"{name}-{width}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{prefix}", svg)
    out.append(svg)


def _ranks(axes: Axes, count: int) -> None:
    step = max(1, count // 12)
    axes.set_xticks(np.arange(1, count + 1, step))
    axes.set_xlim(0.6, count + 0.4)
    axes.set_xlabel("rank")


def colors(curves: Mapping[str, Examination]) -> dict[str, str]:
    """Placeholder colour for each curve: by method, or by order if methods repeat."""
    methods = [curve.method for curve in curves.values()]
    alike = len(set(methods)) < len(methods)
    found = {}
    for order, (label, curve) in enumerate(curves.items()):
        place = APART[order % len(APART)] if alike else 0
        if not alike and curve.method in METHODS:
            place = METHODS.index(curve.method)
        found[label] = INK if curve.confounded else SERIES[place]
    return found


def legend(curves: Mapping[str, Examination]) -> dict[str, str]:
    """CSS variable of each curve's colour in `examination`."""
    return {label: _VARIABLES[color] for label, color in colors(curves).items()}


def examination(
    curves: Mapping[str, Examination],
    flagged: np.ndarray,
    name: str = "examination",
    width: int = 760,
) -> str:
    """Draws curves with bands; raw click rates are dashed, flagged ranks ringed."""
    estimates = list(curves.values())
    with drawing(name, width, 380 if width > 500 else 320) as (_, axes, out):
        for each, color in zip(estimates, colors(curves).values(), strict=True):
            raw = each.confounded
            if np.isfinite(each.lower[1:]).any():
                axes.fill_between(
                    each.position, each.lower, each.upper, color=color, alpha=0.13, lw=0
                )
            axes.plot(
                each.position,
                each.examination,
                color=color,
                lw=1.8 if raw else 1.4,
                ls=(0, (4, 2.5)) if raw else "-",
                marker="o",
                ms=3.2,
                mec=PAPER,
                mew=0.5,
                zorder=4 if raw else 3,
            )
            if raw and flagged.any():
                axes.plot(
                    each.position[flagged],
                    each.examination[flagged],
                    ls="",
                    marker="o",
                    ms=9,
                    mfc="none",
                    mec=BAD,
                    mew=1.6,
                    zorder=5,
                )
        axes.set_ylim(0, _top(estimates))
        axes.set_ylabel("relative to rank 1")
        _ranks(axes, len(estimates[0]))
    return out[0]


def _top(estimates: list[Examination]) -> float:
    """Upper end of the axis: above all curves and their bands.

    A curve or a band that would leave the others far below leaves the drawing.

    >>> ranks = np.array([1, 2])
    >>> def curve(second):
    ...     return Examination(ranks, np.array([1.0, second]), *[ranks] * 4, "pivot")
    >>> round(_top([curve(2.0), curve(0.5)]), 3), _top([curve(0.5)] * 3 + [curve(1e5)])
    (2.1, 3.0)
    """
    tops = np.array([np.nanmax(each.examination) for each in estimates])
    bands = [np.nan_to_num(each.upper).max() for each in estimates]
    ends = np.maximum(tops, np.minimum(bands, 1.5 * tops))
    return max(1.05, float(np.minimum(1.05 * ends, 3 * np.median(tops)).max()))


def graph(found: Connectivity, width: int = 760) -> str:
    """Draws the graph of ranks; darker arcs are more precise."""
    ranks = len(found.component)
    with drawing("graph", width, 260 if width > 500 else 220) as (_, axes, out):
        axes.set_axis_off()
        reach = max([b - a for a, b in found.swaps], default=1)
        for one in range(ranks):
            for other in range(one + 1, ranks):
                error = found.error[one, other]
                if found.pairs[one, other] and np.isfinite(error):
                    firm = min(1.0, 0.3 * WEAK / max(error, 1e-9))
                    _arc(
                        axes, one, other, SERIES[0], 0.4 + 1.4 * firm, 0.1 + 0.5 * firm
                    )
                    reach = max(reach, other - one)
        for a, b in found.swaps:
            _arc(axes, a - 1, b - 1, BAD, 1.8, 1.0, "--")
        for rank, component in enumerate(found.component):
            color = (
                SOFT if component < 0 else SERIES[APART[int(component) % len(APART)]]
            )
            axes.plot(rank, 0, "o", ms=15, mfc=PAPER, mec=color, mew=1.8, zorder=5)
            axes.text(rank, 0, str(rank + 1), ha="center", va="center", zorder=6)
        axes.set_xlim(-0.6, ranks - 0.4)
        axes.set_ylim(-0.16 * reach, 1.05 * reach)
    return out[0]


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
    """Draws the profile likelihood of each rank; the dashed line is 3.84."""
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
            if not found.identified[k]:
                axes.annotate(
                    f"rank {k + 1}",
                    (moves[-1], value[-1]),
                    xytext=(0, 4 + 10 * (order % 2)),
                    textcoords="offset points",
                    ha="right",
                    fontsize=8,
                    color=BAD,
                )
        axes.axhline(level, color=INK, lw=1, ls=(0, (4, 3)))
        axes.set_yscale("symlog", linthresh=10)
        axes.set_ylim(0)
        axes.minorticks_off()
        axes.set_xlabel("move of a rank's bias, logits")
        axes.set_ylabel("2 × fall in log-likelihood")
    return out[0]


def calibration(found: Calibration, width: int = 760) -> str:
    """Draws the calibration error by rank; ticks show the part due to chance."""
    with drawing("calibration", width, 260) as (_, axes, out):
        x = found.position
        axes.vlines(x, found.lower, found.upper, color=SERIES[0], lw=5, alpha=0.25)
        wrong = found.error > found.chance
        for part, color in ((~wrong, SERIES[0]), (wrong, BAD)):
            axes.plot(x[part], found.error[part], "o", ms=5, color=color)
        axes.hlines(found.chance, x - 0.3, x + 0.3, color=INK, lw=1.2)
        axes.set_ylim(0)
        axes.set_ylabel("calibration error")
        _ranks(axes, len(x))
    return out[0]


def populations(found: Populations, width: int = 760) -> str:
    """Draws held-out gains over one population; dashed: models of clicks above."""
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
