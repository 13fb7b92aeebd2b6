"""Compares the effect of random order on NDCG@10 with the published effect.

The table is derived from the results of `confounding` and `confounding-rich`. A row is
a step from a log to a log with a larger share of sessions in random order. The other
sessions of both logs show the best or the worst items first. `change` is the change in
NDCG@10 at this step, and `published` is the published change. `same_sign` is 1 for a
seed if both changes have the same sign.

Published values are means of three seeds on MSLR30K by Hager et al., ICTIR 2025. They
have three models: a logit for each item (`per_item`), a deep tower without weights
(`product`), and a deep tower with weights (`product_weighted`). The values of the
towers are on logs that show the best items first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from benchmarks.harness.plan import Derived, Table
from benchmarks.harness.store import Record
from benchmarks.harness.tables import current
from benchmarks.ranking.tables import CONFOUNDING, CONFOUNDING_RICH, FRESH, LOGGED

NAME, METRIC = "confounding-published", "ndcg@10"
SHARES = ("0.00", "0.33", "0.67", "1.00")  # of sessions in random order
PUBLISHED: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "per_item": {
        "best-first": (0.873, 0.924, 0.942, 0.936),
        "worst-first": (0.683, 0.886, 0.925, 0.936),
    },
    "product": {"best-first": (0.711, 0.721, 0.723, 0.729)},
    "product_weighted": {"best-first": (0.711, 0.722, 0.725, 0.728)},
}
"""NDCG@10 by share in `SHARES`, by model and by the order of the other sessions."""
SOURCES = {
    "per_item": CONFOUNDING_RICH,
    "product": CONFOUNDING,
    "product_weighted": CONFOUNDING,
}


def steps(model: str) -> dict[str, tuple[str, str, float]]:
    """The two logs and the published change of each step, by row.

    >>> steps("product")["best-first-0.67-1.00"][:2]
    ('best-first-0.67', 'random-order')
    """
    found = {}
    for order, values in PUBLISHED[model].items():
        logs = [f"{order}-{share}" for share in SHARES[:-1]] + ["random-order"]
        for pair, ends, change in zip(
            pairwise(SHARES), pairwise(logs), pairwise(values), strict=True
        ):
            found[f"{order}-{'-'.join(pair)}"] = (*ends, change[1] - change[0])
    return found


def derive(records: Mapping[str, Sequence[Record]]) -> list[Record]:
    """A record for each model, step and seed with results on both logs of the step."""
    found = []
    for model, table in SOURCES.items():
        by_log: dict[str, dict[int, Record]] = {name: {} for name in LOGGED}
        for record in current(table, records[table.name]):
            if record.row == model and METRIC in record.metrics:
                by_log[record.population][record.seed] = record
        for row, (before, after, published) in steps(model).items():
            for seed in sorted(by_log[before].keys() & by_log[after].keys()):
                ends = by_log[before][seed], by_log[after][seed]
                change = ends[1].metrics[METRIC] - ends[0].metrics[METRIC]
                same = float(change * published > 0)
                metrics = {"published": published, "change": change}
                metrics["same_sign"] = same
                seconds = sum(end.seconds for end in ends)
                of = replace(ends[1], table=NAME, row=row, population=model, config={})
                found.append(replace(of, metrics=metrics, seconds=seconds))
    return found


TABLE = Table(
    name=NAME,
    title="Effect of random order on NDCG@10, compared with published effects",
    experiments=tuple(
        Derived(row, model) for model in PUBLISHED for row in steps(model)
    ),
    metrics=("published", "change", "same_sign"),
    baseline="",
    paired=(),
    clicks="",
    first_seed=FRESH,
    sources=(CONFOUNDING.name, CONFOUNDING_RICH.name),
    derive=derive,
)
