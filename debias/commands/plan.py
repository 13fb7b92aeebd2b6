"""`debias plan`: plans which ranks to exchange to identify examination."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from debias.commands import inputs, places
from debias.commands.screen import AsJson, print_json, print_table, say, waiting

if TYPE_CHECKING:
    from debias.propensity.planning import Plan


@inputs.options(source=inputs.Source.of)
def plan(
    source: inputs.Source,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the plan to this JSON file, for the team that serves the "
            "lists.",
        ),
    ] = None,
    se: Annotated[
        float,
        typer.Option(
            help="Requested standard error of log(examination) at every rank."
        ),
    ] = 0.1,
    share: Annotated[
        float,
        typer.Option(help="Largest share of sessions in which ranks may be exchanged."),
    ] = 0.2,
    minimum: Annotated[
        int,
        typer.Option(
            min=2,
            help="Smallest number of sessions per query. The plan omits queries with "
            "fewer sessions.",
        ),
    ] = 20,
    given: Annotated[
        str | None,
        typer.Option(
            "--propensities",
            help="File that `debias propensities` wrote, or the name of an estimator. "
            "By default, the command estimates examination from the log. If the log "
            "does not identify examination, the planned errors and costs are upper "
            "bounds.",
        ),
    ] = None,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Plans which ranks to exchange, in how many sessions, and the cost in clicks.

    The plan needs only click rates by rank. With a probability of 90%, the exchanges
    reduce the standard error at every rank to the requested value. The planned errors
    and costs are upper bounds if examination is unknown.
    """
    from debias.data.records import write_record
    from debias.propensity import plan as planned

    if out is not None:
        places.check_unfilled(out, force)
    log, read = places.opened(source)
    known = None if given is None else places.found_or_read(given, log, read)
    with waiting("planning"):
        found = planned(log, se, share=share, minimum=minimum, known=known)
    record = found.record()
    if out is not None:
        names = None if read.reading is None else read.reading.queries
        chosen = found.queries if names is None else names[found.queries]
        write_record(out, {**record, "query_names": chosen.tolist()})
    if json:
        print_json({**record, "path": None if out is None else str(out)})
        return
    if found.exchanges:
        _print(found)
        say(record["how"])
    else:
        say(found.why)
    if out is not None:
        say(f"written to {out}")


def _print(found: "Plan") -> None:
    lost = f"{'about' if found.known else 'at most'} {math.ceil(found.cost):,.0f}"
    rows = [
        {
            "exchange": f"{each.ranks[0]} with {each.ranks[1]}",
            "share of sessions": each.share,
            "sessions": each.sessions,
            "clicks lost in all": round(each.cost, 1),
        }
        for each in found.exchanges
    ]
    print_table("Exchange the items of two ranks", rows)
    say(found.why)
    say(
        f"{found.sessions:,} sessions of {len(found.queries):,} queries, "
        f"{found.traffic:.0%} of the traffic. The exchanges cost {lost} clicks, "
        f"{found.cost_share:.2%} of the clicks of these sessions. The largest expected "
        f"standard error of log(examination) is {found.standard_error.max():.3f}."
    )
