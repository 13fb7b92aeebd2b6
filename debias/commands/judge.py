"""`debias judge`: relevance judgments of query-item pairs, from debiased clicks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs, places
from debias.commands.screen import AsJson, print_json, print_table, say, waiting

if TYPE_CHECKING:
    import numpy as np

    from debias.data import ClickLog
    from debias.propensity.judgments import Judgments


@inputs.options(source=inputs.Source.of)
def judge(
    source: inputs.Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    format: Annotated[
        str,
        typer.Option(
            help="Output format. csv writes all columns, as CSV, Parquet or JSON "
            "depending on the file extension. letor writes LETOR lines with grades, "
            "and with the features of the log. srw writes judgments for OpenSearch's "
            "Search Relevance Workbench."
        ),
    ] = "csv",
    given: places.Given = "auto",
    by: places.By = "",
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder that `debias train` wrote. The model's scores determine the "
            "prior, which matters for items with few or no impressions."
        ),
    ] = None,
    graded: Annotated[
        bool,
        typer.Option(
            "--grades",
            help="Also write grades from 0 to 4. The format letor always has grades.",
        ),
    ] = False,
    level: Annotated[
        float, typer.Option(help="Confidence level of the intervals.")
    ] = 0.95,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Writes the estimated click probability at rank 1 of each query-item pair.

    The estimate for an item is its number of clicks divided by the summed examination
    of its impressions. The file has a standard error for each estimate. Estimates from
    few impressions are shrunk towards a prior (empirical Bayes). The prior depends on
    the query, and on how often and at which ranks the log showed the item. The file
    also has COEC (clicks over expected clicks by rank) and the raw click rate.
    """
    from debias.propensity import judge as judged
    from debias.propensity.judgment_files import FORMATS, write_judgments

    inputs.check_name("--format", format, FORMATS)
    places.check_unfilled(out, force)
    log, read = places.opened(source)
    known = places.found_or_read(given, log, read, by)
    by_model: dict[str, Any] = {}
    if model is not None:
        by_model = _scored(model, source, read) | {"fresh": _fresh(model, source, log)}
    names = places.names_of(read)
    items, queries = places.source_names(read)
    with waiting("judging"):
        found = judged(log, known, names=names, level=level, **by_model)
        write_judgments(
            *(found, out, format, items, queries),
            data=read.data,
            graded=graded,
            name=inputs.name_of(source.log),
        )
    record = _record(found, out, str(known.method[0]))
    if json:
        print_json(record)
        return
    named = {name.replace("_", " "): value for name, value in record.items()}
    print_table("Judgments", [{"what": k, "value": v} for k, v in named.items()])
    places.say_left_out(found.left_out)


def _record(found: "Judgments", out: Path, method: str) -> dict[str, Any]:
    """The summary of judgments, with their rank correlations to COEC and CTR."""
    import numpy as np
    from scipy.stats import spearmanr

    shown = found.impressions > 0
    record: dict[str, Any] = {
        "path": str(out),
        "pairs": len(found),
        "queries": len(np.unique(found.query)),
        "never_shown": int((~shown).sum()),
        "propensities": method,
        "prior": found.prior,
        "mean_attraction": float(found.attraction.mean()),
        "median_standard_error": float(np.median(found.standard_error)),
        "left_out": found.left_out,
    }
    if shown.sum() > 2:
        for name in ("coec", "ctr"):
            other = getattr(found, name)[shown]
            agreed = spearmanr(found.attraction[shown], other).statistic
            record[f"rank_correlation_with_{name}"] = float(agreed)
    return record


def _scored(
    model: Path, source: inputs.Source, read: inputs.Opened
) -> dict[str, "np.ndarray"]:
    """A trained ranker's scores of all items, and the offsets of the queries."""
    from debias.artifacts import RANKED, open_ranker, report_of

    report_of(model, RANKED)
    if read.data is None:
        raise ValueError(
            f"{source.log}: has no features to score items; give -c features=NAME or "
            "--items FILE"
        )
    score = open_ranker(model)
    items = inputs.arranged(read.data, score, source)
    return {"scores": score(items.features), "offsets": items.offsets}


def _fresh(model: Path, source: inputs.Source, log: "ClickLog") -> "np.ndarray | None":
    """Mask (S,) of sessions that training did not use; None means all sessions."""
    import numpy as np

    from debias.artifacts import plan_of
    from debias.training.splits import FEW, not_learned

    asked = plan_of(model, ("contents", "streamed", "settings"))
    now, then = source.contents(), asked["contents"]
    if now["log"] != then["log"]:
        return None
    note = (
        "note: the model was trained on this log{}. The intervals are too narrow, as {}"
    )
    own = "they measure the model's error on its own training clicks: "
    if asked["streamed"]:
        say(note.format(", streamed from disk", own + "judge a later log"), err=True)
        return None
    if now != then:  # the queries may have other numbers, so the split is lost
        same = own + "train with the same --items or --data, or judge a later log"
        say(note.format(" with other items", same), err=True)
        return None
    if np.unique(log.query).size < FEW:  # the split is by session
        why = (
            f"with fewer than {FEW} queries the model learned from clicks on all pairs"
        )
        say(note.format("", f"{why}: judge a later log"), err=True)
    return not_learned(log, asked["settings"]["seed"])
