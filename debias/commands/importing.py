"""`debias import`: joins events into a log of shown lists."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from debias.commands import inputs
from debias.commands.screen import AsJson, print_json, print_table, say, share_bar

PARTS = (
    "event impression click target session query item shown position timestamp user "
    "device id keep missing"
)
MADE = {
    "path": "path of the log",
    "lists": "number of lists, one row each",
    "impressions": "shown items in these lists",
    "clicks": "click events on shown items",
    "clicked": "shown items with at least one click",
    "first_position": "number of the first rank in the events",
}
MAKES = {
    "key": "how lists are separated: by an id",
    "row": "how lists are separated: one event is one list",
    "gap": "how lists are separated: by pauses",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def columns_of(
    preset: Annotated[
        str,
        typer.Option(
            help="Event tracker whose column names are the defaults: ubi (OpenSearch "
            "User Behavior Insights), ga4 (Google Analytics export), segment, "
            "snowplow, algolia or generic."
        ),
    ] = "generic",
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            "-c",
            help="Column for a role, as ROLE=COLUMN, such as event=action_name or "
            "item=attributes.object.id. For the roles impression, click and target, "
            "give kinds of events instead of a column, such as "
            "click=click,add_to_cart. A dot in a name selects a nested column. May be "
            f"repeated. Roles: {PARTS}.",
        ),
    ] = None,
) -> Any:
    """The column names of the events, as `EventColumns`.

    Raises:
        ValueError: The preset or a role is unknown.
    """
    from debias.data.events import PRESETS
    from debias.data.text import near, quoted

    if preset not in PRESETS:
        advice = near(preset, list(PRESETS))
        raise ValueError(f"--preset {quoted(preset)}: no such preset: {advice}")
    return PRESETS[preset].replaced(column or [])


@inputs.options(columns=columns_of)
def import_events(
    events: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or globs of Parquet, CSV or JSON lines (also .gz), "
            "with one row per event. Queries and events may be in separate files."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder to write, or one file NAME.parquet."),
    ],
    columns: Any,
    first_position: Annotated[
        int | None,
        typer.Option(
            help="Number that the events use for the first position. The default is 0 "
            "if position 0 has at least half as many items as position 1, and 1 "
            "otherwise."
        ),
    ] = None,
    gap: Annotated[
        str,
        typer.Option(
            help="Pause of a user after which the next event starts a new list, such "
            "as 90s, 30m or 1h. The option applies only if the events have no session "
            "id and each event has one item."
        ),
    ] = "30m",
    window: Annotated[
        str | None,
        typer.Option(
            help="Longest time from an impression to an action on its item. By "
            "default, the time is unlimited if the events have a session id; without a "
            "session id, the limit is the value of --gap."
        ),
    ] = None,
    memory: Annotated[
        float,
        typer.Option(min=0.001, help="Approximate memory for joining events, in GB."),
    ] = 0.5,
    cluster: inputs.Cluster = None,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Joins impressions and actions into a log of shown lists, with one row per list.

    The other `debias` commands read this log without any -c option. To resume an
    interrupted run, give the same command again.
    """
    from debias.data.events import import_events
    from debias.engine.cluster import joined

    if cluster is not None:  # its workers have other working folders
        from debias.data.stores import whole_path

        events, out = [whole_path(each) for each in events], out.absolute()
    pause, within = _seconds(gap), None if window is None else _seconds(window)
    with joined(cluster) as over, share_bar("importing") as progress:
        found = import_events(
            events,
            out,
            columns,
            first_position=first_position,
            gap=pause,
            window=within,
            memory=memory,
            force=force,
            progress=progress,
            over=over,
        )
    if json:
        print_json(found._asdict())
    else:
        _print(found._asdict())


def _print(record: dict[str, Any]) -> None:
    from debias.data.events import COUNTED

    for notice in record.pop("notices"):
        say(f"note: {notice}", err=True)
    counts, events_by_name = record.pop("counts"), record.pop("events")
    targets, about = record.pop("targets"), {**MADE, "by": MAKES[record["by"]]}
    rows = [_row(name, value, about[name]) for name, value in record.items()]
    rows += [_row(n, v, "further actions on shown items") for n, v in targets.items()]
    print_table("Log", rows)
    rows = [_row(name, value, COUNTED[name]) for name, value in counts.items()]
    print_table("Events that were merged, moved or left out", rows)
    print_table("Events", [{"event": k, "count": v} for k, v in events_by_name.items()])


def _row(name: str, value: Any, about: str) -> dict[str, Any]:
    """A row of a table: a count and its explanation."""
    return {"what": name, "value": value, "which is": about}


def _seconds(text: str) -> float:
    """Converts text such as 30m to seconds.

    >>> _seconds("90"), _seconds("1.5h")
    (90.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None:
        raise ValueError(f"a time must look like 90s, 30m or 1h, got {text!r}")
    return float(found[1]) * _UNITS[found[2] or "s"]
