"""`debias train`: trains a click model on a log and writes its ranker.

During training, the folder contains the options (`train.json`) and the training state
(`checkpoint.npz` and `candidates/`). After training, the folder also contains the
ranker with its click model (`ranker.keras`) and `report.json`, which is written last.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from debias.commands import inputs, pages, places
from debias.commands.evaluate import judged_parts, tests_of
from debias.commands.runs import finished, peak_memory, started
from debias.commands.screen import AsJson, bar, print_json, print_table, say, silenced
from debias.presets import CORRECTIONS, PRESETS, READS_CONTEXT, READS_TARGETS, TREES
from debias.training.config import ROUND, TrainingConfig

if TYPE_CHECKING:
    from debias.data import RankingData
    from debias.training import Choice, Correction, Fitted, Prepared, Targets
    from debias.training.pages import Figure
    from debias.training.results import Section
    from debias.training.selection import By


class Rule(StrEnum):
    """Criterion for the choice of a model."""

    RANKING = "ranking"
    CLICKS = "clicks"


CLICKED = " ".join(n for n, each in PRESETS.items() if each.predicts_clicks)
RANKED = " ".join(n for n, each in PRESETS.items() if not each.predicts_clicks)
CORRECTED = " ".join(CORRECTIONS)
GROWN = " ".join(TREES)
MODELS = f"auto {CLICKED} {RANKED} {CORRECTED} {GROWN}"
_learning = partial(typer.Option, rich_help_panel="How the model learns")


def config_of(
    epochs: Annotated[
        int | None,
        _learning(
            min=1,
            help="Largest number of passes over the log. The default is 16, or enough "
            "passes for 400 training steps if the log is small.",
        ),
    ] = None,
    patience: Annotated[
        int,
        _learning(
            min=1,
            help="Training stops after this many evaluations without an improvement.",
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
            help="Weight decay of relevance towers. The default is sqrt(100,000 / "
            "sessions), but at most 20. With fewer than 136 features, the maximum is "
            "lower."
        ),
    ] = None,
    average: Annotated[
        bool,
        _learning(
            help="Evaluate and save the average of the weights over the last training "
            "steps.",
        ),
    ] = True,
    batch_size: Annotated[
        int, _learning(min=1, help="Sessions per training step.")
    ] = TrainingConfig.batch_size,
    seed: Annotated[int, _learning(min=0, help="Random seed.")] = 0,
    every: Annotated[
        int,
        _learning(
            min=1,
            help="Largest number of sessions between two checkpoints.",
        ),
    ] = ROUND,
) -> TrainingConfig:
    """Training settings, checked before a log is read."""
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


class Wanted(NamedTuple):
    """The requested model and its options.

    Attributes:
        model: Name of the model, or "auto".
        given: Propensities of a correction: a file, or the name of an estimator.
        clip: Largest weight of a click in a correction.
        select: Criterion by which "auto" chooses a model.
        worth: Weight of each target in the ranking score, by name.
        levels: Thresholds of each target, by name.
        trees: Whether "auto" may choose boosted trees.
    """

    model: str
    given: str
    clip: float | None
    select: Rule
    worth: dict[str, float]
    levels: dict[str, list[float]]
    trees: bool

    @staticmethod
    def of(
        model: Annotated[
            str,
            typer.Option(
                help="Model to train. auto tries several models and chooses one by "
                f"held-out clicks. Models that predict clicks: {CLICKED}. Models that "
                f"only rank: {RANKED}. Corrections of clicks by propensities: "
                f"{CORRECTED}. Boosted trees: {GROWN}."
            ),
        ] = "auto",
        given: places.Given = "auto",
        clip: Annotated[
            float | None,
            typer.Option(
                help="Largest weight of a click in a correction. The default is the "
                "largest value for which the effective sample size is at least half of "
                "the clicks."
            ),
        ] = None,
        select: Annotated[
            Rule,
            typer.Option(
                help="Criterion of --model auto. ranking chooses the model that best "
                "ranks clicked items above unclicked items. clicks chooses the model "
                "with the highest click likelihood. Use clicks if you need click "
                "probabilities."
            ),
        ] = Rule.RANKING,
        worth: Annotated[
            list[str] | None,
            typer.Option(
                help="For --model multi_target: weight of a target, or of a click, in "
                "the ranking score, as NAME=VALUE, such as order=50. May be repeated. "
                "The default is 1 for each target and 0 for a click."
            ),
        ] = None,
        levels: Annotated[
            list[str] | None,
            typer.Option(
                help="Thresholds of a numeric target, as NAME=A,B, such as "
                "dwell=10,60. May be repeated. The model predicts whether the target "
                "exceeds each threshold. The default threshold is 0."
            ),
        ] = None,
        trees: Annotated[
            bool,
            typer.Option(
                help="With --model auto and --select ranking: also try boosted trees. "
                "Trees need the extra trees, a log that fits in memory, 50 queries and "
                "10,000 training sessions, which is about 12,500 sessions in all."
            ),
        ] = True,
    ) -> "Wanted":
        """Checks the requested model and its options, before a log is read.

        Raises:
            ValueError: The model is unknown, or an option does not apply to the model.
        """
        inputs.check_name("--model", model, MODELS.split())
        if model not in CORRECTIONS and (clip is not None or given != "auto"):
            raise ValueError(
                f"--propensities and --clip need a correction: --model {CORRECTED}"
            )
        if model not in READS_TARGETS and (worth or levels):
            raise ValueError(
                f"--worth and --levels need --model {' '.join(READS_TARGETS)}"
            )
        if not trees and model != "auto":
            raise ValueError(f"--no-trees is for --model auto, got --model {model}")
        prices = {
            n: found[0] for n, found in numbers_by_name("worth", worth, 1).items()
        }
        limits = numbers_by_name("levels", levels, 99)
        return Wanted(model, given, clip, select, prices, limits, trees)

    def record(self) -> dict[str, Any]:
        """Model settings that the run's folder stores, so that the run can resume."""
        from debias.data import fingerprint

        found: dict[str, Any] = {"model": self.model, "select": self.select.value}
        if self.model == "auto":
            found["trees"] = self.trees
        if self.model in READS_TARGETS:
            return {**found, "worth": self.worth, "levels": self.levels}
        if self.model not in CORRECTIONS:
            return found
        given = fingerprint(self.given) if Path(self.given).exists() else self.given
        return {**found, "propensities": given, "clip": self.clip}

    def correction(self, prepared: "Prepared") -> "Correction | None":
        """Makes the requested correction, with propensities from a file or the log."""
        from debias import training
        from debias.propensity import read_propensities

        if self.model not in CORRECTIONS:
            return None
        log, data = prepared.train.log, prepared.train.data
        there = Path(self.given).exists()
        known = read_propensities(self.given) if there else self.given
        return training.correction(
            self.model, log, known, clip=self.clip, features=data.features
        )

    def targets(self) -> "Targets | None":
        """Weights and thresholds of targets, or None for a model without targets."""
        from debias.training import Targets

        reads = self.model in READS_TARGETS
        return Targets(self.worth, self.levels) if reads else None


def numbers_by_name(
    option: str, texts: list[str] | None, most: int
) -> dict[str, list[float]]:
    """Parses strings NAME=A,B into a dict from each name to its list of numbers."""
    wanted = "a number" if most == 1 else "numbers, such as 10,60"
    found = {}
    for text in texts or ():
        name, _, values = text.partition("=")
        try:
            found[name] = [float(each) for each in values.split(",")]
        except ValueError:
            found[name] = []
        if not name or not 1 <= len(found[name]) <= most:
            raise ValueError(f"--{option} must be NAME= and {wanted}, got {text!r}")
    return found


@inputs.options(source=inputs.Source.of, wanted=Wanted.of, config=config_of)
def train(
    source: inputs.Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    wanted: Wanted,
    config: TrainingConfig,
    memory: inputs.Memory = inputs.HELD,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for a TensorBoard log.")
    ] = None,
    page: pages.Report = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite another run in the folder.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Trains a click model and writes its ranker.

    By default, the command compares several models and chooses one. The command holds
    out a tenth of the queries to choose the model and the number of passes, and another
    tenth for `debias evaluate`. To resume an interrupted run, give the same command
    again.
    """
    if wanted.model in TREES and replace(config, seed=0) != TrainingConfig():
        raise ValueError(
            "trees use only --seed of the training options: leave out the others"
        )
    pages.check(page, force)
    log = inputs.look(source, memory)
    asked = {
        "source": source.how(),
        "contents": source.contents(),
        **wanted.record(),
        "settings": vars(config),
        # It determines which sessions are held out.
        "streamed": log.stream is not None,
    }
    report = finished(out, asked, force)
    if report is not None:
        say(f"{out}: training is finished; --force trains again", err=True)
    elif wanted.model in TREES:
        from debias.training.choice import Choice

        opened = _opened(log)
        with started(out, asked, force):
            choice = Choice(wanted.model, "chosen by --model", [])
            report = _grow(opened, out, choice, config.seed)
    else:
        # The folder is created only after the log was read without error.
        prepared, names = read(log, config.seed, wanted.model)
        with started(out, asked, force):
            report = learn(prepared, names, out, wanted, config, log, tensorboard)
    if json:
        print_json(report)
    else:
        _print(report, out)
    if page is not None:
        _write_page(page, report, out, log)


def _write_page(
    path: Path, report: dict[str, Any], out: Path, log: inputs.Found
) -> None:
    """Writes the training report, and the evaluation on held-out sessions."""
    sections = [("Sessions", [report["sessions"]]), *_sections(report)]
    drawn: list[Figure] = []
    if log.stream is None:
        with silenced(True):  # notices were printed before
            judged, drawn = _judged(report, out, log)
        sections += judged
    why = f"{_reason(report)}." if report["candidates"] else ""
    words = [why, report["note"]]
    headline = f"{report['model']}, trained on {inputs.name_of(log.source.log)}"
    pages.write(path, str(out), headline, list(filter(None, words)), sections, drawn)


def _judged(
    report: dict[str, Any], out: Path, log: inputs.Found
) -> tuple[list["Section"], list["Figure"]]:
    """Sections and figures of the page on the sessions held out for tests."""
    from debias.artifacts import load, plan_of
    from debias.data import ClickLog
    from debias.data.presentation import of_records
    from debias.training import evaluate

    given = log.open(report["devices"], scales=of_records(report.get("scales")))
    assert given.data is not None and isinstance(given.log, ClickLog)
    trained = load(out)
    items = given.data.arranged(trained.feature_names, trained.ranker.kinds)
    tests, of = tests_of(given, plan_of(out, ("streamed", "settings")), out)
    found = evaluate(
        *(trained.model, tests.log, items),
        ranker=trained.ranker,
        name=report["model"],
        of=of,
    )
    return judged_parts(found, trained, tests._replace(data=items), given.log)


def _sections(report: dict[str, Any]) -> list["Section"]:
    """Titles and rows of the printed report."""
    found = [("Candidates on held-out clicks", report["candidates"])]
    return [*found, ("Passes", report["history"])]


def _reason(report: Mapping[str, Any]) -> str:
    """The model and why it was chosen, without repeating its name.

    >>> _reason({"model": "xpa", "why": "chosen by --model"})
    'xpa: chosen by --model'
    >>> _reason({"model": "xpa", "why": "xpa has 60% of the pairs in order"})
    'xpa has 60% of the pairs in order'
    """
    model, why = report["model"], report["why"]
    return why if why.startswith(f"{model} ") else f"{model}: {why}"


def _print(report: dict[str, Any], out: Path) -> None:
    for title, rows in _sections(report):
        if rows:
            print_table(title, rows)
    say(_reason(report))
    if report["note"]:
        say(report["note"])
    if targets := report.get("targets"):
        worth = targets["worth"].items()
        say("ranks by worth: " + ", ".join(f"{n} {value:g}" for n, value in worth))
    likely = report["log_likelihood"]
    if likely is not None and likely == likely:  # None or NaN: predicts no clicks
        of = "the clicks"
        if report["model"] in RANKED.split():
            of = "which items were clicked (do not compare it with models of clicks)"
        say(f"log likelihood of {of}: {likely:.5f} nats per test session")
    say(
        f"trained in {report['seconds']:.0f} s, "
        f"{report['sessions_per_second']:,.0f} sessions/s, "
        f"peak memory {report['peak_memory_gb'] or 0:.2f} GB; written to {out}"
    )


def read(log: inputs.Found, seed: int, model: str) -> tuple["Prepared", dict[str, Any]]:
    """Returns the log prepared for training, and the names of its integer codes.

    Raises:
        ValueError: `Found.open` or `check_usable` fails, the log lacks targets that the
            model needs, or the log has context that the model does not read.
    """
    from debias.data import ClickLog
    from debias.data.presentation import as_records
    from debias.data.summary import summarize

    sessions, data, devices, reading = log.open()
    assert data is not None
    scales = {} if reading is None else as_records(reading.scales)
    if isinstance(sessions, ClickLog):
        inputs.check_usable(summarize(sessions), log.source.log)
    from debias.training import prepare  # loads TensorFlow, only after the log is read

    given = [data]
    del data, reading  # so that `prepare` can free memory
    prepared = prepare(sessions, given.pop(), seed, targets=model in READS_TARGETS)
    if model in READS_TARGETS and not prepared.layout.targets:
        raise ValueError(
            f"--model {model} learns from targets, but {log.source.log} has none: name "
            "their columns, such as -c target=order"
        )
    if prepared.layout.context and model != "auto" and model not in READS_CONTEXT:
        raise ValueError(
            f"--model {model} does not read the context of a session; "
            f"{' and '.join(READS_CONTEXT)} do. Leave the context out (-c context=). "
            "If it changes how items are examined, name it with -c presentation= "
            "instead"
        )
    if not isinstance(sessions, ClickLog):
        assert prepared.test is not None
        some = [prepared.validation.log, prepared.test.log]
        inputs.check_usable(summarize(ClickLog.concatenate(some)), log.source.log)
    return prepared, {"devices": list(devices), "scales": scales}


def learn(
    prepared: "Prepared",
    names: dict[str, Any],
    folder: Path,
    wanted: Wanted,
    config: TrainingConfig,
    log: inputs.Found,
    tensorboard: Path | None = None,
) -> dict[str, Any]:
    """Trains in a folder that the caller has locked, and returns the report.

    If the folder contains an unfinished run, the run is resumed. If trees are chosen,
    the log is opened again, because trees learn from raw features.

    Raises:
        ValueError: Training diverged, or a checkpoint is damaged.
    """
    from debias import training
    from debias.data.records import write_record
    from debias.models.export import export

    begun = time.perf_counter()
    corrected = wanted.correction(prepared)
    choice = _chosen(prepared, folder, wanted, config)
    if choice.name in TREES:
        with silenced(True):  # notices were printed before
            opened = _opened(log)
        return _grow(opened, folder, choice, config.seed, begun)
    fitting = time.perf_counter()
    sessions = len(prepared.train.log)
    total = config.passes(sessions) * sessions
    report = (lambda *_: None) if tensorboard is None else _curves(tensorboard)
    with bar(choice.name, total, "sessions/s") as progress:
        checkpoint = folder / "checkpoint.npz"
        fitted = training.fit_prepared(
            corrected or wanted.targets() or choice.name,
            prepared,
            config,
            checkpoint,
            progress,
            report,
        )
    seconds = time.perf_counter() - fitting
    export(
        fitted,
        folder / "ranker.keras",
        features=prepared.features,
        overwrite=True,
    )
    record = {
        **_found(choice, fitted, corrected),
        **names,
        "sessions_per_second": fitted.sessions / seconds,
        "seconds": time.perf_counter() - begun,
        "peak_memory_gb": peak_memory(),
    }
    write_record(folder / "report.json", record)
    return record


def _found(
    choice: "Choice", fitted: "Fitted", corrected: "Correction | None"
) -> dict[str, Any]:
    """The training report without time and memory."""
    from debias import training

    prepared = fitted.prepared
    assert prepared.test is not None
    tested = training.session_log_likelihoods(fitted.model, *prepared.test)
    return {
        "model": choice.name,
        "why": choice.why,
        "note": fitted.note if corrected is None else corrected.words,
        "correction": None if corrected is None else vars(corrected),
        "targets": _priced(fitted.model),
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
    }


def _priced(model: Any) -> dict[str, Any] | None:
    """Thresholds and weights of a model's targets; None if the model has no targets."""
    from debias.models import MultiTarget

    if not isinstance(model, MultiTarget):
        return None
    return {"levels": dict(model.targets), "worth": dict(model.worth)}


def _chosen(
    prepared: "Prepared", folder: Path, wanted: Wanted, config: TrainingConfig
) -> "Choice":
    """The requested model, or the model that held-out clicks choose."""
    from debias import training

    if wanted.model != "auto":
        return training.Choice(wanted.model, "chosen by --model", [])
    by: By = "clicks" if wanted.select == Rule.CLICKS else "ranking"
    total = training.trial_sessions(prepared, config, by)
    names = training.candidates_of(prepared, by)
    if not wanted.trees:
        names = tuple(name for name in names if name not in TREES)
    with bar("candidates", total, "sessions/s") as progress:
        return training.try_all(
            prepared, config, names, folder / "candidates", progress, by
        )


def _opened(log: inputs.Found) -> tuple[Any, "RankingData", Sequence[str]]:
    """The sessions, their items with raw features, and the names of devices."""
    from debias.data import ClickLog
    from debias.data.summary import summarize

    sessions, data, devices, _ = log.open()
    assert data is not None
    if isinstance(sessions, ClickLog):
        inputs.check_usable(summarize(sessions), log.source.log)
    return sessions, data, devices


def _grow(
    opened: tuple[Any, "RankingData", Sequence[str]],
    folder: Path,
    choice: "Choice",
    seed: int,
    begun: float | None = None,
) -> dict[str, Any]:
    """Fits trees in a folder that the caller has locked, and returns the report."""
    from debias import training
    from debias.artifacts import TREES as FILE
    from debias.data.records import write_record
    from debias.models.trees import TreesConfig

    begun = time.perf_counter() if begun is None else begun
    sessions, data, devices = opened
    preset = TREES[choice.name]
    config = TreesConfig(library=preset.library, seed=seed)
    fits = 1 if preset.objective == "judgments" else len(config.tried(data.items))
    rounds = fits * config.rounds  # at most
    growing = time.perf_counter()
    with bar(choice.name, rounds, "trees/s") as progress:
        fitted = training.fit_trees(
            sessions, data, config, progress, objective=preset.objective
        )
        fitted.model.write(folder / FILE)
    seconds = time.perf_counter() - growing
    names = fitted.model.feature_names
    record = {
        "model": choice.name,
        "why": choice.why,
        "note": "",
        "candidates": choice.table,
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
        "seconds": time.perf_counter() - begun,
        "peak_memory_gb": peak_memory(),
    }
    write_record(folder / "report.json", record)
    return record


def _curves(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """Writes scalars for TensorBoard, which need not be installed."""
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
