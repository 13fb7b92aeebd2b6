"""`debias train`: from a log to a folder with a click model and its ranker.

The folder holds `train.json` (what was asked for), `checkpoint.npz` and `candidates/`
(what is done so far), and at the end `model.keras` (clicks), `ranker.keras` (scores)
and `report.json`, whose presence says that the others are whole.
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs, places
from debias.commands.screen import AsJson, bar, print_json, print_table, say
from debias.presets import CORRECTIONS, PRESETS, READS_CONTEXT, TREES
from debias.training.config import ROUND, TrainingConfig

if TYPE_CHECKING:
    from debias.training import Choice, Correction, Prepared
    from debias.training.selection import By


class Rule(StrEnum):
    """What a model is chosen by."""

    RANKING = "ranking"
    CLICKS = "clicks"


CLICKED = " ".join(n for n, each in PRESETS.items() if each.predicts_clicks)
RANKED = " ".join(n for n, each in PRESETS.items() if not each.predicts_clicks)
CORRECTED = " ".join(CORRECTIONS)
GROWN = " ".join(TREES)
MODELS = f"auto {CLICKED} {RANKED} {CORRECTED} {GROWN}"
_learning = partial(typer.Option, rich_help_panel="How the model learns")
OURS = (
    "train.json",
    "checkpoint.npz",
    "candidates",
    "passes",
    "losses.json",
    "model.keras",
    "ranker.keras",
    "ranker.trees",
    "report.json",
)


def config_of(
    epochs: Annotated[
        int | None,
        _learning(
            min=1,
            help="Passes at most; by default 16, more on small logs.",
        ),
    ] = None,
    patience: Annotated[
        int,
        _learning(
            min=1,
            help="Judgments without gain before the end.",
        ),
    ] = TrainingConfig.patience,
    rate: Annotated[
        float,
        _learning(
            help="Learning rate of Adam, above 0 and at most 1.",
        ),
    ] = TrainingConfig.rate,
    decay: Annotated[
        float | None,
        _learning(
            help="Weight decay of relevance towers; by default the root of 100,000 / "
            "sessions."
        ),
    ] = None,
    average: Annotated[
        bool,
        _learning(
            help="Whether to average weights over the last steps.",
        ),
    ] = True,
    batch_size: Annotated[
        int, _learning(min=1, help="Sessions a step.")
    ] = TrainingConfig.batch_size,
    seed: Annotated[int, _learning(min=0, help="Random seed.")] = 0,
    every: Annotated[
        int,
        _learning(
            min=1,
            help="Sessions between two checkpoints, at most.",
        ),
    ] = ROUND,
) -> TrainingConfig:
    """How long and how fast to learn, checked before a log is read."""
    return TrainingConfig(
        epochs=epochs,
        patience=patience,
        rate=rate,
        decay=decay,
        averaging=TrainingConfig.averaging if average else None,
        batch_size=batch_size,
        seed=seed,
        round=every,
    )


@inputs.options(source=inputs.Source.of, config=config_of)
def train(
    source: inputs.Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    config: TrainingConfig,
    model: Annotated[
        str,
        typer.Option(
            help=f"auto tries several and chooses. Predict clicks: {CLICKED}. Only "
            f"rank: {RANKED}. Corrections of clicks by propensities: {CORRECTED}. "
            f"Boosted trees: {GROWN}."
        ),
    ] = "auto",
    given: places.Given = "auto",
    clip: Annotated[
        float | None,
        typer.Option(
            help="Largest weight of a correction; by default weighted clicks are worth "
            "half of their number."
        ),
    ] = None,
    select: Annotated[
        Rule,
        typer.Option(
            help="What auto chooses by: ranking (how held-out clicks are ordered), or "
            "clicks (how likely they were), for click probabilities."
        ),
    ] = Rule.RANKING,
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
    if model not in MODELS.split():
        raise ValueError(f"--model must be one of {MODELS}, got {model!r}")
    if model in TREES and replace(config, seed=0) != TrainingConfig():
        raise ValueError(
            "trees have a recipe of their own: of the options of learning, only --seed "
            "goes with them"
        )
    log = inputs.look(source, memory)
    asked = {
        "source": source.how(),
        "contents": source.contents(),
        "model": model,
        "select": select.value,
        "settings": vars(config),
        **_correction_asked(model, given, clip),
        # Which sessions are held out hangs on it.
        "streamed": log.stream is not None,
    }
    report = finished(out, asked, force)
    if report is None and model in TREES:
        report = _grow(log, out, asked, model, config.seed, force)
    elif report is None:
        # The folder is begun only after the log was read without a fault.
        prepared, names = read(log, config.seed, model)
        start(out, asked, force)
        corrected = _corrected(model, prepared, given, clip)
        report = learn(
            prepared,
            names,
            out,
            (model, select),
            config,
            tensorboard,
            corrected=corrected,
        )
    else:
        say(f"{out}: is finished; --force trains anew", err=True)
    if json:
        print_json(report)
    else:
        _print(report, out)


def _correction_asked(model: str, given: str, clip: float | None) -> dict[str, Any]:
    """What a run with a correction is known by; nothing of other models.

    Raises:
        ValueError: An option goes with corrections alone.
    """
    from debias.data import fingerprint

    if model not in CORRECTIONS:
        if clip is not None or given != "auto":
            raise ValueError(
                f"--propensities and --clip go with corrections: --model {CORRECTED}"
            )
        return {}
    told = fingerprint(given) if Path(given).exists() else given
    return {"propensities": told, "clip": clip}


def _corrected(
    model: str, prepared: "Prepared", given: str, clip: float | None
) -> "Correction | None":
    """The correction that was asked for, told what it needs by the sessions to learn
    from, or by a file."""
    from debias import training
    from debias.propensity import read_propensities

    if model not in CORRECTIONS:
        return None
    train = prepared.train
    known = read_propensities(given) if Path(given).exists() else given
    return training.correction(
        model, train.log, known, clip=clip, features=train.data.features
    )


def _print(report: dict[str, Any], out: Path) -> None:
    if report["candidates"]:
        print_table("Candidates, on held-out clicks", report["candidates"])
    print_table("Passes", report["history"])
    say(f"{report['model']}: {report['why']}")
    if report["note"]:
        say(report["note"])
    likely = report["log_likelihood"]
    if likely is not None and likely == likely:  # what predicts no click has none
        say(f"{likely:.5f} nats a test session")
    say(
        f"{report['sessions_per_second']:,.0f} sessions/s, "
        f"{report['seconds']:.0f} s, peak memory {report['peak_memory_gb'] or 0:.2f} "
        f"GB; written to {out}"
    )


def finished(
    folder: Path,
    asked: dict[str, Any],
    force: bool,
    keys: tuple[str, ...] = ("model",),
) -> dict[str, Any] | None:
    """The report of a finished run; None where one is to begin or to resume.

    Raises:
        ValueError: The folder holds another run, or files of somebody else's; or the
            report lacks one of `keys`.
    """
    from debias.artifacts import plan_of, report_of
    from debias.data.records import plain

    plan = folder / "train.json"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; choose a new folder")
    strange = (
        [p for p in folder.iterdir() if p.name not in OURS] if folder.exists() else []
    )
    if strange and not plan.exists():
        raise ValueError(f"{folder}: holds {strange[0].name}; choose a new folder")
    if force or not plan.exists():
        return None
    there = plan_of(folder, tuple(asked))
    if there != plain(asked):
        raise ValueError(
            f"{folder}: holds another run, with {_difference(there, plain(asked))}; "
            "choose a new folder or --force"
        )
    return report_of(folder, keys) if (folder / "report.json").exists() else None


def start(folder: Path, asked: dict[str, Any], force: bool) -> None:
    """Writes the plan of a run; with `force`, removes what another one left.

    A run of the same plan that was interrupted is no other: it resumes.
    """
    from debias.data.records import plain, read_record, write_record

    plan, report = folder / "train.json", folder / "report.json"
    try:
        same = plan.exists() and read_record(plan, ()) == plain(asked)
    except ValueError:  # a damaged plan is replaced by force
        same = False
    if force and not (same and not report.exists()):
        for name in reversed(OURS):  # the report first: without it nothing is finished
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_record(plan, asked)


def _difference(there: Any, here: Any, name: str = "") -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), key)
    if name in ("log", "items", "data"):
        return f"other contents of the {name}"
    return f"{name} {there} where this has {here}"


def read(log: inputs.Found, seed: int, model: str) -> tuple["Prepared", dict[str, Any]]:
    """The log, held out and scaled, and what the codes of its columns mean.

    Raises:
        ValueError: As `Found.open` and `check_usable` do; or the log has context that
            the model does not read.
    """
    from debias.data import ClickLog
    from debias.data.presentation import as_records
    from debias.data.summary import summarize
    from debias.training import prepare

    sessions, data, devices, reading = log.open()
    assert data is not None
    if isinstance(sessions, ClickLog):
        inputs.check_usable(summarize(sessions), log.source.log)
    prepared = prepare(sessions, data, seed)
    if prepared.layout.context and model != "auto" and model not in READS_CONTEXT:
        raise ValueError(
            f"--model {model} does not read the context of a session; "
            f"{' and '.join(READS_CONTEXT)} do. Leave context out (-c context=), or "
            "name it as -c presentation= where it changes how items are examined"
        )
    if not isinstance(sessions, ClickLog):
        assert prepared.test is not None
        some = [prepared.validation.log, prepared.test.log]
        inputs.check_usable(summarize(ClickLog.concatenate(some)), log.source.log)
    scales = {} if reading is None else as_records(reading.scales)
    return prepared, {"devices": list(devices), "scales": scales}


def learn(
    prepared: "Prepared",
    names: dict[str, Any],
    folder: Path,
    model: tuple[str, str],
    config: TrainingConfig,
    tensorboard: Path | None = None,
    corrected: "Correction | None" = None,
) -> dict[str, Any]:
    """Trains in a folder that was started, from where it stands; the report.

    `model` is its name, or "auto" and what to choose by.

    Raises:
        ValueError: Training diverged, or a checkpoint is damaged.
    """
    from debias import training
    from debias.data.records import write_record
    from debias.models.export import export, save

    started = time.perf_counter()
    choice = _chosen(prepared, folder, model, config)
    fitting = time.perf_counter()
    sessions = len(prepared.train.log)
    total = config.passes(sessions) * sessions
    report = (lambda *_: None) if tensorboard is None else _curves(tensorboard)
    with bar(choice.name, total, "sessions/s") as progress:
        checkpoint = folder / "checkpoint.npz"
        fitted = training.fit_prepared(
            corrected or choice.name, prepared, config, checkpoint, progress, report
        )
    seconds = time.perf_counter() - fitting
    assert prepared.test is not None
    tested = training.session_log_likelihoods(fitted.model, *prepared.test)
    save(fitted.model, folder / "model.keras")
    export(
        fitted.ranker,
        folder / "ranker.keras",
        features=prepared.features,
        overwrite=True,
    )
    record = {
        "model": choice.name,
        "why": choice.why,
        "note": fitted.note if corrected is None else corrected.words,
        "correction": None if corrected is None else vars(corrected),
        "candidates": choice.table,
        "log_likelihood": float(tested.mean()),
        "validation_log_likelihood": fitted.log_likelihood,
        "best_epoch": fitted.epoch,
        "history": fitted.history,
        "sessions": {
            "train": len(prepared.train.log),
            "validation": len(prepared.validation.log),
            "test": len(prepared.test.log),
        },
        "held_out_by": prepared.held_out_by,
        "features": prepared.features,
        "feature_names": prepared.feature_names,
        "list_size": prepared.validation.log.list_size,
        **names,
        "sessions_per_second": fitted.sessions / seconds,
        "seconds": time.perf_counter() - started,
        "peak_memory_gb": peak_memory(),
    }
    write_record(folder / "report.json", record)
    return record


def _chosen(
    prepared: "Prepared", folder: Path, model: tuple[str, str], config: TrainingConfig
) -> "Choice":
    """The model that was asked for, or that held-out clicks choose."""
    from debias import training

    name, by = model
    rule: By = "clicks" if by == Rule.CLICKS else "ranking"
    if name != "auto":
        return training.Choice(name, "as asked", [])
    total = training.trial_sessions(prepared, config, rule)
    with bar("candidates", total, "sessions/s") as progress:
        return training.try_all(
            prepared, config, folder=folder / "candidates", progress=progress, by=rule
        )


def _grow(
    log: inputs.Found,
    folder: Path,
    asked: dict[str, Any],
    model: str,
    seed: int,
    force: bool,
) -> dict[str, Any]:
    """Fits trees and writes their folder; the report."""
    from debias import training
    from debias.artifacts import TREES as FILE
    from debias.data import ClickLog
    from debias.data.records import write_record
    from debias.data.summary import summarize
    from debias.models.trees import TreesConfig

    started = time.perf_counter()
    sessions, data, devices, _ = log.open()
    assert data is not None
    if isinstance(sessions, ClickLog):
        inputs.check_usable(summarize(sessions), log.source.log)
    own = TreesConfig(seed=seed)
    config = replace(own, library="xgboost") if model == "trees_xgboost" else own
    start(folder, asked, force)
    with bar(model, config.rounds, "trees/s") as progress:
        fitted = training.fit_trees(
            sessions, data, config, progress, judged=model == "lambdamart"
        )
    fitted.model.write(folder / FILE)
    names = fitted.model.feature_names
    seconds = time.perf_counter() - started
    record = {
        "model": model,
        "why": "as asked",
        "note": "",
        "candidates": [],
        "log_likelihood": fitted.test_log_likelihood,
        "validation_log_likelihood": fitted.log_likelihood,
        "best_epoch": fitted.rounds,
        "history": fitted.history,
        "sessions": fitted.sessions,
        "held_out_by": fitted.held_out_by,
        "features": data.feature_count if names is None else len(names),
        "feature_names": names,
        "list_size": fitted.model.list_size,
        "devices": list(devices),
        "sessions_per_second": fitted.sessions["train"] / seconds,
        "seconds": seconds,
        "peak_memory_gb": peak_memory(),
    }
    write_record(folder / "report.json", record)
    return record


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
