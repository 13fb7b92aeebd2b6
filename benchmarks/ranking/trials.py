"""Trials of ranking rows on one population, and tuning by validation clicks.

This module does not load TensorFlow. The tables themselves are in
`benchmarks.ranking.tables`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.harness.memory import forget
from benchmarks.harness.plan import Table
from benchmarks.ranking.settings import Drawn, Logging, Size, identity
from debias.training.config import TrainingConfig

TUNING_SEED = 1000  # first seed of tuning worlds, which no other table uses
FRESH = 100  # first seed of tables whose settings were fixed before they ran
STARTED = (  # rows whose towers start at the click rate since revision 2
    *("naive", "position_feature", "product", "product_three", "additive", "mixture"),
    *("mixture_2", "xpa", "oracle_examination", "auto"),
)
# Revision of a row; increase it when its results change.
REVISIONS = {
    **dict.fromkeys(STARTED, 2),
    **{"dot": 4, "bilinear": 4, "xpa": 3, "listwise_xpa": 2},
    **dict.fromkeys(("xpa_own", "xpa_places", "xpa_relevance", "xpa_self"), 2),
    "xpa_positions": 2,
}


@dataclass(frozen=True)
class Trial:
    """A row of a ranking table: a model trained on the clicks of one population.

    If `crowd` is set, it names the simulated users. Then `population` names another
    property of the trial, such as its size or `logging`. If `learner` is set, it names
    the model, and `row` names its training settings. If `drawn` is set, each seed draws
    a new world instead of new queries of the same world.
    """

    row: str
    population: str
    size: Size
    config: TrainingConfig
    crowd: str = ""
    logging: Logging | None = None
    learner: str = ""
    drawn: Drawn | None = None

    def settings(self) -> dict[str, Any]:
        revision = REVISIONS.get(self.learner or self.row, 1)
        found = {**asdict(self.size), **identity(self.config), "revision": revision}
        if self.crowd:
            found["crowd"] = self.crowd
        if self.learner:
            found["learner"] = self.learner
        if self.drawn is not None:
            found |= {"world": "drawn", **asdict(self.drawn)}
        return found if self.logging is None else found | asdict(self.logging)

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.ranking.protocol import world
        from benchmarks.ranking.rows import measure

        forget()
        crowd = self.crowd or self.population
        found = world(crowd, seed, data, self.size, self.logging, self.drawn)
        return measure(self.learner or self.row, found, replace(self.config, seed=seed))


def trials(
    crowds: Iterable[str],
    rows: Iterable[str],
    size: Size,
    config: TrainingConfig | None = None,
) -> tuple[Trial, ...]:
    """Trials of all rows and of two bounds on every population."""
    return tuple(
        Trial(row, name, size, config or TrainingConfig())
        for name in crowds
        for row in ("logging", *rows, "ceiling")
    )


@dataclass(frozen=True)
class Tuning:
    """One learner with one setting of its training, evaluated by validation clicks."""

    learner: str
    population: str
    size: Size
    setting: float
    config: TrainingConfig

    @property
    def row(self) -> str:
        return f"{self.learner}@{self.setting}"

    def settings(self) -> dict[str, Any]:
        return {**asdict(self.size), **identity(self.config), "revision": 1}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.ranking.protocol import world
        from benchmarks.ranking.rows import fit

        forget()
        found = world(self.population, seed, data, self.size)
        fitted = fit(self.learner, found, replace(self.config, seed=seed))
        return {"validation": fitted.validation}


def tuning(
    name: str,
    title: str,
    crowds: Iterable[str],
    rows: Iterable[str],
    size: Size,
    settings: Mapping[float, TrainingConfig],
) -> Table:
    """Table of learners with several training settings, on the tuning worlds."""
    return Table(
        name=name,
        title=f"Validation likelihood by {title}",
        experiments=tuple(
            Tuning(row, crowd, size, setting, config)
            for crowd in crowds
            for row in rows
            for setting, config in settings.items()
        ),
        metrics=("validation",),
        paired=(),
        clicks="",
        first_seed=TUNING_SEED,
        seeds=1,
    )
