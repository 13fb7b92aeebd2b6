"""Definition of a results table: experiments, seeds, columns.

`benchmarks.experiments.TABLES` lists every `Table`. The commands, the scheduler, the
renderer and the check of Markdown files read this list.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.harness.store import Record

UNIT = "#"  # METRIC#QUERY names the value of a metric on one query


class Experiment(Protocol):
    """One row of a table on one population.

    Workers receive an experiment by pickle, so its class must be at the top level of a
    module.
    """

    @property
    def row(self) -> str: ...

    @property
    def population(self) -> str: ...

    def settings(self) -> Mapping[str, Any]:
        """All settings that determine the result except seed and data, as JSON values.

        The settings are part of the identity of a result: if they change, the row is
        measured again.
        """

    def measure(self, seed: int, data: str | None) -> Mapping[str, float]:
        """Trains and evaluates once, and returns the metrics that apply to the row.

        One process measures all experiments of a population and seed, one after
        another. So it is enough to cache the last simulated log.
        """


@dataclass(frozen=True)
class Derived:
    """A row of a table that is computed from the records of other tables."""

    row: str
    population: str

    def settings(self) -> Mapping[str, Any]:
        return {}

    def measure(self, seed: int, data: str | None) -> Mapping[str, float]:
        raise ValueError(f"row {self.row} is made of other tables, and not measured")


@dataclass(frozen=True)
class Table:
    """A results table.

    Args:
        name: Name of the table on the command line, and of its results file.
        title: One line that says what the table shows.
        experiments: Experiments, in the order of the rows.
        metrics: The metrics to show, in the order of the columns.
        baseline: The row from which paired differences are computed; "" for no
            differences.
        paired: The metrics with a column for the difference from the baseline. The
            first metric of `paired` measures ranking quality.
        clicks: The click metric that may contradict the ranking metric; "" for no click
            metric.
        bounds: Reference rows, which are shown separately because they are not
            candidate models.
        lower: The metrics for which lower is better.
        quick: The experiments of the short version of the table, which takes minutes.
        quick_note: Note on what the short version leaves out, and on what to run next.
        seeds: Number of seeds.
        quick_seeds: Number of seeds of the short version.
        first_seed: The first seed.
        dataset: Name of the data that experiments use if no path is given.
        workers: Largest number of processes that measure at once: 1 for timings, None
            for no limit.
        threads: Threads of each process; None means one per core. Only tables of rates
            may use several threads, because threads change the last digits of other
            results.
        holm: Whether to mark differences that are significant after Holm's correction
            over all differences of the table.
        needs_data: Whether measuring the table requires a path of ranking data.
        sources: Names of other tables. If there are any, this table is not measured:
            `derive` computes it from their records.
        derive: Function that computes the records of this table from the records of
            `sources`. The computed records have empty settings.

    Raises:
        ValueError: The name of a row, population or metric is empty or contains a
            space, "=" or ","; the baseline or a bound is not a row; or two experiments
            have the same row and population.
    """

    name: str
    title: str
    experiments: tuple[Experiment, ...]
    metrics: tuple[str, ...]
    baseline: str = ""
    paired: tuple[str, ...] = ("ndcg@5",)
    clicks: str = "click_log_likelihood"
    bounds: tuple[str, ...] = ()
    lower: tuple[str, ...] = ("perplexity", "examination_error")
    quick: tuple[Experiment, ...] = ()
    quick_note: str = ""
    seeds: int = 10
    quick_seeds: int = 3
    first_seed: int = 0
    dataset: str = "generated"
    workers: int | None = None
    threads: int | None = 1
    holm: bool = False
    needs_data: bool = False
    sources: tuple[str, ...] = ()
    derive: Callable[[Mapping[str, Sequence[Record]]], list[Record]] | None = None

    def __post_init__(self) -> None:
        for kind, names in (
            ("row", self.rows),
            ("population", self.populations),
            ("metric", self.metrics),
        ):
            for name in names:
                if not name or any(c.isspace() or c in "=," for c in name):
                    raise ValueError(
                        f"table {self.name}: {kind} {name!r} must be a name without "
                        "space, '=' or ','"
                    )
        for name in filter(None, (self.baseline, *self.bounds)):
            if name not in self.rows:
                raise ValueError(
                    f"table {self.name}: baseline and bounds must be rows, got {name!r}"
                )
        for variant in (self.experiments, self.quick):
            places = [(e.row, e.population) for e in variant]
            twice = sorted({place for place in places if places.count(place) > 1})
            if twice:
                raise ValueError(
                    f"table {self.name}: one experiment per row and population "
                    f"expected, got several of {twice}"
                )

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows in order, including rows of the short version."""
        return tuple(dict.fromkeys(e.row for e in (*self.experiments, *self.quick)))

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of the populations in order."""
        every = (*self.experiments, *self.quick)
        return tuple(dict.fromkeys(e.population for e in every))

    def records(self, found: Mapping[str, Sequence[Record]]) -> list[Record]:
        """The measured records of this table, or the records that `derive` computes."""
        if self.derive is None:
            return [*found.get(self.name, ())]
        return self.derive({name: found.get(name, ()) for name in self.sources})

    def seeds_of(self, count: int) -> range:
        """The first `count` seeds."""
        return range(self.first_seed, self.first_seed + count)

    def variant(self, quick: bool) -> tuple[Experiment, ...]:
        """The experiments of the short version if `quick`, else of the full version."""
        if quick and not self.quick:
            raise ValueError(f"table {self.name} has no quick version")
        return self.quick if quick else self.experiments


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Error message for an unknown name, which suggests similar names.

    >>> unknown("table", "mian", ["main", "speed"])
    "no table 'mian'; did you mean main? There are: main, speed"
    """
    names = list(known)
    near = difflib.get_close_matches(name, names)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"no {kind} {name!r}{hint} There are: {', '.join(names) or 'none'}"
