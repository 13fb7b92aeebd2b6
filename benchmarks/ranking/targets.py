"""Rankers for orders, trained on clicks and orders.

Attraction and conversion are correlated. They are functions of the features, so towers
can learn them. Users are position-based, and a weak ranker shows the lists. All rows
use the defaults of `debias.fit`. The rows are evaluated on queries that no session has
shown, by the true value of each item. This value is attraction times conversion, the
expected orders of an examined impression.

| row | learns from | ranks by |
|---|---|---|
| `click_only` | clicks, by `product` | attraction |
| `order_only` | orders instead of clicks, by `product` | P(order given examination) |
| `multi_target` | clicks and orders, by `multi_target` | value |
| `multi_target_shared` | clicks and orders; outputs share all hidden layers | value |
| `multi_target_apart` | clicks and orders; outputs share no layers | value |
| `logging` | nothing | score of the ranker that showed the lists |
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

ITEMS, NUMBERS = 20, 50  # items per query; features
BENT = 0.5  # correlation of tastes with a product of two directions
POSITIONS = 10
RATE = 0.02  # orders per click, about, under full examination
TIE = 0.3  # correlation of the logits of attraction and of conversion
SPREAD = 1.2  # standard deviation of log conversion
KNOWS = 0.5  # correlation of the logging scores with attraction
ROWS = (
    *("click_only", "order_only", "multi_target", "multi_target_shared"),
    *("multi_target_apart", "logging"),
)


class Items(NamedTuple):
    """Queries with ITEMS items each."""

    features: np.ndarray  # (items, NUMBERS)
    attraction: np.ndarray  # (items,)
    conversion: np.ndarray  # (items,) P(order | click)
    logging: np.ndarray  # (items,) scores of the ranker that shows the lists

    @property
    def value(self) -> np.ndarray:
        """(items,) expected orders of an examined impression."""
        return self.attraction * self.conversion


@dataclass(frozen=True)
class Targets:
    """One row: a model and its targets."""

    row: str
    population: str = "pbm"
    sessions: int = 30_000
    queries: int = 400
    epochs: int | None = None

    def settings(self) -> Mapping[str, Any]:
        shared = {"items": ITEMS, "numbers": NUMBERS, "rate": RATE, "tie": TIE}
        others = {"bent": BENT, "spread": SPREAD, "knows": KNOWS}
        return {**asdict(self), **shared, **others}

    def measure(self, seed: int, data: str | None) -> Mapping[str, float]:
        train, test = world(self.queries, seed)
        if self.row == "logging":
            return judged(test, test.logging)
        from debias.training import TrainingConfig, fit, score_items

        log = self.log(train, seed)
        config = TrainingConfig(seed=seed, epochs=self.epochs)
        fitted = fit(self.model(seed, log), log, of_items(train), config=config)
        return judged(test, score_items(fitted.ranker, test.features))

    def log(self, items: Items, seed: int) -> Any:
        """The log with the columns that the row reads."""
        import simulators

        policy = simulators.PlackettLuce(lambda _: items.logging, 0.5)
        log = simulators.simulate(
            of_items(items),
            policy,
            self.population,
            self.sessions,
            seed,
            POSITIONS,
            items.attraction,
        )
        log = simulators.with_orders(log, seed, items.conversion)
        if self.row == "click_only":
            return log.select()
        if self.row == "order_only":
            orders = (log.targets or {})["order"] > 0
            return replace(log.select(), click=orders)
        return log.select("order")

    def model(self, seed: int, log: Any) -> Any:
        """The model of the row, or its name in `debias.presets`."""
        from debias.data.layout import layout_of
        from debias.layers import SharedBottom, Tower
        from debias.models import MultiTarget
        from debias.models.builders import HIDDEN, bias

        if self.row.endswith("only"):
            return "product"
        if self.row == "multi_target":
            return self.row
        tower = Tower(HIDDEN, 2, seed=seed)
        if self.row == "multi_target_apart":
            tower = SharedBottom((), HIDDEN, 2, seed=seed)
        layout = layout_of(log)
        return MultiTarget(tower, bias(layout, seed=seed), layout.targets)


def world(queries: int, seed: int) -> tuple[Items, Items]:
    """Training and test items of one world."""
    rng = np.random.default_rng([seed, 83])
    directions = rng.normal(size=(7, NUMBERS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def drawn(count: int) -> Items:
        features = rng.normal(size=(count * ITEMS, NUMBERS)).astype(np.float32)
        x, y, mistaken, *pairs = (features @ directions.T).T
        wanted = _mixed(pairs[0] * pairs[1], x, BENT)
        paid = _mixed(wanted, _mixed(pairs[2] * pairs[3], y, BENT), TIE)
        attraction = expit(-1 + 1.5 * wanted).astype(np.float32)
        conversion = np.exp(SPREAD * paid)
        conversion *= RATE / np.average(conversion, weights=attraction)
        return Items(
            features,
            attraction,
            np.minimum(conversion, 1.0),
            _mixed(wanted, mistaken, KNOWS),
        )

    return drawn(queries), drawn(queries // 2)


def _mixed(one: np.ndarray, other: np.ndarray, tie: float) -> np.ndarray:
    """A mixture of the two arrays that has correlation `tie` with the first."""
    found: np.ndarray = tie * one + np.sqrt(1 - tie**2) * other
    return found


def of_items(items: Items) -> Any:
    """Ranking data of the items without grades."""
    from debias.data import RankingData

    offsets = np.arange(0, len(items.features) + 1, ITEMS)
    return RankingData(items.features, None, offsets)


def judged(items: Items, score: np.ndarray) -> dict[str, float]:
    """NDCG with true item values as gains, and the expected number of orders.

    `orders` is the expected number of orders in 1,000 sessions that show the ten best
    items by the score.
    """
    from debias import metrics
    from simulators.behaviours import eye_tracking

    offsets = np.arange(0, len(score) + 1, ITEMS)
    labels = np.log2(1 + items.value)  # whose gain, 2^y - 1, is the value
    ndcg = metrics.ndcg(labels, score, (1, 5, 10), offsets=offsets)
    found = {
        f"ndcg@{k}": metrics.estimate(ndcg[:, place]).mean
        for place, k in enumerate((1, 5, 10))
    }
    order = np.argsort(-score.reshape(-1, ITEMS), axis=1, kind="stable")
    best = np.take_along_axis(items.value.reshape(-1, ITEMS), order, axis=1)
    theta = np.array(eye_tracking())
    found["orders"] = float(1000 * (best[:, :POSITIONS] @ theta).mean())
    return found


def rows(**sizes: Any) -> tuple[Targets, ...]:
    """The rows of the table, in order."""
    return tuple(Targets(name, **sizes) for name in ROWS)
