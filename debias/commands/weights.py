"""`debias weights`: weighted impressions to train rankers of other libraries."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs, places
from debias.commands.screen import AsJson, print_json, say, waiting

if TYPE_CHECKING:
    from debias.propensity import Propensities
    from debias.propensity.impressions import Impressions


@inputs.options(source=inputs.Source.of)
def weights(
    source: inputs.Source,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Output path: NAME.parquet, NAME.tfrecord (with --for tfr), or a new "
            "folder of text files for lightgbm and xgboost.",
        ),
    ],
    library: Annotated[
        str,
        typer.Option(
            "--for", help="Library that trains on the output: lightgbm, xgboost or tfr."
        ),
    ],
    given: places.Given = "auto",
    by: places.By = "",
    clip: Annotated[
        float | None,
        typer.Option(
            help="Largest weight of a click. The default is the largest value for "
            "which the effective sample size is at least half of the clicks."
        ),
    ] = None,
    correction: Annotated[
        str,
        typer.Option(
            "--with",
            help="Correction to write into a folder of text files: weight, position "
            "(LightGBM) or init_score. LightGBM applies every correction in the "
            "folder, so only one correction is written.",
        ),
    ] = "weight",
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Writes a row per impression: label, weight, position, init_score and features.

    The weight of a click is 1 / examination of its rank, limited by --clip. Train with
    only one of these corrections: the weight, LightGBM's `position`, or the bias logit
    as `init_score`. Weights can make a ranker worse, so compare your ranker with a
    ranker trained on raw clicks. Text features stay text in Parquet. Other formats
    replace text by codes, which features.json explains.
    """
    from debias.propensity import impressions, write_impressions
    from debias.propensity.impression_files import CORRECTIONS, LIBRARIES

    inputs.check_name("--for", library, LIBRARIES)
    inputs.check_name("--with", correction, CORRECTIONS)
    places.check_unfilled(out, force)
    log, read = places.opened(source, by_pair=False)
    if read.data is None:
        raise ValueError(
            f"{source.log}: has no features for a ranker: -c features=NAME or "
            "--items FILE"
        )
    known = places.found_or_read(given, log, read, by)
    if known.trust is not None:
        say(
            f"note: {given}: weights cannot correct the column trust; `debias judge` "
            "and `debias train --model affine` can",
            err=True,
        )
    items, queries = places.source_names(read)
    with waiting("weighting"):
        found = impressions(log, known, names=places.names_of(read), clip=clip)
        write_impressions(*(found, out, library, read.data), items, queries, correction)
    if json:
        print_json(_record(found, out, known))
    else:
        _print(found, out)


def _record(found: "Impressions", out: Path, known: "Propensities") -> dict[str, Any]:
    return {
        "path": str(out),
        "rows": len(found),
        "groups": len(found.group_sizes),
        "clicks": found.clicks,
        "clip": found.clip,
        "effective_clicks": found.effective,
        "effective_clicks_without_clip": found.unclipped,
        "verdict": found.verdict(),
        "left_out": found.left_out,
        "propensities": str(known.method[0]),
    }


def _print(found: "Impressions", out: Path) -> None:
    say(
        f"{len(found):,} rows in {len(found.group_sizes):,} groups; {found.clicks:,} "
        f"clicks, whose effective number without a clip is {found.unclipped:,.0f}; "
        f"written to {out}"
    )
    say(found.verdict())
    places.say_left_out(found.left_out)
