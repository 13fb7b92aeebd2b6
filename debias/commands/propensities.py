"""`debias propensities`: writes the examination probability of each rank."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs, places
from debias.commands.screen import (
    AsJson,
    complain,
    print_json,
    print_table,
    say,
    share_bar,
)

if TYPE_CHECKING:
    from debias.propensity.places import Propensities

UNKNOWN = 3  # exit status of --strict


@inputs.options(source=inputs.Source.of)
def propensities(
    source: inputs.Source,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="File to write: NAME.csv, NAME.parquet or NAME.json."
        ),
    ],
    by: places.By = "",
    method: Annotated[
        str,
        typer.Option(
            help="Estimator: auto, or one of ctr pivot adjacent_chain all_pairs "
            "pbm_em pbm_mle pbm_conditional regression_em dla."
        ),
    ] = "auto",
    level: Annotated[
        float, typer.Option(help="Confidence level of the intervals.")
    ] = 0.95,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with status 3 if the log leaves the examination of any rank "
            "unidentified.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    cluster: inputs.Cluster = None,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Writes each rank's examination relative to rank 1, if the log identifies it.

    Use the file for inverse propensity weighting in any library, or for `debias judge`
    and `debias weights`. If the log does not identify the examination of a rank, the
    rank's value is empty and the column verdict gives the reason.
    """
    import numpy as np

    from debias.propensity import ESTIMATORS

    inputs.check_name("--method", method, ("auto", *ESTIMATORS))
    places.check_unfilled(out, force)
    found = _estimated(
        source, cluster, method, by=places.listed(by), level=level, seed=seed
    )
    found.write(out)
    unknown = int(np.isnan(found.examination).sum())
    if json:
        record = {"path": str(out), "why": found.why, "notes": list(found.notes)}
        print_json({**record, "unknown": unknown, "places": found.records()})
    else:
        shown = [
            {name: value for name, value in row.items() if name not in ("n", "method")}
            for row in found.records()
        ]
        print_table(f"Examination over rank 1, by {found.method[0]}", shown)
        say(found.why)
        for note in found.notes:
            say(f"note: {note}")
        say(f"{len(found)} places, {unknown} of them not identified; written to {out}")
    if strict and unknown:
        complain(f"error: {unknown} of {len(found)} places are not identified")
        raise typer.Exit(UNKNOWN)


def _estimated(
    source: inputs.Source, cluster: str | None, method: str, **asked: Any
) -> "Propensities":
    """Estimates examination from a log in memory, or from counts made on a cluster."""
    from debias.data.summary import count
    from debias.propensity import propensities as found_of

    if cluster is None:
        log, given = places.opened(source)
        features = None if given.data is None else given.data.dense()
        names = places.names_of(given)
        return found_of(log, method, names=names, features=features, **asked)
    with inputs.opened_over(source, 0, cluster) as (given, over):
        with share_bar("counting") as progress:
            counted = count(given.log, progress, over)
        inputs.check_usable(counted.summary(), source.log)
        return found_of(given.log, method, over=over, **asked)
