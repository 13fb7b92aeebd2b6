"""`debias train`: from a log to a folder with a click model and its ranker.

The folder holds `train.json` (what was asked for), `checkpoint.npz` and `candidates/`
(what is done so far), and at the end `model.keras` (clicks), `ranker.keras` (scores)
and `report.json`, whose presence says that the others are whole.
"""

import gc
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from debias.commands import inputs
from debias.commands.screen import AsJson, bar, messages, print_json, print_table

if TYPE_CHECKING:
    import numpy as np

    from debias.data import ClickLog, Stream
    from debias.models.presets import Layout
    from debias.training import Choice, TrainingConfig

CLICKED = "naive additive product position_feature dot bilinear mixture xpa"
RANKED = "listwise listwise_mixture listwise_xpa"
MODELS = f"auto {CLICKED} {RANKED}"
TRIAL = 100_000  # sessions that each candidate of `auto` learns from
TRIAL_EPOCHS = 3
JUDGES = 50_000  # held-out sessions that candidates are judged by
OURS = (
    "train.json",
    "checkpoint.npz",
    "candidates",
    "passes",
    "losses.json",
    "model.keras",
    "ranker.keras",
    "report.json",
)


def train(
    log: inputs.Log,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    model: Annotated[
        str,
        typer.Option(
            help=f"One of {CLICKED}, which predict clicks (auto tries them all), or of "
            f"{RANKED}, which only rank: listwise, where clicks are few."
        ),
    ] = "auto",
    column: inputs.Column = None,
    items: inputs.Items = None,
    data: inputs.Data = None,
    list_size: inputs.ListSize = None,
    first_position: inputs.FirstPosition = 1,
    first_features: inputs.FirstFeatures = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes at most.")] = 8,
    patience: Annotated[
        int, typer.Option(min=1, help="Passes without gain before the end.")
    ] = 2,
    rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 0.01,
    batch_size: Annotated[int, typer.Option(min=1, help="Sessions a step.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Names all chance.")] = 0,
    every: Annotated[
        int, typer.Option(min=1, help="Sessions between two checkpoints, at most.")
    ] = 1 << 19,
    memory: inputs.Memory = inputs.HELD,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for a log that TensorBoard shows.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another run in the folder.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Trains a click model, chosen by held-out clicks, and writes its ranker.

    A tenth of the queries is held out to judge by, another for `evaluate`. A run that
    was interrupted or killed continues when the same command is given again.
    """
    with messages():
        if model not in MODELS.split():
            raise ValueError(f"--model must be one of {MODELS}, got {model!r}")
        source = inputs.Source.of(
            log, column, items, data, list_size, first_position, first_features
        )
        settings: dict[str, Any] = {
            "epochs": epochs,
            "patience": patience,
            "rate": rate,
            "batch_size": batch_size,
            "seed": seed,
            "round": every,
        }
        asked = {
            "source": source.record(),
            "model": model,
            "settings": settings,
            # Which sessions are held out hangs on it.
            "streamed": inputs.stream(source, memory) is not None,
        }
        found = standing(out, asked, force)
        if found is None:
            from debias.training import TrainingConfig

            found = learn(
                world_of(source, seed, memory),
                begin(out, asked, force),  # after the log was read without a fault
                model,
                TrainingConfig(**settings),
                tensorboard,
            )
        else:
            typer.echo(f"{out}: is finished; --force trains anew", err=True)
    if json:
        print_json(found)
        return
    if found["candidates"]:
        print_table("Candidates, on held-out clicks", found["candidates"])
    print_table("Passes", found["history"])
    typer.echo(f"{found['model']}: {found['why']}")
    typer.echo(
        f"{found['log_likelihood']:.5f} nats a held-out session; "
        f"{found['sessions_per_second']:,.0f} sessions/s, "
        f"{found['seconds']:.0f} s, peak memory {found['peak_memory_gb']:.2f} GB; "
        f"written to {out}"
    )


def standing(folder: Path, asked: dict[str, Any], force: bool) -> dict[str, Any] | None:
    """The report of a finished run, None where one is to begin or go on.

    Raises:
        ValueError: The folder holds another run, or what is none of ours.
    """
    plan = folder / "train.json"
    strange = (
        [p for p in folder.iterdir() if p.name not in OURS] if folder.exists() else []
    )
    if strange and not plan.exists():
        raise ValueError(f"{folder}: holds {strange[0].name}; choose a new folder")
    if force or not plan.exists():
        return None
    there = json.loads(plan.read_text(encoding="utf-8"))
    if there != asked:
        raise ValueError(
            f"{folder}: holds another run, with {_difference(there, asked)}; "
            "choose a new folder or --force"
        )
    report = folder / "report.json"
    return json.loads(report.read_text(encoding="utf-8")) if report.exists() else None


def begin(folder: Path, asked: dict[str, Any], force: bool) -> Path:
    """The folder, with the plan of a run and, if forced, nothing of another.

    A run of the same plan that was interrupted is no other: it goes on.
    """
    from debias.data.files import atomic_write

    plan, report = folder / "train.json", folder / "report.json"
    same = plan.exists() and json.loads(plan.read_text(encoding="utf-8")) == asked
    if force and not (same and not report.exists()):
        for name in reversed(OURS):  # the report first: without it nothing is finished
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    with atomic_write(plan) as aside:
        aside.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
    return folder


def _difference(there: Any, here: Any, name: str = "") -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), key)
    return f"{name} {there} where this has {here}"


class World(NamedTuple):
    """What a model is trained and judged on.

    Attributes:
        learners: Sessions to learn from.
        judges: Sessions to judge a pass, and candidates, by.
        tests: Sessions that nothing is chosen by.
        held_out_by: What the three were parted by, "query" or "session".
        layout: Where their items stand.
        features: (items, F) of what their items are.
        devices: Names of devices 1, 2 and so on.
    """

    learners: "ClickLog | Stream"
    judges: "ClickLog"
    tests: "ClickLog"
    held_out_by: str
    layout: "Layout"
    features: "np.ndarray"
    devices: list[str]


def world_of(source: inputs.Source, seed: int, memory: float) -> World:
    """Reads a log and holds sessions out; one above `memory` GB is left on disk.

    Raises:
        ValueError: As `inputs.opened` and `inputs.check_usable` do.
    """
    from debias import training
    from debias.data import ClickLog
    from debias.data.summary import summarize
    from debias.models.batches import LAYOUT
    from debias.models.presets import layout_of

    log, data, devices = inputs.opened(source, memory)
    assert data is not None
    if isinstance(log, ClickLog):
        inputs.check_usable(summarize(log), source.log)
        columns = [n for n in LAYOUT if getattr(log, n) is not None]
        log, features = training.shown_only(log.select(*columns), data)
        parts, by = training.held_out(log, seed)
        return World(*parts, by, layout_of(log), features, list(devices))
    columns = [n for n in LAYOUT if n in (log.columns or ())]
    (learners, judges, tests), by = training.held_out_of_stream(
        replace(log, columns=columns), data.queries, seed
    )
    some = ClickLog.concatenate([judges, tests])
    inputs.check_usable(summarize(some), source.log)
    return World(learners, judges, tests, by, layout_of(some), data.features, [])


def learn(
    world: World,
    folder: Path,
    model: str,
    settings: "TrainingConfig",
    tensorboard: Path | None = None,
) -> dict[str, Any]:
    """Trains in a folder that was begun, from where it stands; the report.

    Args:
        world: Of `world_of`.
        folder: As `begin` left it.
        model: A name in `CANDIDATES` or `LISTWISE`, or "auto".
        settings: How long and how fast.
        tensorboard: Folder for a log of the passes, or None.

    Raises:
        ValueError: The log has too few sessions.
    """
    import keras

    from debias import training
    from debias.data.files import atomic_write
    from debias.models import presets as candidates
    from debias.models import ranker
    from debias.models.export import export

    begun = time.perf_counter()
    learners, judges, tests, by, layout, features, devices = world
    feature_count = features.shape[1]
    scale, scaled = training.standardized(features)
    del world, features  # large, and used no more
    choice = training.Choice(model, "as asked", [])
    if model == "auto":
        choice = _tried(folder, layout, learners, judges, scaled, settings)
    keras.utils.set_random_seed(settings.seed)
    builders = {**candidates.CANDIDATES, **candidates.LISTWISE}
    click_model = builders[choice.name](layout, settings.seed)
    trained = time.perf_counter()
    with bar(choice.name, settings.epochs * len(learners), "sessions/s") as progress:
        fitted = training.fit(
            click_model,
            learners,
            judges,
            scaled,
            settings,
            folder / "checkpoint.npz",
            progress,
            (lambda epoch, metrics: None)
            if tensorboard is None
            else _curves(tensorboard),
        )
    seconds = time.perf_counter() - trained
    tested = training.session_log_likelihoods(click_model, tests, scaled)
    click_model.save(folder / "model.keras")
    export(
        ranker(click_model, scale),
        folder / "ranker.keras",
        features=feature_count,
        overwrite=True,
    )
    passes = [{"epoch": n, **m} for n, m in enumerate(fitted.history, 1)]
    report = {
        "model": choice.name,
        "why": choice.why,
        "candidates": choice.table,
        "log_likelihood": float(tested.mean()),
        "validation_log_likelihood": fitted.log_likelihood,
        "best_epoch": fitted.epoch,
        "history": passes,
        "sessions": {
            "train": len(learners),
            "validation": len(judges),
            "test": len(tests),
        },
        "held_out_by": by,
        "features": feature_count,
        "list_size": judges.list_size,
        "devices": devices,
        "sessions_per_second": fitted.sessions / seconds,
        "seconds": time.perf_counter() - begun,
        "peak_memory_gb": peak_memory(),
    }
    with atomic_write(folder / "report.json") as aside:
        aside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _tried(
    folder: Path,
    layout: Any,
    learners: Any,
    judges: Any,
    scaled: Any,
    settings: "TrainingConfig",
) -> "Choice":
    """Every candidate at the same small budget, and which to take."""
    import keras
    import numpy as np

    from debias import training
    from debias.data import Stream
    from debias.data.files import atomic_write
    from debias.models import presets as candidates

    rng = np.random.default_rng([settings.seed, 1])
    if isinstance(learners, Stream):
        learners = learners.sample(TRIAL, [settings.seed, 1], training.LOOKED_AT)
    learners, judges = (
        log.take(np.sort(rng.permutation(len(log))[:most]))
        for log, most in ((learners, TRIAL), (judges, JUDGES))
    )
    budget = settings._replace(epochs=min(TRIAL_EPOCHS, settings.epochs))
    likelihoods = {}
    total = len(candidates.CANDIDATES) * budget.epochs * len(learners)
    with bar("candidates", total, "sessions/s") as progress:
        for name, build in candidates.CANDIDATES.items():
            done = folder / "candidates" / f"{name}.npy"
            if done.exists():
                progress(budget.epochs * len(learners))
            else:
                keras.utils.set_random_seed(settings.seed)
                model = build(layout, settings.seed)
                part = done.with_suffix(".npz")
                training.fit(model, learners, judges, scaled, budget, part, progress)
                found = training.session_log_likelihoods(model, judges, scaled)
                with atomic_write(done) as aside, aside.open("wb") as file:
                    np.save(file, found)
                part.unlink(missing_ok=True)
                del model
                keras.backend.clear_session()  # else the graphs of all would stay
                gc.collect()
            likelihoods[name] = np.load(done)
    return training.choose(likelihoods, judges.query)


def _curves(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """Writes scalars as TensorBoard reads them; it need not be installed."""
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(folder))
    scalars = tf.compat.v1.SummaryMetadata(
        plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
    )

    def report(epoch: int, metrics: dict[str, float]) -> None:
        with writer.as_default():
            for name, value in metrics.items():
                tf.summary.write(name, tf.constant(value), epoch, scalars)
        writer.flush()

    return report


def peak_memory() -> float:
    """The most memory this process has held so far, in GB; nan where nobody counts."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux `getrusage` counts the process that started it too
        found = status.read_text(encoding="ascii").split("VmHWM:")
        return int(found[1].split()[0]) * 1024 / 1e9
    if os.name == "nt":
        return float("nan")
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
