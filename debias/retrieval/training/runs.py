"""A training run in a folder; after an interruption it resumes at the last full pass.

    train.json    the request: source of the events, settings
    passes/N      the learner after pass N; only the last is there
    losses.json   the mean loss of each pass
    report.json   what the training came to; its presence says that the run is finished

Each file is complete or absent, whenever the process is killed.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from debias.data.records import read_record, write_record
from debias.retrieval.data.events import (
    EventColumns,
    append_events,
    joined_events,
    pending,
)
from debias.retrieval.data.interactions import (
    ID,
    FeatureTable,
    Interactions,
    leave_last_out,
)
from debias.retrieval.training.evaluation import evaluate
from debias.retrieval.training.learner import (
    Learner,
    learn,
    load,
    new_learner,
    save,
)
from debias.retrieval.training.recipe import Recipe

Raw = Mapping[str, Any] | None


def _nothing(amount: float) -> None:
    return


def read_log(
    source: str,
    columns: EventColumns,
    users: Raw = None,
    items: Raw = None,
    progress: Callable[[float], None] = _nothing,
) -> tuple[Interactions, dict[str, Any]]:
    """All events of a source over tables of users and items.

    Args:
        source, columns, progress: As for `debias.retrieval.data.events.read_events`.
        users, items: Raw features, as `debias.data.features.read_features` gives them;
            None: the ids alone.

    Returns:
        The log, and what to report of it: "applied", the marks of the files; "events",
        "duplicates", "users", "items" and "bare", counts.

    Raises:
        ValueError: There is no event, or a file is damaged.
    """
    user_table, item_table = (
        FeatureTable.build(raw or {ID: np.empty(0, str)}) for raw in (users, items)
    )
    chunks = list(pending(source, {}, columns, progress=progress))
    if not chunks:
        raise ValueError(f"{source}: holds no event")
    every = joined_events([events for events, _ in chunks])
    none = np.empty(0, np.int32)
    empty = Interactions(none, none, every.time[:0], user_table, item_table)
    appended = append_events(empty, every)
    return appended.log, {
        "applied": chunks[-1][1],
        "events": appended.events,
        "duplicates": appended.duplicates,
        "users": len(appended.log.users),
        "items": len(appended.log.items),
        "bare": appended.bare,
    }


def train(
    folder: Path,
    log: Interactions,
    recipe: Recipe,
    epochs: int,
    hold_out: bool = False,
    progress: Callable[[int], None] = _nothing,
) -> dict[str, Any]:
    """Trains in a folder from its last full pass, and saves the learner of each pass.

    Args:
        folder: Where `passes` and `losses.json` are written.
        log: What users took.
        recipe: The model and its training.
        epochs: Passes.
        hold_out: Whether to hold out each user's last event and evaluate on it.
        progress: Called with the number of events done since the last call.

    Returns:
        "tower", "recipe", "passes" and "held_out" of the report.

    Raises:
        ValueError: No event can be held out, a saved pass is damaged, or the loss
            became NaN or infinite (`debias.retrieval.training.fitting.Diverged`).
    """
    known, held_out = leave_last_out(log) if hold_out else (log, None)
    if held_out is not None and not len(held_out):
        raise ValueError("no user has two events, so none can be held out")
    build, config = recipe.build(), recipe.training_config()
    passes, losses = folder / "passes", folder / "losses.json"
    done = max((int(p.name) for p in passes.glob("*") if p.name.isdigit()), default=0)
    history: list[dict[str, Any]] = []
    if done:
        learner = load(passes / str(done), build, config)
        history = read_record(losses, ["passes"])["passes"]
    else:
        learner = new_learner(build, known, config)
    progress(done * len(known))
    for number in range(done + 1, epochs + 1):
        (loss,) = learn(learner, progress=progress)
        history = [*history[: number - 1], {"pass": number, "loss": loss}]
        write_record(losses, {"passes": history})
        save(learner, passes / str(number))
        shutil.rmtree(passes / str(number - 1), ignore_errors=True)
    judged = None if held_out is None else evaluate(learner.model, known, held_out)
    return {
        "tower": recipe.tower,
        "recipe": recipe._asdict(),
        "passes": history,
        "held_out": judged,
    }


class Run(NamedTuple):
    """A finished run.

    Attributes:
        learner: After the last pass.
        report: Of `report.json`.
        request: Of `train.json`.
    """

    learner: Learner
    report: dict[str, Any]
    request: dict[str, Any]


def open_run(folder: Path) -> Run:
    """Opens a folder that `debias retrieval train` wrote.

    Raises:
        ValueError: The folder holds no finished run, or a file of it is damaged.
    """
    report_path, request_path = folder / "report.json", folder / "train.json"
    if not report_path.exists():
        begun = request_path.exists()
        raise ValueError(
            f"{folder}: "
            + (
                "the training did not finish; give its command again"
                if begun
                else "is no folder that debias retrieval train wrote"
            )
        )
    report = read_record(report_path, [])
    if "recipe" not in report and "candidates" in report:
        raise ValueError(
            f"{folder}: holds a click model; train a retrieval model with debias "
            "retrieval train"
        )
    report = read_record(report_path, ["tower", "recipe", "passes", "applied"])
    request = read_record(request_path, ["source", "settings"])
    try:
        recipe = Recipe(**report["recipe"])
        build, config = recipe.build(), recipe.training_config()
    except (TypeError, KeyError) as error:
        raise ValueError(f"{report_path}: is damaged: {error}; train again") from None
    last = folder / "passes" / str(len(report["passes"]))
    return Run(load(last, build, config), report, request)
