"""A training run that is stored in a folder and resumes after its last full pass.

    train.json    the request: the sources with their fingerprints, and the settings
    trials/N.npz  the evaluation of candidate N, removed after the choice
    choice.json   the chosen recipe, and the results of all candidates
    passes/N      the learner after pass N, only for the latest pass
    losses.json   the mean loss of each pass
    learner       the learner after the last pass, with averaged weights
    report.json   the report, which is written when the run is finished

Whenever the process is killed, each file is either complete or absent.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from debias.data.files import content_hash
from debias.data.records import read_record, write_record
from debias.retrieval.data.events import (
    EventColumns,
    append_events,
    joined_events,
    pending,
)
from debias.retrieval.data.interactions import ID, FeatureTable, Interactions
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.training import selection
from debias.retrieval.training.baselines import BASELINES, GRIDS
from debias.retrieval.training.evaluation import evaluate, recall_metrics
from debias.retrieval.training.learner import (
    Learner,
    finish,
    learn,
    load,
    new_learner,
    save,
)
from debias.retrieval.training.recipe import Recipe, recipe_of
from debias.retrieval.training.repeating import fit_repeat, withheld
from debias.retrieval.training.selection import Choice, select
from debias.types import Over

Raw = Mapping[str, Any] | None
PIECE = 1 << 16  # items that a worker encodes at a time, whole blocks of a tower


def read_log(
    source: str,
    columns: EventColumns,
    users: Raw = None,
    items: Raw = None,
    progress: Callable[[float], None] = lambda share: None,
    targets: Sequence[str] = (),
) -> tuple[Interactions, dict[str, Any]]:
    """Reads all events of a source, and makes the tables of users and items.

    Args:
        source, columns, progress: See `debias.retrieval.data.events.read_events`.
        users, items: Raw features, in the form that
            `debias.data.features.read_features` returns. If None, the id is the only
            feature.
        targets: Allowed targets, if `columns` has a column of targets.

    Returns:
        The log and a report. The report has the marks of the files ("applied"), and the
        counts "events", "duplicates", "users", "items" and "bare", the number of users
        and items without features.

    Raises:
        ValueError: The source has no events, or a file is damaged.
    """
    chunks = list(pending(source, {}, columns, progress=progress))
    if not chunks:
        raise ValueError(f"{source}: holds no event")
    every = joined_events([events for events, _ in chunks])
    # Sorted by id, as `from_columns` does, because rows determine initial weights.
    user_table, item_table = (
        FeatureTable.build(raw or {ID: np.unique(ids)})
        for raw, ids in ((users, every.user), (items, every.item))
    )
    none = np.empty(0, np.int32)
    empty = Interactions(
        *(none, none, every.time[:0], user_table, item_table),
        target=none if targets else None,
        targets=tuple(targets),
    )
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
    recipes: Sequence[Recipe],
    passes: int | None = None,
    hold_out: bool = False,
    progress: Callable[[int], None] = lambda events: None,
    at: Callable[[str], None] = lambda part: None,
) -> dict[str, Any]:
    """Starts or resumes training in a folder, and saves the learner after each pass.

    With the policy "model", `select` fits the weights of the bonus to held-out events.
    Without `select`, the last events of a sample of users are withheld from training,
    and the weights are fitted to these events.

    Args:
        folder: Folder for the files that the docstring of this module lists. The caller
            writes `train.json` and `report.json`.
        log: Events of users and items.
        recipes: One or several recipes. `select` chooses among several recipes.
        passes: Number of passes. If None, `select` chooses the number.
        hold_out: Whether to hold out events by `selection.hold_out`, and to evaluate on
            these events.
        progress: Function that is called with the number of events used for training
            since its last call.
        at: Function that is called with the name of each part of the work when the part
            begins.

    Returns:
        The entries of the report: "tower", "recipe", "passes", "choice", "held_out",
        "beside" (baselines on the held-out events) and "repeat".

    Raises:
        ValueError: No event can be held out, a saved pass is damaged, or the loss
            became NaN or infinite (`debias.retrieval.training.fitting.Diverged`).
    """
    held = selection.hold_out(log) if hold_out else None
    known, last = log if held is None else held.known, None
    chooses = len(recipes) > 1 or passes is None
    if recipes[0].training_config().repeat == "model" and not chooses:
        last = withheld(known)
        if not last.any():
            raise ValueError(
                "repeat 'model' needs users with at least two events, to fit its "
                "weights; give --repeat exclude or allow"
            )
    recipe, choice = recipes[0], None
    if chooses:
        choice = _chosen(folder / "choice.json", known, recipes, passes, progress, at)
        most = passes or selection.MAX_PASSES
        recipe, passes = recipe_of(choice["recipe"]), choice["passes"]
        progress((most - passes) * len(known))  # not needed by the choice
    assert passes is not None
    at(f"training {recipe.tower}")
    learner, history = _trained(folder, known, recipe, passes, last, progress)
    repeat, judged, beside = _repeat(learner, choice, last), None, []
    if held is not None:
        judged = evaluate(learner.served, known, held.held, repeat=repeat)
        beside = _beside(held, repeat.policy, choice)
    return {
        "tower": recipe.tower,
        "recipe": recipe._asdict(),
        "passes": history,
        "choice": choice,
        "held_out": judged,
        "beside": beside,
        "repeat": repeat._asdict(),
    }


def _beside(
    held: selection.HeldOut, policy: str, choice: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Metrics of the baselines on held-out events.

    The baselines have the settings of the choice. Without a choice, only baselines
    without settings are included.
    """
    settings = {
        row["name"]: row["settings"] for row in (choice or {}).get("rivals", ())
    }
    names = settings or [name for name, grid in GRIDS.items() if not grid]
    asked = selection.judge(held, len(held.known.users))
    plain, rows = Repeat("exclude" if policy == "exclude" else "allow"), []
    for name in names:
        score = BASELINES[name](held.known)(**settings.get(name, {}))
        rank = asked.ranks(score, plain)
        rows.append(
            {"name": name, **recall_metrics(rank, asked.query, target=asked.target)}
        )
    return rows


def work(log: Interactions, recipes: Sequence[Recipe], passes: int | None) -> int:
    """Upper bound on the cost of `train`, where one training event costs 1."""
    chosen = 0
    if len(recipes) > 1 or passes is None:
        chosen = selection.work(log, recipes, passes, compare=True)
    return chosen + (passes or selection.MAX_PASSES) * len(log)


def _chosen(
    path: Path,
    log: Interactions,
    recipes: Sequence[Recipe],
    passes: int | None,
    progress: Callable[[int], None],
    at: Callable[[str], None],
) -> dict[str, Any]:
    """Reads the choice from a file, or makes the choice and writes the file."""
    if not path.exists():
        trials = path.with_name("trials")
        found = select(log, recipes, passes, True, trials, progress, at)
        write_record(path, {**found._asdict(), "recipe": found.recipe._asdict()})
        shutil.rmtree(trials, ignore_errors=True)
    return read_record(path, list(Choice._fields))


def _trained(
    folder: Path,
    log: Interactions,
    recipe: Recipe,
    epochs: int,
    last: np.ndarray | None,
    progress: Callable[[int], None],
) -> tuple[Learner, list[dict[str, Any]]]:
    """The learner after all passes over the events except `last`, and its losses."""
    build, config = recipe.build(), recipe.training_config()
    passes, losses = folder / "passes", folder / "losses.json"
    if (folder / "learner").exists():
        learner = load(folder / "learner", build, config)
        return learner, read_record(losses, ["passes"])["passes"]
    done = max((int(p.name) for p in passes.glob("*") if p.name.isdigit()), default=0)
    history: list[dict[str, Any]] = []
    if done:
        learner = load(passes / str(done), build, config)
        history = read_record(losses, ["passes"])["passes"]
    else:
        learner = new_learner(build, log, config)
    progress(done * len(log))
    learned = None if last is None else ~last
    for number in range(done + 1, epochs + 1):
        (loss,) = learn(learner, learned=learned, progress=progress)
        history = [*history[: number - 1], {"pass": number, "loss": loss}]
        write_record(losses, {"passes": history})
        save(learner, passes / str(number))
        shutil.rmtree(passes / str(number - 1), ignore_errors=True)
    finish(learner)
    save(learner, folder / "learner")
    shutil.rmtree(passes)
    return learner, history


def _repeat(
    learner: Learner, choice: dict[str, Any] | None, last: np.ndarray | None
) -> Repeat:
    """The policy of a learner, with weights from the choice or from withheld events.

    The choice fitted the weights to a learner of the same recipe, with the held-out
    events of all users. The held-out events of all users are more events than can be
    withheld from training.
    """
    if choice is not None:
        linear = getattr(learner.served, "linear", 0)
        return Repeat.of({**choice["repeat"], "linear": linear})
    if last is None:
        return Repeat(learner.config.repeat)
    # The linear part must not be fitted to the withheld events, or they would seem
    # likely without a bonus.
    before = replace(learner, log=learner.log.take(~last))
    before.add_extra()
    return fit_repeat(before.served, before.log, learner.log.take(last))


class Run(NamedTuple):
    """A finished run.

    Attributes:
        learner: The learner after the last pass.
        report: Contents of `report.json`.
        request: Contents of `train.json`.
    """

    learner: Learner
    report: dict[str, Any]
    request: dict[str, Any]

    @property
    def repeat(self) -> Repeat:
        """The policy of repeats, with its weights."""
        return Repeat.of(self.report.get("repeat", "exclude"))


def encoded(folder: Path, items: int, over: Over, piece: int = PIECE) -> np.ndarray:
    """(items, d) vectors of all items of a run, which a cluster may compute.

    The values equal the result of `Learner.item_vectors`, because the items are encoded
    in the same blocks.

    Args:
        folder: Folder of a finished run. All workers must be able to read the folder.
        items: Number of items.
        over: `map`, or an equivalent function that encodes pieces in parallel.
        piece: Number of items in a piece.
    """
    run = folder.absolute()
    contents = content_hash(run / "report.json", *sorted((run / "learner").glob("*")))
    every = range(items)
    asked = [every[start : start + piece] for start in every[::piece]]
    return np.concatenate(list(over(partial(_encoded, run, contents), asked)))


def _encoded(folder: Path, contents: str, rows: range) -> np.ndarray:
    return _opened(folder, contents).learner.item_vectors(np.asarray(rows))


@lru_cache(1)
def _opened(folder: Path, contents: str) -> Run:
    """Opens a run, once per worker; `contents` changes if the run is replaced."""
    return open_run(folder)


def open_run(folder: Path) -> Run:
    """Opens a folder that `debias retrieval train` wrote.

    Raises:
        ValueError: The folder has no finished run, or a file is damaged.
    """
    report_path, request_path = folder / "report.json", folder / "train.json"
    if not report_path.exists():
        why = "is no folder that debias retrieval train wrote"
        if request_path.exists():
            why = "the training did not finish; run its command again"
        raise ValueError(f"{folder}: {why}")
    report = read_record(report_path, [])
    if "recipe" not in report and "candidates" in report:
        raise ValueError(
            f"{folder}: holds a click model; train a retrieval model with debias "
            "retrieval train"
        )
    report = read_record(report_path, ["tower", "recipe", "passes", "applied"])
    request = read_record(request_path, ["source", "settings"])
    try:
        recipe = recipe_of(report["recipe"])
        build, config = recipe.build(), recipe.training_config()
    except (TypeError, KeyError) as error:
        raise ValueError(f"{report_path}: is damaged: {error}; train again") from None
    last = folder / "learner"
    if not last.exists():  # from an earlier release
        last = folder / "passes" / str(len(report["passes"]))
    return Run(load(last, build, config), report, request)
