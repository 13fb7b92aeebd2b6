"""Figures of pages as inline SVG, with colours from the page.

Each function draws at a given width in pixels. A page has a wide and a narrow version
of each figure, with the same font size. Placeholder colours are replaced by CSS
variables, so one drawing serves light and dark mode.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
_VARIABLES = {INK: "ink", SOFT: "soft", GRID: "grid", PAPER: "paper", BAD: "bad"}
_VARIABLES |= {color: f"series-{i}" for i, color in enumerate(SERIES)}
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
    """Context manager that yields a figure, its axes, and a list for the SVG.

    Args:
        name: Prefix of the ids in the SVG, unique on a page.
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


def rank_axis(axes: Axes, count: int) -> None:
    step = max(1, count // 12)
    axes.set_xticks(np.arange(1, count + 1, step))
    axes.set_xlim(0.6, count + 0.4)
    axes.set_xlabel("rank")


def colors(curves: Mapping[str, Examination]) -> dict[str, str]:
    """Placeholder colour of each curve, by method or, if methods repeat, by order."""
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
    """CSS variable of the colour in which `examination` draws each curve."""
    return {label: _VARIABLES[color] for label, color in colors(curves).items()}


def examination(
    curves: Mapping[str, Examination],
    flagged: np.ndarray,
    name: str = "examination",
    width: int = 760,
) -> str:
    """Draws examination curves with confidence bands.

    Curves of raw click rates are dashed, and flagged ranks have rings.
    """
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
        rank_axis(axes, len(estimates[0]))
    return out[0]


def _top(estimates: list[Examination]) -> float:
    """Upper end of the y-axis, above all curves and their bands.

    A curve or a band far above the others is cut off.

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


def click_rates(
    happened: Sequence[float | None],
    predicted: Sequence[float | None],
    name: str = "rates",
    width: int = 760,
) -> str:
    """Draws click rates by rank (dashed) and the click rates that a model predicts.

    Args:
        happened, predicted: Click rates by rank; None where no item was shown.
        name: See `drawing`.
        width: Pixels.
    """
    with drawing(name, width, 260) as (_, axes, out):
        ranks = np.arange(1, len(happened) + 1)
        axes.plot(ranks, np.array(predicted, float), color=SERIES[0], lw=1.6)
        axes.plot(
            *(ranks, np.array(happened, float)),
            color=INK,
            lw=1.8,
            ls=(0, (4, 2.5)),
            marker="o",
            ms=4,
            clip_on=False,
        )
        axes.set_ylim(0)
        axes.set_ylabel("click rate")
        rank_axis(axes, len(ranks))
    return out[0]
