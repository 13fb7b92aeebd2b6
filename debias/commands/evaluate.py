"""`debias evaluate`: predicted clicks, rankings against grades, clicks to expect."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs
from debias.commands.export import Trained, ranker_of, report_of
from debias.commands.rank import scorer
from debias.commands.screen import AsJson, messages, print_json, print_table

if TYPE_CHECKING:
    import numpy as np

    from debias.data import ClickLog, RankingData

CUTOFFS = (1, 3, 5, 10)


def evaluate(
    folder: Trained,
    log: inputs.Log,
    column: inputs.Column = None,
    items: inputs.Items = None,
    data: inputs.Data = None,
    list_size: inputs.ListSize = None,
    first_position: inputs.FirstPosition = 1,
    first_features: inputs.FirstFeatures = False,
    temperature: Annotated[
        float,
        typer.Option(
            help="Of the policy whose clicks are estimated: a Plackett-Luce draw from "
            "the scores, in their standard deviations."
        ),
    ] = 0.5,
    clip: Annotated[float, typer.Option(help="Largest weight of a session.")] = 10.0,
    examination: Annotated[
        str | None,
        typer.Option(help="Of each position, such as 1,.6,.4, to estimate clicks by."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Scores a trained model on a log; on held-out sessions of the one it learned from.

    The click scoreboard and, where there are grades, the ranking scoreboard can
    disagree. Where the log has propensities or --examination is given, the clicks that
    the new ranking would get are estimated.
    """
    with messages():
        report = report_of(folder)
        asked = json_.loads((folder / "train.json").read_text(encoding="utf-8"))
        source = inputs.Source.of(
            log, column, items, data, list_size, first_position, first_features
        )
        reading = inputs.read(source, report["devices"])
        assert reading.data is not None
        sessions, of = reading.log, "all sessions"
        if source.record() == asked["source"]:
            from debias.training import held_out

            (_, _, sessions), by = held_out(sessions, asked["settings"]["seed"])
            of = f"the sessions held out by {by}"
        elif source.log == asked["source"]["log"]:
            of += ", also those it learned from; read the log as in training to leave "
            of += "them out"
        theta = None if examination is None else _numbers(examination)
        found = {
            "model": report["model"],
            "of": of,
            "sessions": len(sessions),
            **scoreboards(folder, sessions, reading.data, temperature, clip, theta),
        }
    if json:
        print_json(found)
        return
    typer.echo(f"{found['model']} on {len(sessions):,} sessions: {of}")
    clicks = found["clicks"]
    ranks = enumerate(clicks.pop("perplexity_per_rank", []), 1)
    print_table("Clicks", [{"metric": k, "value": v} for k, v in clicks.items()])
    if perplexities := [{"position": k, "perplexity": v} for k, v in ranks]:
        print_table("Perplexity", perplexities)
    if found["ranking"]:
        print_table("Ranking, against grades, with 95% intervals", found["ranking"])
    for estimate in found["off_policy"]:
        rows = [{"what": k, "value": v} for k, v in estimate.items()]
        print_table("Clicks a session under the new ranking", rows)
    if found["off_policy_note"]:
        typer.echo(f"No estimate by propensity: {found['off_policy_note']}.")


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--examination must be numbers, got {text!r}") from None


def scoreboards(
    folder: Path,
    log: "ClickLog",
    data: "RankingData",
    temperature: float = 0.5,
    clip: float = 10.0,
    examination: list[float] | None = None,
) -> dict[str, Any]:
    """All that a trained folder can be told on a log, as JSON values."""
    import keras

    import debias.layers
    import debias.models  # noqa: F401  registers what the file holds
    from debias.propensity import off_policy

    ranker = ranker_of(folder)
    model = keras.models.load_model(folder / "model.keras")
    scores = scorer(ranker)(data.features)
    estimates, note = [], None
    chances = log.logging_propensity
    if chances is None:
        note = "the log has no propensities"
    elif (chances[log.mask] >= 1).all():
        note = "all propensities are 1: the logging policy never varied its rankings"
    else:
        chance = off_policy.plackett_luce(log, data, scores, temperature)
        estimates.append(off_policy.cascade_ips(log, chance, clip))
    if examination is not None:
        by_rank = off_policy.examination_ips(log, scores, examination, clip)
        estimates.append(by_rank)
    return {
        "clicks": click_scoreboard(model, ranker.preprocess, log, data, scores),
        "ranking": ranking_scoreboard(log, data, scores),
        "off_policy": [estimate._asdict() for estimate in estimates],
        "off_policy_note": note,
    }


def click_scoreboard(
    model: Any, scale: Any, log: "ClickLog", data: "RankingData", scores: "np.ndarray"
) -> dict[str, Any]:
    """How likely the clicks were, each predicted from those above it, and where.

    Of a model that predicts no clicks, only where they would stand in its order.
    """
    import numpy as np

    from debias import metrics, training
    from debias.data import RankingData
    from debias.pipeline import batches

    shown = np.where(log.mask, scores[log.item], 0.0)
    mrr = float(metrics.click_mrr(log.click, shown, log.mask))
    reranked = {"click_mrr": None if np.isnan(mrr) else mrr}
    if not model.predicts_clicks:
        return reranked
    seen, features = training.shown_only(log, data)
    scaled = np.concatenate(
        [
            np.asarray(scale(features[k : k + 16384]))
            for k in range(0, len(features), 16384)
        ]
    )
    table = RankingData.trusted(scaled, None, np.array([0, len(scaled)]))
    parts = []
    for batch, clicks in batches(seen, table, 1024, shuffle=False):
        given = model.conditional_click_logits(batch, clicks, model(batch))
        parts.append(np.asarray(given))
    logits = np.concatenate(parts)
    per_rank = metrics.perplexity_per_rank(log.click, logits, log.mask)
    sessions = metrics.session_log_likelihood(log.click, logits, log.mask)
    return {
        "log_likelihood_per_item": metrics.click_log_likelihood(
            log.click, logits, log.mask
        ),
        "log_likelihood_per_session": float(sessions.mean()),
        "perplexity": metrics.perplexity(log.click, logits, log.mask),
        "perplexity_per_rank": [None if np.isnan(p) else float(p) for p in per_rank],
        **reranked,
    }


def ranking_scoreboard(
    log: "ClickLog", data: "RankingData", scores: "np.ndarray"
) -> list[dict[str, Any]]:
    """NDCG and MRR over all items of the log's queries, empty without grades."""
    import numpy as np

    from debias import metrics

    chosen = np.unique(log.query)
    some = data.select(chosen)
    if some.labels is None:
        return []
    rows = np.repeat(data.offsets[chosen] - some.offsets[:-1], some.sizes)
    score = scores[np.arange(some.items) + rows]
    ndcg = metrics.ndcg(some.labels, score, CUTOFFS, offsets=some.offsets)
    values = {f"ndcg@{k}": ndcg[:, i] for i, k in enumerate(CUTOFFS)}
    values["mrr"] = metrics.mrr(some.labels, score, offsets=some.offsets)
    found = ((name, metrics.estimate(value)) for name, value in values.items())
    return [{"metric": name, **estimate._asdict()} for name, estimate in found]
