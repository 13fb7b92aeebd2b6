"""`debias diagnose`: reports whether a log lets position bias be estimated."""

from pathlib import Path
from typing import Annotated

import typer

from debias.commands import inputs
from debias.commands.places import check_unfilled
from debias.commands.screen import AsJson, print_json, say, share_bar

MARKS = {"good": "ok", "caution": "caution", "bad": "PROBLEM", "unknown": "unknown"}


@inputs.options(source=inputs.Source.of)
def diagnose(
    source: inputs.Source,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML page to write.")
    ] = Path("report.html"),
    memory: inputs.Memory = inputs.HELD,
    cluster: inputs.Cluster = None,
    max_sessions: Annotated[
        int,
        typer.Option(
            min=10,
            help="Largest number of sessions to analyse. If the log is larger, the "
            "command draws a random sample of this size.",
        ),
    ] = 100_000,
    features: Annotated[
        bool,
        typer.Option(
            help="Also use estimators that train models on the features of the log."
        ),
    ] = True,
    seed: Annotated[
        int, typer.Option(help="Random seed for the sample and the held-out sessions.")
    ] = 0,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Tests whether a log can separate relevance from position bias.

    The command writes one self-contained HTML page. The page shows estimates of
    examination beside raw click rates. The page also lists the ranks that share items
    and can therefore be compared. The page reports whether the log mixes several kinds
    of users, and recommends next steps. Counts use the whole log, and estimates use a
    random sample of at most --max-sessions sessions.
    """
    from debias.data.files import atomic_write
    from debias.diagnosis import report

    check_unfilled(out, force)
    with inputs.opened_over(source, memory, cluster) as (opened, over):
        given = opened.by_pair()
        log, data = given.log, given.data if features else None
        reading = given.reading
        scales = {} if reading is None else reading.scales
        labels = {name: scale.labels for name, scale in scales.items()}
        with share_bar("diagnosing") as progress:
            found = report.diagnose(
                log, data, max_sessions, seed, progress, given.devices, labels, over
            )
    inputs.check_usable(found.summary, source.log)
    with atomic_write(out) as aside:
        page = report.page(found, inputs.name_of(source.log))
        aside.write_text(page, encoding="utf-8")
    if json:
        print_json({**found.record(), "page": str(out)})
        return
    say("\n".join([found.headline, *found.advice]) + "\n")
    for name, one in found.findings.items():
        say(f"{MARKS[one.grade]:>8}  {name}: {one.verdict}")
        say(f"{'':>8}  {one.next_step}")
    for name, each in found.estimates.items():
        if each.degenerate:
            say(f"{'caution':>8}  {name}: do not use: {each.degenerate}")
    reasons: dict[str, list[str]] = {}
    for name, why in found.skipped.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        say(f"{'?':>8}  not computed: {', '.join(names)}: {why}")
    say(f"\n{out}")
