"""Parts of result pages: examination, calibration, and example lists."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from debias.training.pages import WIDTHS, Figure

if TYPE_CHECKING:
    import numpy as np

    from debias.data import ClickLog

EXAMPLES = 3  # lists that are shown before and after
LONGEST = 10  # items of each list
CURVES = {  # estimators beside the model, by label
    "raw click rate": "ctr",
    "PBM, conditional": "pbm_conditional",
}


def _drawn(draw: Callable[..., str], *arguments: Any) -> list[tuple[str, str]]:
    """Draws a figure in each of `WIDTHS`."""
    return [(name, draw(*arguments, width=width)) for name, width in WIDTHS.items()]


def examination(log: "ClickLog", model: Any, features: "np.ndarray") -> list[Figure]:
    """Figure of learned examination by rank, with estimates from the log.

    Args:
        log: The log.
        model: The trained model. Trees, and models that do not predict clicks, have no
            curve.
        features: Features (items, F) in the form that the model reads.

    Returns:
        The figure, or nothing if the log has no click at the first rank.
    """
    import numpy as np

    from debias.models import ClickModel
    from debias.propensity import estimate
    from debias.training import figures

    if not log.click[:, 0].any():
        return []
    curves = {label: estimate(log, method) for label, method in CURVES.items()}
    if isinstance(model, ClickModel) and model.predicts_clicks:
        curves["the model"] = estimate(
            log, "bias_tower", features=features, model=model
        )
    curves = {n: e for n, e in curves.items() if np.isfinite(e.examination[1:]).any()}
    if not curves:
        return []
    nothing = np.zeros(log.list_size, bool)
    own = "as the model learned it, " if "the model" in curves else ""
    about = (
        f"Examination by rank, relative to rank 1: {own}as estimated from the log "
        "(with 95% bands), and the raw click rate, which mixes examination with how "
        "good the items are."
    )
    drawings = _drawn(figures.examination, curves, nothing, "examination")
    return [Figure("Examination by rank", about, drawings, figures.legend(curves))]


def calibration(clicks: Mapping[str, Any]) -> list[Figure]:
    """Figure of observed and predicted click rates by position.

    Args:
        clicks: The attribute `clicks` of an `Evaluation`.

    Returns:
        The figure, or nothing for a model that does not predict clicks.
    """
    from debias.training import figures

    rates = [clicks.get(f"{name}_per_rank") for name in ("click_rate", "predicted")]
    if None in rates:
        return []
    about = (
        "Click rate by position (dashed), and the mean click probability that the "
        "model predicts."
    )
    drawings = _drawn(figures.click_rates, *rates)
    legend = {"click rate": "ink", "predicted": "series-0"}
    return [Figure("Predicted clicks by position", about, drawings, legend)]


def examples(
    log: "ClickLog", scores: "np.ndarray", names: Any = None
) -> list[tuple[str, Sequence[dict[str, Any]]]]:
    """The first lists with a click, as logged and as ordered by score.

    Args:
        log: The click log.
        scores: Scores (items,) of the items.
        names: Ids (items,) of the items. None means that the page shows the indices of
            the items.
    """
    import numpy as np

    sections: list[tuple[str, Sequence[dict[str, Any]]]] = []
    for row in np.flatnonzero(log.click.any(axis=1))[:EXAMPLES]:
        shown = log.item[row][log.mask[row]]
        clicked = set(shown[log.click[row][log.mask[row]]].tolist())
        ordered = shown[np.argsort(-scores[shown], kind="stable")]

        def named(item: int, clicked: set[int] = clicked) -> str:
            name = item if names is None else names[item]
            return f"{name}{' (clicked)' if item in clicked else ''}"

        rows = [
            {"rank": rank, "as shown": named(before), "by the ranker": named(after)}
            for rank, (before, after) in enumerate(
                zip(shown[:LONGEST].tolist(), ordered[:LONGEST].tolist(), strict=True),
                1,
            )
        ]
        sections.append((f"A list before and after (session {row})", rows))
    return sections
