"""The HTML pages of `--report` for training and evaluation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands.places import check_free
from debias.commands.screen import say

if TYPE_CHECKING:
    import numpy as np

    from debias.artifacts import Trained
    from debias.data import ClickLog, Stream
    from debias.training.pages import Figure

Report = Annotated[
    Path | None,
    typer.Option("--report", help="Also write an HTML page, such as page.html."),
]
EXAMPLES = 3  # lists that are shown before and after
LONGEST = 10  # items of each list
CURVES = {  # estimators beside the model, by label
    "raw click rate": "ctr",
    "PBM, conditional": "pbm_conditional",
}


def check(path: Path | None, force: bool) -> None:
    """Checks that the page may be written; pages of this library may be replaced.

    Raises:
        ValueError: Another file exists and `force` is not set, or the name does not end
            with .html.
    """
    from debias.training.pages import MARK

    if path is None:
        return
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"--report {path}: the name must end with .html")
    if not path.is_file() or MARK not in path.read_bytes()[:1000]:
        check_free(path, force)


def write(path: Path, *content: Any) -> None:
    """Writes a page with this content, see `debias.training.pages.page`."""
    from debias.data.files import atomic_write
    from debias.training.pages import page

    with atomic_write(path) as aside:
        aside.write_text(page(*content), encoding="utf-8")
    say(f"page written to {path}", err=True)


def examination(
    log: "ClickLog | Stream", trained: "Trained", features: "np.ndarray"
) -> "list[Figure]":
    """Figure of learned examination by rank, with estimates from the log.

    Args:
        log: The log; if it is not in memory, there is no figure.
        trained: The trained model; trees and models that do not predict clicks have no
            curve.
        features: (items, F) raw features.
    """
    from debias.data import ClickLog
    from debias.diagnosis import figures
    from debias.models import ClickModel
    from debias.propensity import estimate
    from debias.training.pages import WIDTHS, Figure
    from debias.training.splits import applied

    if not isinstance(log, ClickLog) or not log.click[:, 0].any():
        return []
    import numpy as np

    curves = {label: estimate(log, method) for label, method in CURVES.items()}
    if isinstance(model := trained.model, ClickModel) and model.predicts_clicks:
        read = applied(trained.ranker.preprocess, features)
        curves["the model"] = estimate(log, "bias_tower", features=read, model=model)
    curves = {n: e for n, e in curves.items() if np.isfinite(e.examination[1:]).any()}
    if not curves:
        return []
    nothing = np.zeros(log.list_size, bool)
    drawings = [
        (name, figures.examination(curves, nothing, "examination", width))
        for name, width in WIDTHS.items()
    ]
    own = "as the model learned it, " if "the model" in curves else ""
    about = (
        f"Examination by rank, relative to rank 1: {own}as estimated from the log "
        "(with 95% bands), and the raw click rate, which mixes examination with how "
        "good the items are."
    )
    return [
        Figure("Examination by rank", about, drawings, figures.legend(curves)),
    ]


def examples(
    log: "ClickLog", scores: "np.ndarray", names: Any = None
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The first lists with a click, as shown and as ordered by the scores.

    Args:
        log: The click log.
        scores: (items,).
        names: (items,) ids of the items; None for their numbers.
    """
    import numpy as np

    sections = []
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
