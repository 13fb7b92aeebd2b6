"""Definition of a results table: experiments, seeds, columns.

Each `Table` is listed in `benchmarks.experiments.TABLES`, which commands, scheduler,
rendering and check read.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.harness.store import Record

UNIT = "#"  # METRIC#QUERY names the value of a metric on one query


class Experiment(Protocol):
    """One row of a table on one population.

    Workers receive it by pickle, so its class must be at the top level of a module.
    """

    @property
    def row(self) -> str: ...

    @property
    def population(self) -> str: ...

    def settings(self) -> Mapping[str, Any]:
        """All settings that determine the result besides seed and data, as JSON values.

        The settings are part of the identity of a result: if they change, the row is
        run again.
        """

    def measure(self, seed: int, data: str | None) -> Mapping[str, float]:
        """Trains and evaluates once; metrics that do not apply are left out.

        Experiments of one population and seed are measured one after another in one
        process, so that a cache of size one holds their simulated log.
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
        name: The name on the command line and of the results file.
        title: One line that says what the table shows.
        experiments: Experiments, in the order in which rows are shown.
        metrics: The metrics shown, in this order.
        baseline: The row that paired differences refer to; empty for none.
        paired: The metrics whose difference from the baseline is shown. The first is
            the ranking scoreboard.
        clicks: The click metric that may contradict the ranking metric; empty for none.
        bounds: Rows shown separately, because they are not candidate models.
        lower: The metrics for which lower is better.
        quick: The experiments of a short version that answers in minutes.
        quick_note: How the short version is reduced, and what to do next.
        seeds: Number of seeds.
        quick_seeds: Number of seeds of the short version.
        first_seed: The first seed.
        dataset: Name of the data that experiments use without a path.
        workers: Largest number of processes that measure at once, 1 for timings; None
            for no limit.
        threads: Threads of each process; None for one per core, for rates only: with
            several threads, the last digits of a result vary.
        holm: Whether to mark differences that survive Holm's correction over all
            differences of the table.
        needs_data: Whether the table needs a path of data, see `dataset`.
        sources: Tables from whose records `derive` computes this table, which is never
            run itself.
        derive: Function from the records of each of `sources` to the records of this
            table, which have empty settings.

    Raises:
        ValueError: A row, population or metric name holds a space; the baseline or a
            bound is not a row; two experiments have the same row, population and
            settings.
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
        """Names of the rows in order, including those of the short version."""
        return tuple(dict.fromkeys(e.row for e in (*self.experiments, *self.quick)))

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of the populations in order."""
        every = (*self.experiments, *self.quick)
        return tuple(dict.fromkeys(e.population for e in every))

    def records(self, found: Mapping[str, Sequence[Record]]) -> list[Record]:
        """The records of the table, from those of all tables by name."""
        if self.derive is None:
            return [*found.get(self.name, ())]
        return self.derive({name: found.get(name, ()) for name in self.sources})

    def seeds_of(self, count: int) -> range:
        """The first `count` seeds."""
        return range(self.first_seed, self.first_seed + count)

    def variant(self, quick: bool) -> tuple[Experiment, ...]:
        """The experiments of the short version, or of the full one."""
        if quick and not self.quick:
            raise ValueError(f"table {self.name} has no quick version")
        return self.quick if quick else self.experiments


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for an unknown name, with similar names.

    >>> unknown("table", "mian", ["main", "speed"])
    "no table 'mian'; did you mean main? There are: main, speed"
    """
    names = list(known)
    near = difflib.get_close_matches(name, names)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"no {kind} {name!r}{hint} There are: {', '.join(names) or 'none'}"
