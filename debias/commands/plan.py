"""`debias plan`: what to randomise so that a log tells examination."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from debias.commands import inputs, places
from debias.commands.screen import AsJson, print_json, print_table, say

if TYPE_CHECKING:
    from debias.propensity.planning import Plan


@inputs.options(source=inputs.Source.of)
def plan(
    source: inputs.Source,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="JSON file for the team that shows lists."),
    ] = None,
    se: Annotated[
        float,
        typer.Option(help="Wanted standard error of log examination at every rank."),
    ] = 0.1,
    share: Annotated[
        float, typer.Option(help="Sessions that are changed at most, as a share.")
    ] = 0.2,
    minimum: Annotated[
        int, typer.Option(min=2, help="Sessions of a query that takes part.")
    ] = 20,
    given: Annotated[
        str | None,
        typer.Option(
            "--propensities",
            help="File of `debias propensities`, if examination is known; by default "
            "that of the log, or bounds that hold for any.",
        ),
    ] = None,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Says which ranks to exchange in how many sessions, and what that costs in clicks.

    Plans from click rates by rank, which any log has. With a chance of 90%, every rank
    reaches the wanted error; errors and costs are bounds where nothing else is known.
    """
    from debias.data.records import write_record
    from debias.propensity import plan as planned

    if out is not None:
        places.check_free(out, force)
    log, read = places.opened(source)
    known = None if given is None else places.found_or_read(given, log, read)
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
        f"{found.traffic:.0%} of the traffic. They cost {lost} clicks, "
        f"{found.cost_share:.2%} of the clicks of these sessions. The worst standard "
        f"error expected, of log examination, is {found.standard_error.max():.3f}."
    )
