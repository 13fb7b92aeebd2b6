"""What figures of several tables are drawn with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from debias.metrics import Difference, Estimate


def band(
    axes: Any,
    x: Sequence[float],
    means: "Sequence[Estimate | Difference | None]",
    row: str,
) -> None:
    """A line through the means that there are, and its intervals."""
    points = [(at, mean) for at, mean in zip(x, means, strict=True) if mean]
    at = [point[0] for point in points]
    (line,) = axes.plot(
        at, [m.mean for _, m in points], marker="o", markersize=3, label=row
    )
    low, high = ([getattr(m, end) for _, m in points] for end in ("low", "high"))
    axes.fill_between(at, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
