"""`debias distill`: trees that imitate a trained ranker."""

import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs
from debias.commands.evaluate import Folder, as_trained
from debias.commands.runs import finished, peak_memory, started
from debias.commands.screen import AsJson, bar, print_json, say

if TYPE_CHECKING:
    from debias.artifacts import Trained
    from debias.data import RankingData
    from debias.models.trees import TreesConfig

# What describes the log is as in the report of the teacher.
KEPT = ("features", "feature_names", "list_size", "devices", "scales")


class Library(StrEnum):
    """Library that grows the trees."""

    LIGHTGBM = "lightgbm"
    XGBOOST = "xgboost"


@inputs.options(source=inputs.Source.of)
def distill(
    folder: Folder,
    source: inputs.Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    library: Annotated[
        Library, typer.Option(help="Library that grows the trees.")
    ] = Library.LIGHTGBM,
    trees: Annotated[int, typer.Option(min=1, help="Largest number of trees.")] = 600,
    leaves: Annotated[
        int, typer.Option(min=2, help="Largest number of leaves of a tree.")
    ] = 31,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    memory: inputs.Memory = inputs.HELD,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite another run in the folder.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Fits boosted trees to the scores of a trained ranker.

    Search engines, LightGBM and XGBoost can run the trees; see `debias export`. The
    command reads the items of a log, without its clicks, and learns how the ranker
    scores them. So the log should have items like those that the trees will rank. A
    tenth of the queries is held out, to compare the orders of trees and ranker. The
    options for reading the log, such as -c, default to those used in
    training. The output folder works with `debias rank`, `evaluate`, `export` and
    `serve`.
    """
    from debias.artifacts import RANKED, TREES, load, plan_of, report_of
    from debias.training.distillation import DEFAULT

    report = report_of(folder, (*RANKED, "list_size"))
    if (folder / TREES).exists():
        raise ValueError(f"{folder}: holds trees already; export them as they are")
    if out.resolve() == folder.resolve():
        raise ValueError(f"--out must not be {folder}, the folder of the ranker")
    config = replace(
        DEFAULT, library=library.value, rounds=trees, leaves=leaves, seed=seed
    )
    plan = plan_of(folder, ("source", "contents", "streamed", "settings"))
    # `debias evaluate` reads the plan of the teacher, to hold out the same sessions.
    asked = {
        **plan,
        "model": "distilled",
        "teacher": report["model"],
        "items": source.contents(),
        "trees": vars(config),
    }
    found = finished(out, asked, force)
    if found is None:
        given = _opened(source, memory, plan, report)
        assert given.data is not None
        teacher = load(folder)
        items = inputs.arranged(given.data, teacher.ranker, source)
        found = _grow(out, items, source.log, teacher, asked, config, force)
    else:
        say(f"{out}: training is finished; --force trains again", err=True)
    if json:
        print_json(found)
    else:
        say(f"{found['note']} Written to {out}")


def _opened(
    source: inputs.Source, memory: float, plan: dict[str, Any], report: dict[str, Any]
) -> inputs.Opened:
    """Opens the items as the teacher's training read them."""
    from debias.data.presentation import of_records

    log = inputs.look(source, memory)
    if not log.own:
        source = as_trained(source, plan["source"])
    scales = of_records(report.get("scales"))
    return log._replace(source=source).open(report["devices"], scales=scales)


def _grow(
    folder: Path,
    items: "RankingData",
    log: str,
    teacher: "Trained",
    asked: dict[str, Any],
    config: "TreesConfig",
    force: bool,
) -> dict[str, Any]:
    """Fits the trees and writes their folder; returns the report."""
    from debias import training
    from debias.artifacts import TREES
    from debias.data.records import write_record

    begun = time.perf_counter()
    with (
        started(folder, asked, force),
        bar("trees", config.rounds, "trees/s") as progress,
    ):
        try:
            found = training.distill(teacher, items, config, progress)
        except ValueError as error:
            raise ValueError(f"{log}: {error}") from error
        found.model.write(folder / TREES)
    record = {
        **{key: teacher.report.get(key) for key in KEPT},
        "model": asked["model"],
        "teacher": asked["teacher"],
        "note": found.words(),
        "best_epoch": found.rounds,
        "history": found.history,
        "r2": found.r2,
        "pairs": found.pairs,
        "items": found.items,
        "held_out_by": found.held_out_by,
        "seconds": time.perf_counter() - begun,
        "peak_memory_gb": peak_memory(),
    }
    write_record(folder / "report.json", record)
    return record
