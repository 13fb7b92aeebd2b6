"""`debias inspect`: a summary of a log and its problems."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from debias.commands import inputs
from debias.commands.screen import (
    AsJson,
    complain,
    print_json,
    print_table,
    say,
    share_bar,
)

if TYPE_CHECKING:
    from debias.data import ClickLog, RankingData, Stream
    from debias.data.read_log import Reading
    from debias.types import Over


@inputs.options(source=inputs.Source.of)
def inspect(
    source: inputs.Source,
    memory: inputs.Memory = inputs.HELD,
    cluster: inputs.Cluster = None,
    json: AsJson = False,
) -> None:
    """Reads and checks a log and prints a summary."""
    with inputs.opened_over(source, memory, cluster) as (given, over):
        if given.reading is None:
            found = summary(given.log, given.data, given.devices, over)
        else:
            found = described(given.reading)
    if json:
        print_json(found)
        return
    rows: list[dict[str, Any]]
    shown, ctr = found.pop("shown"), found.pop("ctr")
    problems, warnings = found.pop("problems"), found.pop("warnings")
    del found["notices"]  # already printed when the log was read
    kinds = found.pop("kinds")
    rows = [{"what": _called(k), "value": _text(v)} for k, v in found.items()]
    print_table(inputs.name_of(source.log), rows)
    if kinds:
        print_table("Features (-c categories=NAME reads NAME as a category)", kinds)
    numbers = zip(shown, ctr, strict=True)
    rows = [
        {"position": k, "shown": n, "ctr": r} for k, (n, r) in enumerate(numbers, 1)
    ]
    print_table("Clicks by position (item quality may differ between positions)", rows)
    for problem in problems:
        complain(f"{source.log}: cannot be learned from: {problem}")
    for warning in warnings:
        say(f"warning: {source.log}: {warning}", err=True)


def described(reading: "Reading") -> dict[str, Any]:
    """Summary of a log from `read_log`, with users, times and unused columns."""
    found = summary(reading.log, reading.data, reading.devices)
    users, times = reading.users, reading.timestamps
    if users is not None:
        found["users"] = len(set(users.tolist()) - {-1})
    if times is not None:
        known = times[times == times]  # a missing time is not equal to itself
        if len(known):
            found["from"], found["to"] = str(known.min()), str(known.max())
    found["unused_columns"] = list(reading.unused)
    found["notices"] = list(reading.notices)
    return found


def summary(
    log: "ClickLog | Stream",
    data: "RankingData | None",
    devices: Sequence[str],
    over: "Over" = map,
) -> dict[str, Any]:
    """The summary of a log and its ranking data, as JSON values."""
    from debias.data.summary import count

    with share_bar("counting") as progress:
        counted = count(log, progress, over).summary()
    return {
        **counted.record(),
        "features": 0 if data is None else data.feature_count,
        "kinds": kinds_of(data),
        "graded": data is not None and data.labels is not None,
        "devices": list(devices),
        "notices": [],
    }


def kinds_of(data: "RankingData | None") -> list[dict[str, Any]]:
    """Rows that describe the features; empty without `data` or `data.kinds`."""
    from debias.data.kinds import described

    if data is None or data.kinds is None:
        return []
    return described(data.kinds, data.features)


def _called(name: str) -> str:
    """The name under which the screen shows a number of the summary."""
    names = {"moved": "share of items at several ranks", "items": "query-item pairs"}
    return names.get(name, name.replace("_", " "))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)
