"""`debias inspect`: what a log holds and what can be done with it."""

from typing import Any

import typer

from debias.commands import inputs
from debias.commands.screen import AsJson, messages, print_json, print_table


def inspect(
    log: inputs.Log,
    column: inputs.Column = None,
    items: inputs.Items = None,
    data: inputs.Data = None,
    list_size: inputs.ListSize = None,
    first_position: inputs.FirstPosition = 1,
    first_features: inputs.FirstFeatures = False,
    json: AsJson = False,
) -> None:
    """Reads and checks a log and prints what it holds."""
    with messages():
        source = inputs.Source.of(
            log, column, items, data, list_size, first_position, first_features
        )
        found = described(inputs.read(source, needs_data=False))
    if json:
        print_json(found)
        return
    rows: list[dict[str, Any]]
    shown, ctr = found.pop("shown"), found.pop("ctr")
    problems = found.pop("problems")
    rows = [{"what": k.replace("_", " "), "value": _text(v)} for k, v in found.items()]
    print_table(log, rows)
    numbers = zip(shown, ctr, strict=True)
    rows = [
        {"position": k, "shown": n, "ctr": r} for k, (n, r) in enumerate(numbers, 1)
    ]
    print_table("Clicks by position (better items may stand higher)", rows)
    for problem in problems:
        typer.echo(f"{log}: cannot be learned from: {problem}", err=True)


def described(reading: Any) -> dict[str, Any]:
    """The summary of a reading as JSON values, with what belongs to no log."""
    from debias.data.summary import summarize

    summary = summarize(reading.log).record()
    data, times = reading.data, reading.timestamps
    summary["features"] = 0 if data is None else data.feature_count
    summary["graded"] = data is not None and data.labels is not None
    summary["devices"] = list(reading.devices)
    if reading.users is not None:
        summary["users"] = len(set(reading.users.tolist()) - {-1})
    if times is not None:
        summary["from"], summary["to"] = str(times.min()), str(times.max())
    summary["unused_columns"] = list(reading.unused)
    return summary


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)
