"""`debias evaluate`: click metrics, ranking metrics and expected clicks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs, pages
from debias.commands.screen import AsJson, print_json, print_result, say, share_bar

if TYPE_CHECKING:
    from debias.artifacts import Trained
    from debias.data import ClickLog
    from debias.training import Evaluation
    from debias.training.pages import Figure
    from debias.training.results import Section

Folder = Annotated[Path, typer.Argument(help="Folder that `debias train` wrote.")]


@inputs.options(source=inputs.Source.of)
def evaluate(
    folder: Folder,
    source: inputs.Source,
    temperature: Annotated[
        float,
        typer.Option(
            help="Temperature of the evaluated Plackett-Luce policy, in standard "
            "deviations of the model's scores."
        ),
    ] = 0.5,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Largest importance weight of a session. The default is the largest "
            "value for which the effective sample size is at least a tenth of the "
            "sessions."
        ),
    ] = None,
    examination: Annotated[
        str | None,
        typer.Option(
            help="Examination probability per position, such as 1,0.6,0.4, or a file "
            "that `debias propensities` wrote."
        ),
    ] = None,
    memory: inputs.Memory = inputs.HELD,
    page: pages.Report = None,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Evaluates a trained model on a log, or on sessions held out from training.

    The options for reading the log, such as -c and --list-size, default to those used
    in training. Click metrics measure how well the model predicts clicks. Ranking
    metrics need relevance grades. A model with better click metrics can have worse
    ranking metrics. The command also estimates how many clicks the model's ranking
    would get. This estimate needs propensities in the log or the option --examination.
    For a streamed log, the estimate uses at most 100,000 random sessions.
    """
    from debias.artifacts import RANKED, load, report_of
    from debias.training import evaluate as evaluated

    pages.check(page, force)
    report = report_of(folder, (*RANKED, "list_size"))
    theta = None if examination is None else _examination(examination)
    given, of = _opened(folder, source, memory, report)
    trained = load(folder)
    assert given.data is not None
    _check_lists(source, report, given.log.list_size, trained.model)
    items = inputs.arranged(given.data, trained.ranker, source)
    with share_bar("evaluating") as progress:
        found = evaluated(
            *(trained.model, given.log, items),
            ranker=trained.ranker,
            temperature=temperature,
            clip=clip,
            examination=theta,
            name=report["model"],
            of=of,
            progress=progress,
        )
    if json:
        print_json(vars(found))
    else:
        print_result(found)
    if page is not None:
        given = given._replace(data=items)
        _write_page(page, found, trained, given, source.log, str(folder))


def _write_page(
    path: Path,
    found: "Evaluation",
    trained: "Trained",
    given: inputs.Opened,
    log: str,
    title: str,
) -> None:
    """Writes an HTML page with metrics, learned examination and example lists."""
    sections, drawn = judged_parts(found, trained, given)
    headline = f"{found.model}, evaluated on {inputs.name_of(log)}"
    pages.write(path, title, headline, [found.words()], sections, drawn)


def judged_parts(
    found: "Evaluation",
    trained: "Trained",
    given: inputs.Opened,
    whole: "ClickLog | None" = None,
) -> tuple[list["Section"], list["Figure"]]:
    """Sections and figures of an evaluation page.

    Args:
        found: Result of the evaluation.
        trained: The trained model.
        given: The evaluated sessions and their items, with features in the ranker's
            order.
        whole: Log from which examination is estimated. None means the evaluated
            sessions.
    """
    from debias.data import ClickLog
    from debias.training import page_parts, score_items
    from debias.training.splits import applied

    assert given.data is not None
    sections, drawn = list(found.sections()), page_parts.calibration(found.clicks)
    if isinstance(given.log, ClickLog):
        features = given.data.features
        read = applied(trained.ranker.preprocess, features)
        log = given.log if whole is None else whole
        drawn = page_parts.examination(log, trained.model, read) + drawn
        names = None if given.reading is None else given.reading.items
        scores = score_items(trained.ranker, features)
        sections += page_parts.examples(given.log, scores, names)
    return sections, drawn


def _opened(
    folder: Path, source: inputs.Source, memory: float, report: dict[str, Any]
) -> tuple[inputs.Opened, str]:
    """Opens the sessions to evaluate on, and describes them in words."""
    from debias.artifacts import plan_of
    from debias.data.presentation import of_records

    asked = plan_of(folder, ("source", "contents", "streamed", "settings"))
    found = inputs.look(source, memory)
    if not found.own:
        source = as_trained(source, asked["source"])
    same = source.contents() == asked["contents"]
    own = same and source.how() == asked["source"]
    if own and asked["streamed"]:
        found = inputs.look(source, 0.0)  # otherwise other sessions would be held out
    scales = of_records(report.get("scales"))
    given = found._replace(source=source).open(report["devices"], scales=scales)
    if own:
        return tests_of(given, asked, folder)
    if same:
        return given, (
            "all sessions, also those of the training; give no other -c than in "
            "training to leave them out"
        )
    return given, "all sessions"


def as_trained(source: inputs.Source, asked: dict[str, Any]) -> inputs.Source:
    """Adds the reading options that were used in training, and prints them."""
    read = source.as_trained(asked)
    added = [each for each in read.options() if each not in source.options()]
    if added:
        say(f"note: options of the training: {' '.join(added)}", err=True)
    return read


def _check_lists(
    source: inputs.Source, report: dict[str, Any], positions: int, model: Any
) -> None:
    """Raises ValueError if lists are longer than the lists used in training."""
    known = report["list_size"]
    if positions > known and model.predicts_clicks:
        raise ValueError(
            f"{source.log}: has lists of {positions} positions, but the model learned "
            f"the bias of {known}: give --list-size {known}, or train on lists of this "
            "length"
        )


def _examination(text: str) -> list[float]:
    """Examination by rank, from numbers or a file of propensities."""
    import numpy as np

    from debias.propensity import read_propensities

    if not Path(text).is_file():
        try:
            return [float(number) for number in text.split(",")]
        except ValueError:
            raise ValueError(
                "--examination must be numbers such as 1,0.6,0.4, or a file of debias "
                f"propensities, got {text!r}"
            ) from None
    try:
        theta, _ = read_propensities(text).by_rank()
    except ValueError as error:
        raise ValueError(f"--examination {text}: {error}") from error
    if not np.isfinite(theta).all():
        rank = int(np.argmin(np.isfinite(theta))) + 1
        raise ValueError(
            f"--examination {text}: the examination of rank {rank} is unknown: keep "
            "fewer ranks (--list-size) in `debias propensities` and here"
        )
    return [float(value) for value in theta / max(theta.max(), 1.0)]


def tests_of(
    given: inputs.Opened, asked: dict[str, Any], folder: Path
) -> tuple[inputs.Opened, str]:
    """The test sessions that training held out, and their description.

    Raises:
        ValueError: Training read the log into memory, but this command streams it.
    """
    from debias import training
    from debias.data import ClickLog

    seed = asked["settings"]["seed"]
    tests: ClickLog
    if isinstance(given.log, ClickLog):
        (_, _, tests), by = training.held_out(given.log, seed)
        return given._replace(log=tests), f"the sessions held out by {by}"
    if not asked["streamed"]:
        raise ValueError(
            f"{folder}: was trained with this log in memory, which decides the "
            "held-out sessions: raise --memory, or train again with this --memory"
        )
    assert given.data is not None
    (_, _, tests), by = training.held_out_of_stream(given.log, given.data.queries, seed)
    of = f"sessions drawn at random from those held out by {by}"
    return given._replace(log=tests), of
