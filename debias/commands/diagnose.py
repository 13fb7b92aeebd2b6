"""`debias diagnose`: can this log identify its bias? One page says so."""

from pathlib import Path
from typing import Annotated

import typer

from debias.commands import inputs
from debias.commands.places import check_free
from debias.commands.screen import AsJson, print_json, say, share_bar

MARKS = {"good": "ok", "caution": "caution", "bad": "PROBLEM", "unknown": "unknown"}


@inputs.options(source=inputs.Source.of)
def diagnose(
    source: inputs.Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    memory: inputs.Memory = inputs.HELD,
    cluster: inputs.Cluster = None,
    max_sessions: Annotated[
        int,
        typer.Option(min=10, help="Sessions to analyse; a longer log is sampled."),
    ] = 100_000,
    features: Annotated[
        bool,
        typer.Option(help="Train models that read features, if the log has features."),
    ] = True,
    seed: Annotated[
        int, typer.Option(help="Random seed of samples and held-out sessions.")
    ] = 0,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Estimates examination in every way the log allows and says what can be known.

    Writes one self-contained page: estimates with bands beside the raw click rates,
    which ranks can be compared, whether one population of users is enough, and what to
    do next. Counts are of the whole log, all else of --max-sessions drawn at random.
    """
    from debias.data.files import atomic_write
    from debias.diagnosis import report

    check_free(out, force)
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
            say(f"{'caution':>8}  {name}: not to be used: {each.degenerate}")
    reasons: dict[str, list[str]] = {}
    for name, why in found.skipped.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        say(f"{'?':>8}  not computed: {', '.join(names)}: {why}")
    say(f"\n{out}")
