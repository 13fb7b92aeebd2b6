"""Click models whose relevance is a sum of boosted trees, by LightGBM or XGBoost.

P(click on item i at place k) is theta_k sigmoid(f(x_i)), as in the product model. Here
theta_k is the examination of place k, and f is a sum of trees. Each round adds a tree
that fits the gradient of the click likelihood. Clicks are counted by item and place.
After each round, an EM step updates theta. The place with the highest examination has
theta 1, so f is the click logit at this place.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.special import expit

from debias.data import ClickLog
from debias.data.files import atomic_write
from debias.data.kinds import Features, as_records, of_records
from debias.data.records import read_record
from debias.data.tables import Streamed
from debias.engine.extras import installed
from debias.engine.scoring import encoded

Library = Literal["lightgbm", "xgboost"]
Objective = Literal["product", "listwise", "judgments"]
SIZES = (20, 100)  # items in a leaf; real features want few, generated ones many
TINY = 1e-9
LOWEST = 1e-4  # lower bound of examination in EM
KEYS = ("library", "booster", "base", "theta", "list_size", "feature_names", "kinds")


class Counts(NamedTuple):
    """Impressions and clicks of M pairs of an item and a place.

    Attributes:
        row: (M,) row of the item in the feature matrix.
        place: (M,) zero-based number of the place, int.
        shown, clicked: (M,) numbers of impressions and of clicks, float.
    """

    row: np.ndarray
    place: np.ndarray
    shown: np.ndarray
    clicked: np.ndarray


@dataclass(frozen=True)
class TreesConfig:
    """Settings of boosted trees.

    Attributes:
        library: "lightgbm" or "xgboost".
        rounds: Largest number of trees.
        rate: Learning rate, which multiplies the values of each tree.
        leaves: Largest number of leaves of a tree.
        items: Smallest number of items in a leaf, for LightGBM. The method `least`
            limits this number to a twentieth of the items. None means that all numbers
            in `SIZES` are tried, and that held-out clicks choose one.
        patience: Training stops after this many rounds without a better likelihood of
            held-out clicks.
        seed: Random seed of the library. The trees use all rows and columns.
        threads: Number of threads of the library. With several threads, results differ
            by rounding errors.
    """

    library: Library = "lightgbm"
    rounds: int = 600
    rate: float = 0.05
    leaves: int = 15
    items: int | None = None
    patience: int = 40
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.library not in get_args(Library):
            raise ValueError(
                f"library must be lightgbm or xgboost, got {self.library!r}"
            )
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must be in (0, 1], got {self.rate}")
        for name in ("rounds", "items", "patience", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.leaves < 2:
            raise ValueError(f"leaves must be at least 2, got {self.leaves}")

    def least(self, rows: int) -> int:
        """Smallest number of items in a leaf, at most a twentieth of the rows."""
        return min(self.items or SIZES[0], max(1, rows // 20))

    def tried(self, rows: int) -> "list[TreesConfig]":
        """The settings that are tried on a number of rows: one per size of leaves."""
        if self.items is not None or self.library != "lightgbm":
            return [self]
        each = [replace(self, items=size) for size in SIZES]
        return list({one.least(rows): one for one in each}.values())


def likelihood(logit: np.ndarray, theta: np.ndarray, counts: Counts) -> float:
    """Log-likelihood of c clicks in n impressions, sum c log p + (n - c) log(1 - p).

    Args:
        logit: (R,) logit f of each row.
        theta: (K,) examination probability of each place.
        counts: Impressions and clicks by row and place.

    >>> one = Counts(np.array([0]), np.array([0]), np.array([4.0]), np.array([1.0]))
    >>> round(likelihood(np.zeros(1), np.array([0.5]), one), 6)  # log 1/4 + 3 log 3/4
    -2.249341
    """
    p = _clicks(logit, theta, counts)
    rest = counts.shown - counts.clicked
    return float((counts.clicked * np.log(p) + rest * np.log1p(-p)).sum())


def slopes(
    logit: np.ndarray, theta: np.ndarray, counts: Counts
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and expected curvature of minus `likelihood` in f, `(R,)` each.

    Let s = sigmoid(f) and p = theta s, with c clicks in n impressions at a place. The
    derivative of the log-likelihood is sum (c - n p) (1 - s) / (1 - p). The Fisher
    information is sum n p (1 - s)^2 / (1 - p). Each sum is over the places of a row.
    """
    rows = len(logit)
    p = _clicks(logit, theta, counts)
    rest = expit(-logit)[counts.row]
    pull = (counts.clicked - counts.shown * p) * rest / (1 - p)
    bend = counts.shown * p * np.square(rest) / (1 - p)
    gradient = -np.bincount(counts.row, pull, rows)
    return gradient, np.maximum(np.bincount(counts.row, bend, rows), 1e-6)


def examined(logit: np.ndarray, theta: np.ndarray, counts: Counts) -> np.ndarray:
    """Examination theta `(K,)` after an EM step.

    With s = sigmoid(f), an impression without a click was examined with probability
    theta (1 - s) / (1 - theta s). The new theta of a place is the mean examination
    probability of its impressions. The first place with the largest theta gets theta 1,
    which fixes the scale.
    """
    s, t = expit(logit)[counts.row], theta[counts.place]
    unseen = (counts.shown - counts.clicked) * t * (1 - s) / np.maximum(1 - t * s, TINY)
    total = np.bincount(counts.place, counts.shown, len(theta))
    found = np.bincount(counts.place, counts.clicked + unseen, len(theta))
    found = np.where(total > 0, found / np.maximum(total, TINY), theta)
    found[np.argmax(theta)] = 1.0
    return np.clip(found, LOWEST, 1.0)


def _clicks(logit: np.ndarray, theta: np.ndarray, counts: Counts) -> np.ndarray:
    p = theta[counts.place] * expit(logit)[counts.row]
    return np.clip(p, TINY, 1 - TINY)


@dataclass(frozen=True, eq=False)
class Trees:
    """A ranker of boosted trees and its click model.

    Attributes:
        library: "lightgbm" or "xgboost".
        booster: `lightgbm.Booster` or `xgboost.Booster`.
        base: Base score, a constant that is added to the values of the trees.
        theta: (K,) examination of each place, for all ranks of the first device, then
            for all ranks of the next device. None if the ranker does not predict
            clicks.
        list_size: Number of ranks in a list.
        feature_names: Names of the features in order; None if features have no names.
        kinds: Kinds of the features. None means that all features are numbers. The
            trees read category codes as numbers.
    """

    library: Library
    booster: Any = field(repr=False)
    base: float = 0.0
    theta: np.ndarray | None = None
    list_size: int = 0
    feature_names: tuple[str, ...] | None = None
    kinds: Features | None = field(default=None, repr=False)
    preprocess: None = None  # trees read raw features

    @property
    def predicts_clicks(self) -> bool:
        """Whether the ranker is part of a click model."""
        return self.theta is not None

    @property
    def examination(self) -> tuple[float, ...] | None:
        """Examination at each rank relative to rank 1, on the first device."""
        if self.theta is None:
            return None
        curve = self.theta[: self.list_size]
        return tuple((curve / curve[0]).tolist())

    def __call__(self, features: Any) -> np.ndarray:
        """Scores (...,) float32 of features (..., F) or of raw rows.

        A score is the click logit at a place with theta 1. Raw rows are read by the
        names of the features, as in `debias.Ranker`.

        Raises:
            ValueError: The number of features is wrong, or a feature is missing.
        """
        if isinstance(features, Mapping | Streamed):
            features = encoded(features, self.feature_names, self.kinds, "trees")
        given = np.asarray(features, np.float32)
        count = engine_of(self.library).features(self.booster)
        if given.shape[-1:] != (count,):
            raise ValueError(
                f"these trees read {count} features, got features of shape "
                f"{given.shape}"
            )
        rows = given.reshape(-1, given.shape[-1])
        if not len(rows):
            return np.zeros(given.shape[:-1], np.float32)
        found = self.base + engine_of(self.library).predict(self.booster, rows)
        return found.astype(np.float32).reshape(given.shape[:-1])

    def place_logits(self, log: ClickLog, features: np.ndarray) -> np.ndarray:
        """Click logits (S, L) of the cells of a log.

        Args:
            log: Log whose lists are not longer than `list_size`.
            features: (items, F).

        Raises:
            ValueError: The trees do not predict clicks, or the log has a rank or a
                device that training did not have.
        """
        if self.theta is None:
            raise ValueError("this ranker does not predict clicks")
        place = places(log, self.list_size)
        if place.max() >= len(self.theta):
            raise ValueError(
                f"the trees learned the bias of {len(self.theta) // self.list_size} "
                "devices, but the log has more"
            )
        attraction = expit(self(features).astype(float))
        p = self.theta[np.maximum(place, 0)] * attraction[log.item]
        p = np.clip(p, TINY, 1 - TINY)
        return np.log(p) - np.log1p(-p)

    def write(self, path: str | Path) -> None:
        """Writes one JSON file NAME.trees, which `debias.load` opens.

        Raises:
            ValueError: The name does not end with .trees.
        """
        path = Path(path)
        if path.suffix != ".trees":
            raise ValueError(f"{path}: the name must end with .trees")
        names = self.feature_names
        record = {
            "library": self.library,
            "booster": engine_of(self.library).text(self.booster),
            "base": self.base,
            "theta": None if self.theta is None else self.theta.tolist(),
            "list_size": self.list_size,
            "feature_names": None if names is None else list(names),
            "kinds": as_records(self.kinds),
        }
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(record) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Trees":
        """Reads a file that was written by `write`.

        Raises:
            ValueError: The file is missing or damaged.
            ModuleNotFoundError: The extra `trees` is not installed.
        """
        record = read_record(path, KEYS)
        if record["library"] not in get_args(Library):
            raise ValueError(
                f"{path}: is damaged: unknown library {record['library']!r}"
            )
        engine = engine_of(record["library"])
        try:
            booster = engine.read(record["booster"])
            names, theta = record["feature_names"], record["theta"]
            return cls(
                record["library"],
                booster,
                float(record["base"]),
                None if theta is None else np.array(theta, float),
                int(record["list_size"]),
                None if names is None else tuple(names),
                of_records(record["kinds"]),
            )
        except ModuleNotFoundError:
            raise
        except Exception as error:  # each library has its own error classes
            raise ValueError(f"{path}: is damaged: {error}") from error


def places(log: ClickLog, list_size: int) -> np.ndarray:
    """Zero-based place of each cell, (S, L) int64.

    The place is the zero-based rank plus `list_size` times the device. Padding cells
    have place -1.

    Raises:
        ValueError: The lists are longer than `list_size`.
    """
    if log.mask[:, list_size:].any():
        raise ValueError(
            f"the log has lists of {log.list_size} positions, but the trees "
            f"learned the bias of {list_size}: cut the lists, or train on lists of "
            "this length"
        )
    place = np.broadcast_to(np.arange(log.list_size), log.item.shape)
    if log.device is not None:
        place = place + list_size * log.device.astype(np.int64)[:, None]
    return np.where(log.mask, place, -1)


def boost(
    features: np.ndarray,
    counts: Counts,
    judges: Counts,
    theta: np.ndarray,
    config: TreesConfig,
    progress: Callable[[int], None] = lambda rounds: None,
) -> tuple[Any, float, np.ndarray, list[float]]:
    """Grows trees until the likelihood of held-out clicks stops increasing.

    Args:
        features: (R, F) features of the items in `counts` or `judges`.
        counts: Training clicks.
        judges: Held-out clicks.
        theta: (K,) initial examination of each place, with a maximum of 1.
        config: Settings.
        progress: Function that is called with the number of rounds since its last call.

    Returns:
        The booster with the best number of trees, the base score, theta after these
        trees, and a history. The history has the mean log-likelihood per held-out
        impression after each round.
    """
    rate = counts.clicked.sum() / (counts.shown * theta[counts.place]).sum()
    base = float(np.log(rate) - np.log1p(-rate)) if rate < 1 else 4.0
    learned = np.flatnonzero(np.bincount(counts.row, counts.shown, len(features)))
    own = counts._replace(row=np.searchsorted(learned, counts.row))
    total = judges.shown.sum()
    booster, theta, history = grown(
        (features, learned, base),
        lambda logit, theta: slopes(logit, theta, own),
        lambda logit, theta: examined(logit, theta, own),
        lambda logit, theta: likelihood(logit, theta, judges) / total,
        theta,
        config,
        progress,
    )
    return booster, base, theta, history


def grown(
    rows: tuple[np.ndarray, np.ndarray, float],
    slopes_of: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    update: Callable[[np.ndarray, np.ndarray], np.ndarray],
    value: Callable[[np.ndarray, np.ndarray], float],
    state: np.ndarray,
    config: TreesConfig,
    progress: Callable[[int], None],
) -> tuple[Any, np.ndarray, list[float]]:
    """Grows trees and updates the parameters of the places after each tree.

    The result is the best of the settings in `config.tried`.

    Args:
        rows: Features (R, F) of all rows, indices of the training rows, and base score.
        slopes_of: Function from logits of the training rows and parameters to the
            gradient and the curvature of the loss.
        update: Function from logits of the training rows and parameters to better
            parameters.
        value: Function from logits of all rows and parameters to the value that stops
            training when it no longer increases.
        state: (K,) initial parameters of the places.
        config: Settings.
        progress: Function that is called after each round with 1.

    Returns:
        The booster with the best number of trees, the parameters at this number, and
        the values after each round.
    """
    features, learned, base = rows

    def once(settings: TreesConfig) -> tuple[Any, np.ndarray, list[float]]:
        growing = engine_of(settings.library).grow(
            features[learned], features, settings
        )
        now, best = state, (-np.inf, 0, state)
        history: list[float] = []
        some = np.full(len(learned), base)
        for number in range(settings.rounds):
            some, every = growing.send(slopes_of(some, now), base)
            now = update(some, now)
            history.append(value(every, now))
            progress(1)
            if history[-1] > best[0]:
                best = (history[-1], number + 1, now)
            elif number + 1 - best[1] >= settings.patience:
                break
        return growing.cut(best[1]), best[2], history

    found = [once(each) for each in config.tried(len(learned))]
    return max(found, key=lambda each: max(each[2]))


class Node(NamedTuple):
    """A node of a tree with a float32 threshold.

    Attributes:
        value: Value of a leaf; None for a split.
        feature: Number of the feature that a split reads.
        threshold: float32 threshold of a split. A row goes left if feature <=
            threshold.
        left, right: The children.
        missing_left: Whether a row goes left if the feature is NaN.
    """

    value: float | None
    feature: int = 0
    threshold: float = 0.0
    left: "Node | None" = None
    right: "Node | None" = None
    missing_left: bool = False


def below(threshold: float, inclusive: bool) -> float:
    """The largest float32 feature value that goes left at a threshold.

    `inclusive` means that the threshold itself goes left.

    >>> below(0.5, inclusive=True), below(0.5, inclusive=False) < 0.5
    (0.5, True)
    """
    largest = float(np.finfo(np.float32).max)  # splits on NaN have 1e300
    threshold = min(max(threshold, -largest), largest)
    found = np.float32(threshold)
    if float(found) > threshold or (not inclusive and float(found) == threshold):
        found = np.nextafter(found, np.float32(-np.inf))
    return float(found)


class _GrowingLightGBM:
    """A booster that grows by one tree per round, from gradients."""

    def __init__(self, rows: np.ndarray, every: np.ndarray, config: TreesConfig):
        lightgbm = installed("lightgbm", "trees")
        asked = {
            "objective": "none",
            "learning_rate": config.rate,
            "num_leaves": config.leaves,
            "min_data_in_leaf": config.least(len(rows)),
            "lambda_l2": 1.0,
            "seed": config.seed,
            "num_threads": config.threads,
            "feature_pre_filter": False,  # which may leave none, an error
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
        }
        self.rows = lightgbm.Dataset(rows, np.zeros(len(rows)), params=asked)
        other = self.rows.create_valid(every, np.zeros(len(every)), params=asked)
        self.booster = lightgbm.Booster(asked, self.rows)
        self.booster.add_valid(other, "every")
        self.count = len(every)

    def send(
        self, slope: tuple[np.ndarray, np.ndarray], base: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Adds a tree for a gradient and a curvature, and returns the new scores."""
        seen: dict[str, np.ndarray] = {}

        def keep(name: str) -> Callable[..., tuple[str, float, bool]]:
            def read(values: np.ndarray, rows: Any) -> tuple[str, float, bool]:
                seen[name] = np.array(values)
                return name, 0.0, True

            return read

        self.booster.update(fobj=lambda values, rows: slope)
        self.booster.eval_train(keep("some"))
        self.booster.eval_valid(keep("every"))
        return base + seen["some"], base + seen["every"]

    def cut(self, rounds: int) -> Any:
        """The booster of the first `rounds` rounds."""
        text = self.booster.model_to_string(num_iteration=rounds)
        return _LightGBM().read(text)


class _LightGBM:
    """Interface to LightGBM; `_XGBoost` has the same methods."""

    grow = _GrowingLightGBM

    def predict(self, booster: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(booster.predict(rows, raw_score=True, num_threads=1), float)

    def text(self, booster: Any) -> str:
        return str(booster.model_to_string())

    def read(self, text: str) -> Any:
        return installed("lightgbm", "trees").Booster(model_str=text)

    def features(self, booster: Any) -> int:
        return int(booster.num_feature())

    def nodes(self, booster: Any) -> list[Node]:
        found = booster.dump_model()["tree_info"]
        return [self._node(each["tree_structure"]) for each in found]

    def _node(self, tree: Mapping[str, Any]) -> Node:
        if "split_feature" not in tree:
            return Node(float(tree["leaf_value"]))
        if tree["decision_type"] != "<=":
            raise ValueError("trees that split categories cannot be exported")
        threshold = float(tree["threshold"])
        # If training has no missing values, LightGBM reads NaN as 0.
        default = bool(tree["default_left"])
        missing = threshold >= 0.0 if tree["missing_type"] == "None" else default
        return Node(
            None,
            int(tree["split_feature"]),
            below(threshold, inclusive=True),
            self._node(tree["left_child"]),
            self._node(tree["right_child"]),
            missing,
        )


class _GrowingXGBoost:
    """The same by XGBoost."""

    def __init__(self, rows: np.ndarray, every: np.ndarray, config: TreesConfig):
        xgboost = installed("xgboost", "trees")
        self.rows = xgboost.DMatrix(rows, np.zeros(len(rows)))
        self.every = xgboost.DMatrix(every)
        asked = {
            "tree_method": "hist",
            "grow_policy": "lossguide",
            "max_depth": 0,
            "max_leaves": config.leaves,
            "eta": config.rate,
            "lambda": 1.0,
            "min_child_weight": 1.0,
            "base_score": 0.0,
            "seed": config.seed,
            "nthread": config.threads,
        }
        self.booster = xgboost.Booster(asked, [self.rows, self.every])
        self.round = 0

    def send(
        self, slope: tuple[np.ndarray, np.ndarray], base: float
    ) -> tuple[np.ndarray, np.ndarray]:
        self.booster.boost(self.rows, self.round, grad=slope[0], hess=slope[1])
        self.round += 1
        some, every = (
            self.booster.predict(rows, output_margin=True)
            for rows in (self.rows, self.every)
        )
        return base + some.astype(float), base + every.astype(float)

    def cut(self, rounds: int) -> Any:
        return self.booster[:rounds]


class _XGBoost:
    """Interface to XGBoost."""

    grow = _GrowingXGBoost

    def predict(self, booster: Any, rows: np.ndarray) -> np.ndarray:
        found = booster.inplace_predict(rows, predict_type="margin")
        return np.asarray(found, float)

    def text(self, booster: Any) -> str:
        return bytes(booster.save_raw("json")).decode()

    def read(self, text: str) -> Any:
        booster = installed("xgboost", "trees").Booster()
        booster.load_model(bytearray(text.encode()))
        return booster

    def features(self, booster: Any) -> int:
        return int(booster.num_features())

    def nodes(self, booster: Any) -> list[Node]:
        return [
            self._node(json.loads(each))
            for each in booster.get_dump(dump_format="json")
        ]

    def _node(self, tree: Mapping[str, Any]) -> Node:
        if "leaf" in tree:
            return Node(float(tree["leaf"]))
        children = {each["nodeid"]: each for each in tree["children"]}
        return Node(
            None,
            int(str(tree["split"]).removeprefix("f")),
            below(float(np.float32(tree["split_condition"])), inclusive=False),
            self._node(children[tree["yes"]]),
            self._node(children[tree["no"]]),
            tree["missing"] == tree["yes"],
        )


def engine_of(library: str) -> _LightGBM | _XGBoost:
    return _LightGBM() if library == "lightgbm" else _XGBoost()
