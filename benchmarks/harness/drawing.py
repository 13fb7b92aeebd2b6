"""Drawing functions for the figures of several tables."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from debias.metrics import Difference, Estimate


def band(
    axes: Any,
    x: Sequence[float],
    means: "Sequence[Estimate | Difference | None]",
    row: str,
) -> None:
    """Draws the means of a row as a line, with intervals; skips missing means."""
    points = [(at, mean) for at, mean in zip(x, means, strict=True) if mean]
    at = [point[0] for point in points]
    (line,) = axes.plot(
        at, [m.mean for _, m in points], marker="o", markersize=3, label=row
    )
    low, high = ([getattr(m, end) for _, m in points] for end in ("low", "high"))
    axes.fill_between(at, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def dots(
    means: "Mapping[str, Estimate]",
    bounds: Collection[str],
    metric: str,
    name: str,
    width: int,
) -> str:
    """Draws means and intervals by row as inline SVG; bounds have hollow markers.

    Args:
        means: Mean and interval by row, from top to bottom.
        bounds: Reference rows that are not candidate models.
        metric: Metric of the means.
        name: Name of the drawing, unique on the page.
        width: Width in pixels.
    """
    from debias.training.figures import GRID, PAPER, SERIES, drawing

    with drawing(name, width, 24 * len(means) + 50) as (_, axes, out):
        for place, (row, mean) in enumerate(means.items()):
            # A single seed has a mean but no interval.
            axes.plot([mean.low, mean.high], [place] * 2, color=SERIES[0], lw=1.5)
            fill = PAPER if row in bounds else SERIES[0]
            axes.plot(mean.mean, place, "o", ms=5, mec=SERIES[0], mfc=fill)
        axes.set_yticks(range(len(means)), [row.replace("_", " ") for row in means])
        axes.set_ylim(len(means) - 0.5, -0.5)
        axes.grid(axis="x", color=GRID)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(metric.replace("_", " "))
    return out[0]
