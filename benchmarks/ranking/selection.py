"""The cost of model selection: `auto` compared with each population's best row.

The table is derived from the results of `main` and `mixed-users`. In both tables,
`auto` is the model that `debias.select` chooses by validation clicks only. `best` is
the row with the highest mean NDCG@5 on a population. Which row this is, is only known
after the evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.harness.plan import Derived, Table
from benchmarks.harness.store import Record
from benchmarks.harness.tables import current
from benchmarks.ranking.tables import BASELINE, CROWDS, FRESH, MAIN, MIXED_USERS

NAME, EVERY, METRIC = "selection", "all", "ndcg@5"
ROWS = ("best", "auto", BASELINE)
SOURCES: Mapping[str, tuple[Table, str]] = {
    **{crowd: (MAIN, crowd) for crowd in CROWDS},
    **{
        f"{crowd}-half" if crowd in CROWDS else crowd: (MIXED_USERS, crowd)
        for crowd in MIXED_USERS.populations
    },
}
"""Source table and users of each population; -half if `MAIN` has the same users."""

ByRow = dict[str, dict[int, Record]]  # by seed


def derive(records: Mapping[str, Sequence[Record]]) -> list[Record]:
    """Records of the rows `ROWS`, for each population and for all populations.

    `chose_best` of `auto` is 1 for each seed for which `auto` is as good as the best
    row.
    """
    crowds = {
        population: found
        for population, (table, crowd) in SOURCES.items()
        if (found := _of_crowd(table, crowd, records[table.name]))
    }
    renamed = [
        replace(record, table=NAME, row=row, population=population, config={})
        for population, rows in crowds.items()
        for row, by_seed in rows.items()
        for record in by_seed.values()
    ]
    return [*renamed, *_together([*crowds.values()])]


def _of_crowd(table: Table, crowd: str, records: Sequence[Record]) -> ByRow:
    """The rows of a population at the seeds of `auto`; {} if there is no `auto`."""
    by_row: ByRow = {}
    for record in current(table, records):
        here = (record.dataset, record.population) == (table.dataset, crowd)
        if here and record.row not in table.bounds and METRIC in record.metrics:
            by_row.setdefault(record.row, {})[record.seed] = record
    auto = by_row.pop("auto", {})
    # A row with fewer seeds, measured in easier worlds, must not count as the best.
    rivals = {row: each for row, each in by_row.items() if auto.keys() <= each.keys()}
    if not auto or BASELINE not in rivals:
        return {}
    best = max(
        rivals, key=lambda row: sum(rivals[row][seed].metrics[METRIC] for seed in auto)
    )
    found: ByRow = {row: {} for row in ROWS}
    for seed, record in auto.items():
        top = rivals[best][seed]
        same = float(record.metrics[METRIC] >= top.metrics[METRIC])
        metrics = {**record.metrics, "chose_best": same}
        found["best"][seed] = top
        found["auto"][seed] = replace(record, metrics=metrics)
        found[BASELINE][seed] = rivals[BASELINE][seed]
    return found


def _together(crowds: Sequence[ByRow]) -> list[Record]:
    """Means over all populations at common seeds; [] if a population is missing."""
    if len(crowds) < len(SOURCES):
        return []
    seeds = set.intersection(*({*each["auto"]} for each in crowds))
    found = []
    for row in ROWS:
        for seed in sorted(seeds):
            each = [crowd[row][seed] for crowd in crowds]
            names = set.intersection(*({*record.metrics} for record in each))
            metrics = {
                name: sum(record.metrics[name] for record in each) / len(each)
                for name in sorted(names)
            }
            seconds = sum(record.seconds for record in each)
            record = replace(
                each[0], metrics=metrics, seconds=seconds, table=NAME, row=row
            )
            found.append(replace(record, population=EVERY, config={}))
    return found


TABLE = Table(
    name=NAME,
    title="Models chosen by held-out clicks, compared with each population's best row",
    experiments=tuple(
        Derived(row, population) for population in (*SOURCES, EVERY) for row in ROWS
    ),
    metrics=("ndcg@1", METRIC, "ndcg@10", "expected_clicks", "chose_best"),
    baseline="best",
    clicks="",
    bounds=("best",),
    first_seed=FRESH,
    sources=(MAIN.name, MIXED_USERS.name),
    derive=derive,
)
