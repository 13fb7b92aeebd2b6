"""`debias evaluate`: predicted clicks, rankings against grades, clicks to expect."""

import gc
import json as json_
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs
from debias.commands.export import Trained, ranker_of, report_of
from debias.commands.rank import scorer
from debias.commands.screen import AsJson, messages, print_json, print_table, share_bar

if TYPE_CHECKING:
    import numpy as np

    from debias.data import ClickLog, RankingData, Stream

CUTOFFS = (1, 3, 5, 10)
PIECE = 1 << 17  # sessions judged at once
SOME = 100_000  # sessions on disk that clicks of another ranking are estimated from


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
    memory: inputs.Memory = inputs.HELD,
    json: AsJson = False,
) -> None:
    """Scores a trained model on a log; on held-out sessions of the one it learned from.

    The click scoreboard and, where there are grades, the ranking scoreboard can
    disagree. Where the log has propensities or --examination is given, the clicks that
    the new ranking would get are estimated, of a streamed log from 100,000 sessions
    drawn at random.
    """
    with messages():
        report = report_of(folder)
        asked = json_.loads((folder / "train.json").read_text(encoding="utf-8"))
        source = inputs.Source.of(
            log, column, items, data, list_size, first_position, first_features
        )
        theta = None if examination is None else _numbers(examination)
        own = source.record() == asked["source"]
        if own and asked["streamed"]:
            memory = 0.0  # else other sessions would be held out than in training
        given = inputs.opened(source, memory, report["devices"])
        assert given.data is not None
        sessions, of = given.log, "all sessions"
        if own:
            sessions, of = tests_of(given, asked, folder)
        elif source.log == asked["source"]["log"]:
            of += ", also those it learned from; read the log as in training to leave "
            of += "them out"
        with share_bar("evaluating") as progress:
            found = {
                "model": report["model"],
                "of": of,
                **scoreboards(
                    folder, sessions, given.data, temperature, clip, theta, progress
                ),
            }
    if json:
        print_json(found)
        return
    typer.echo(f"{found['model']} on {found['sessions']:,} sessions: {of}")
    clicks = found["clicks"]
    ranks = enumerate(clicks.pop("perplexity_per_rank", []), 1)
    print_table("Clicks", [{"metric": k, "value": v} for k, v in clicks.items()])
    if perplexities := [{"position": k, "perplexity": v} for k, v in ranks]:
        print_table("Perplexity", perplexities)
    if found["ranking"]:
        print_table("Ranking, against grades, with 95% intervals", found["ranking"])
    title = "Clicks a session under the new ranking"
    if found["off_policy_sessions"] < found["sessions"]:
        title += f", from {found['off_policy_sessions']:,} sessions drawn at random"
    for estimate in found["off_policy"]:
        rows = [{"what": k, "value": v} for k, v in estimate.items()]
        print_table(title, rows)
    if found["off_policy_note"]:
        typer.echo(f"No estimate by propensity: {found['off_policy_note']}.")


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--examination must be numbers, got {text!r}") from None


def tests_of(
    given: inputs.Opened, asked: dict[str, Any], folder: Path
) -> tuple["ClickLog", str]:
    """The sessions that the training tested by, and what to call them.

    Raises:
        ValueError: The training held the log in memory, and here it is on disk.
    """
    from debias import training
    from debias.data import ClickLog

    seed = asked["settings"]["seed"]
    if isinstance(given.log, ClickLog):
        (_, _, tests), by = training.held_out(given.log, seed)
        return tests, f"the sessions held out by {by}"
    if not asked["streamed"]:
        raise ValueError(
            f"{folder}: was trained with this log in memory, which is what tells the "
            "sessions that it did not learn from: raise --memory, or train with less"
        )
    assert given.data is not None
    (_, _, tests), by = training.held_out_of_stream(given.log, given.data.queries, seed)
    return tests, f"sessions drawn at random from those held out by {by}"


def scoreboards(
    folder: Path,
    log: "ClickLog | Stream",
    data: "RankingData",
    temperature: float = 0.5,
    clip: float = 10.0,
    examination: list[float] | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """All that a trained folder can be told on a log, as JSON values.

    Clicks and rankings are judged on all sessions; the clicks of another ranking are
    estimated from at most 100,000 of a log on disk.
    """
    import keras
    import numpy as np

    import debias.layers
    import debias.models  # noqa: F401  registers what the file holds
    from debias.data import ClickLog
    from debias.data.summary import count
    from debias.propensity import off_policy

    ranker = ranker_of(folder)
    model = keras.models.load_model(folder / "model.keras")
    scores = scorer(ranker)(data.features)
    counts = count(log, lambda share: progress(0.1 * share))
    if isinstance(log, ClickLog):
        some = log
    else:
        some = log.sample(SOME, [0], progress=lambda share: progress(0.1 + 0.1 * share))
    estimates, note = [], None
    chances = some.logging_propensity
    if chances is None:
        note = "the log has no propensities"
    elif (chances[some.mask] >= 1).all():
        note = "all propensities are 1: the logging policy never varied its rankings"
    else:
        chance = off_policy.plackett_luce(some, data, scores, temperature)
        estimates.append(off_policy.cascade_ips(some, chance, clip))
    if examination is not None:
        by_rank = off_policy.examination_ips(some, scores, examination, clip)
        estimates.append(by_rank)
    clicks = click_scoreboard(
        model,
        ranker.preprocess,
        log,
        data,
        scores,
        lambda share: progress(0.2 + 0.8 * share),
    )
    return {
        "sessions": counts.sessions,
        "clicks": clicks,
        "ranking": ranking_scoreboard(np.flatnonzero(counts.asked), data, scores),
        "off_policy": [estimate._asdict() for estimate in estimates],
        "off_policy_sessions": len(some),
        "off_policy_note": note,
    }


def click_scoreboard(
    model: Any,
    scale: Any,
    log: "ClickLog | Stream",
    data: "RankingData",
    scores: "np.ndarray",
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """How likely the clicks were, each predicted from those above it, and where.

    Of a model that predicts no clicks, only where they would stand in its order. Every
    number is made of sums over sessions, so that a log on disk is judged by pieces.
    """
    import numpy as np

    from debias import metrics
    from debias.data import ClickLog
    from debias.data.stream import even_pieces

    reciprocal, clicked = 0.0, 0
    likelihood, shown = np.zeros(log.list_size), np.zeros(log.list_size)
    pieces = [log] if isinstance(log, ClickLog) else log.pieces()
    done, total = 0, len(log)
    for piece in even_pieces(pieces, PIECE):
        order = np.where(piece.mask, scores[piece.item], 0.0)
        found = metrics.mrr(piece.click.astype(np.int8), order, mask=piece.mask)
        reciprocal += np.nansum(found)
        clicked += int(np.count_nonzero(~np.isnan(found)))
        if model.predicts_clicks:
            logits = conditional_logits(model, scale, piece, data)
            value = metrics.item_log_likelihood(piece.click, logits, piece.mask)
            likelihood += value.sum(axis=0, dtype=float)
            shown += piece.mask.sum(axis=0)
        done += len(piece)
        progress(done / total)
    reranked = {"click_mrr": reciprocal / clicked if clicked else None}
    if not model.predicts_clicks:
        return reranked
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing was shown
        per_rank = np.exp(-likelihood / shown)
    return {
        "log_likelihood_per_item": float(likelihood.sum() / shown.sum()),
        "log_likelihood_per_session": float(likelihood.sum() / done),
        "perplexity": float(np.nanmean(per_rank)),
        "perplexity_per_rank": [None if np.isnan(p) else float(p) for p in per_rank],
        **reranked,
    }


def conditional_logits(
    model: Any, scale: Any, log: "ClickLog", data: "RankingData"
) -> "np.ndarray":
    """(S, L) logits of each click, given those above it."""
    import numpy as np

    from debias import training
    from debias.data import RankingData
    from debias.models.batches import PACKS, batches

    seen, features = training.shown_only(log, data)
    scaled = np.concatenate(
        [
            np.asarray(scale(features[k : k + 16384]))
            for k in range(0, len(features), 16384)
        ]
    )
    table = RankingData.trusted(scaled, None, np.array([0, len(scaled)]))
    parts = []
    for batch, clicks in batches(seen, table, 1024, shuffle=False, packed=PACKS):
        given = model.conditional_click_logits(batch, clicks, model(batch))
        parts.append(np.asarray(given))
    gc.collect()  # datasets of TensorFlow are cycles, and hold the features
    return np.concatenate(parts)


def ranking_scoreboard(
    queries: "np.ndarray", data: "RankingData", scores: "np.ndarray"
) -> list[dict[str, Any]]:
    """NDCG and MRR over all items of these queries, empty without grades."""
    import numpy as np

    from debias import metrics

    some = data.select(queries)
    if some.labels is None:
        return []
    rows = np.repeat(data.offsets[queries] - some.offsets[:-1], some.sizes)
    score = scores[np.arange(some.items) + rows]
    ndcg = metrics.ndcg(some.labels, score, CUTOFFS, offsets=some.offsets)
    values = {f"ndcg@{k}": ndcg[:, i] for i, k in enumerate(CUTOFFS)}
    values["mrr"] = metrics.mrr(some.labels, score, offsets=some.offsets)
    found = ((name, metrics.estimate(value)) for name, value in values.items())
    return [{"metric": name, **estimate._asdict()} for name, estimate in found]
