"""The gain from a badge column in the bias tower, and from a categorical feature.

Each seed draws two new worlds, one for badges and one for categories. Attraction is a
function of the features, so that a relevance tower can learn it exactly. All rows train
the model "product" with the defaults of `debias.fit`. Rankings are evaluated on items
that no session has shown.

| row | training data |
|---|---|
| `no_badge` | clicks of users who ignore badges, an upper bound |
| `with_column` | badges, and clicks of users who examine badged items twice as often |
| `without_column` | the clicks of `with_column`, but no badges |
| `category` | a category as integer codes, which the default model embeds |
| `one_hot` | the category as one column per value, encoded by hand |
| `dropped` | only the numerical features |
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

ITEMS, BRANDS, NUMBERS = 20, 30, 6  # items per query; brands; numeric features
POSITIONS = 10
WORN = (0.05, 0.95)  # probability of a badge at merit 0 and 1
MISTAKEN = 0.8  # share of merit that is unrelated to relevance


class Items(NamedTuple):
    """Queries with ITEMS items each."""

    numbers: np.ndarray  # (items, NUMBERS)
    brand: np.ndarray  # (items,) codes from 2
    attraction: np.ndarray  # (items,)
    merit: np.ndarray  # (items,) determines the badges
    grade: np.ndarray  # (items,) 0 to 4


@dataclass(frozen=True)
class Columns:
    """One row: a product model, and the columns that it reads."""

    row: str
    population: str
    sessions: int = 60_000
    queries: int = 400
    epochs: int | None = None

    def settings(self) -> Mapping[str, Any]:
        shared = {"items": ITEMS, "brands": BRANDS, "mistaken": MISTAKEN, "worn": WORN}
        return {**asdict(self), **shared}

    def measure(self, seed: int, data: str | None) -> Mapping[str, float]:
        from debias import metrics
        from debias.training import TrainingConfig, fit, score_items

        train, test = _items(self.population, self.queries, seed)
        log = self._log(train, seed)
        config = TrainingConfig(seed=seed, epochs=self.epochs)
        fitted = fit("product", log, self._data(train), config=config)
        judged = self._data(test).arranged(
            fitted.ranker.feature_names, fitted.ranker.kinds
        )
        score = score_items(fitted.ranker, judged.features)
        ndcg = metrics.ndcg(judged.labels, score, (5,), offsets=judged.offsets)
        found = {"ndcg@5": metrics.estimate(ndcg[:, 0]).mean}
        return found | (_errors(fitted.model) if self.row == "with_column" else {})

    def _log(self, items: Items, seed: int) -> Any:
        import simulators

        data = self._data(items)
        policy = simulators.PlackettLuce(lambda _: items.merit, 1.0)
        log = simulators.simulate(
            data, policy, "pbm", self.sessions, seed, POSITIONS, items.attraction
        )
        if self.population != "badge":
            return log.select()
        boost = 1.0 if self.row == "no_badge" else 2.0
        merit = items.merit.astype(np.float32)
        log = simulators.with_badge(log, seed, boost, merit, WORN)
        return log.select("badge") if self.row == "with_column" else log.select()

    def _data(self, items: Items) -> Any:
        """The items with the features of this row."""
        from debias.data import RankingData
        from debias.data.kinds import Feature

        numbers = tuple(Feature(f"number_{k}") for k in range(NUMBERS))
        kinds, features = None, items.numbers
        if self.row == "category":
            values = tuple(f"brand {k}" for k in range(BRANDS))
            kinds = (Feature("brand", "category", values), *numbers)
            features = np.concatenate([items.brand[:, None], items.numbers], axis=1)
        elif self.row == "one_hot":
            hot = items.brand[:, None] == np.arange(2, 2 + BRANDS)
            features = np.concatenate([hot, items.numbers], axis=1)
        offsets = np.arange(0, len(features) + 1, ITEMS)
        return RankingData(
            features.astype(np.float32), items.grade, offsets, kinds=kinds
        )


def _items(population: str, queries: int, seed: int) -> tuple[Items, Items]:
    """Training items and test items of one world."""
    rng = np.random.default_rng([seed, 81])
    weight = rng.normal(size=NUMBERS) / np.sqrt(NUMBERS)
    mistake = rng.normal(size=NUMBERS) / np.sqrt(NUMBERS)
    effect = rng.normal(0, 1.5, BRANDS) * (population == "category")

    def drawn(count: int) -> Items:
        numbers = rng.normal(size=(count * ITEMS, NUMBERS))
        brand = rng.integers(0, BRANDS, len(numbers))
        z = numbers @ weight + effect[brand]
        wrong = MISTAKEN * (numbers @ mistake) + (1 - MISTAKEN) * z
        grade = np.digitize(z, np.quantile(z, [0.4, 0.65, 0.85, 0.95]))
        attraction = expit(-1 + 1.5 * z).astype(np.float32)
        return Items(numbers, brand + 2, attraction, expit(1.5 * wrong), grade)

    return drawn(queries), drawn(queries // 2)


def _errors(model: Any) -> dict[str, float]:
    """The error of the bias tower, in nats, over positions and the badge."""
    import simulators

    place = np.arange(1, POSITIONS + 1)[None]
    bare, worn = (
        -np.log1p(np.exp(-np.asarray(model.bias(_places(place, code)))[0, :, 0]))
        for code in (1, 2)
    )
    theta = np.log(simulators.eye_tracking())
    position = bare - bare[0] - (theta - theta[0])
    badge = worn - bare - np.log(2)
    return {
        "position_error": float(np.abs(position).mean()),
        "badge_error": float(abs(badge.mean())),
    }


def _places(place: np.ndarray, code: int) -> dict[str, np.ndarray]:
    return {"position": place, "badge": np.full(place.shape, code)}


def rows(population: str, *names: str, **sizes: Any) -> tuple[Columns, ...]:
    """The rows of a table, in order."""
    return tuple(Columns(name, population, **sizes) for name in names)
