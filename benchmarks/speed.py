"""How fast: our rate, a peer's rate in the same process, and the share of the floor.

Each case is timed in alternating rounds, ours then the peer's, so that a slow spell of
the machine falls on both; rates are of the median round. `floor_fraction` is the rate
over the most that the machine could do: the case's least arithmetic over the rate of a
large matrix product, or its least memory traffic over the rate of a large copy, both
measured in the same process.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

ROUNDS = 5


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def alternating(
    ours: Callable[[], Any], peer: Callable[[], Any]
) -> tuple[float, float]:
    """Median seconds of each after one warm-up round."""
    ours(), peer()
    rounds = [(seconds(ours), seconds(peer)) for _ in range(ROUNDS)]
    own, other = np.median(rounds, axis=0)
    return float(own), float(other)


def compared(work: float, own: float, other: float, most: float) -> dict[str, float]:
    """The metrics of a case that does `work` units in each timed call.

    Args:
        work: Units done, such as sessions.
        own, other: Seconds of ours and of the peer's.
        most: Units a second that the machine could do at best.
    """
    rate, peer_rate = work / own, work / other
    return {
        "rate": rate,
        "peer_rate": peer_rate,
        "ratio": rate / peer_rate,
        "floor_fraction": rate / most,
    }


def copy_rate() -> float:
    """Bytes a second, read and written, of a copy far larger than the caches."""
    source = np.ones(1 << 26, "float32")
    target = np.empty_like(source)
    best = min(seconds(lambda: np.copyto(target, source)) for _ in range(5))
    return 2 * source.nbytes / best


# Training: a click model through `fit`, against a loop written for this one model.

FEATURES, HIDDEN, LIST_SIZE, BATCH, STEPS = 136, (256, 128, 64), 10, 512, 100


def matrix_rate() -> float:
    """Floating-point operations a second of a large float32 product in TensorFlow."""
    import tensorflow as tf

    size = 2048
    a = tf.random.normal((size, size))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    product()
    best = min(seconds(lambda: float(product())) for _ in range(5))
    return 2 * size**3 / best


def operations_per_list() -> int:
    """Multiplications and additions of one list: forward, and twice that backward.

    The gradient with respect to the features themselves is not needed.
    """
    sizes = (FEATURES, *HIDDEN, 1)
    layers = [2 * a * b for a, b in pairwise(sizes)]
    return LIST_SIZE * (3 * sum(layers) - layers[0])


def train(seed: int) -> dict[str, float]:
    """Lists a second of `Additive` through `fit`, against `hand_written`."""
    import keras

    from debias.data import ClickLog, RankingData
    from debias.layers import BiasTower, Tower
    from debias.models import Additive
    from debias.pipeline import batches

    rng = np.random.default_rng(seed)
    items, sessions = 50_000, BATCH * STEPS
    features = rng.normal(size=(items, FEATURES)).astype("float32")
    item = rng.integers(0, items, (sessions, LIST_SIZE), np.int32)
    click = rng.random(item.shape) < 0.2
    data = RankingData(features, None, np.array([0, items]))
    log = ClickLog(query=np.zeros(sessions, np.int32), item=item, click=click)

    model = Additive(Tower(HIDDEN), BiasTower({"position": LIST_SIZE}))
    model.compile(keras.optimizers.Adam(), jit_compile=False, steps_per_execution=50)
    feed = batches(log, data, BATCH, seed=seed)
    epoch = hand_written(features, item, click, seed)
    own, other = alternating(lambda: model.fit(feed, verbose=0), epoch)
    return compared(sessions, own, other, matrix_rate() / operations_per_list())


def hand_written(
    features: np.ndarray, item: np.ndarray, click: np.ndarray, seed: int
) -> Callable[[], None]:
    """One epoch of the same model in bare TensorFlow: variables, tape, Adam by hand."""
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    sizes = (FEATURES, *HIDDEN, 1)
    weights = []
    for a, b in pairwise(sizes):
        limit = (6 / (a + b)) ** 0.5
        weights.append(tf.Variable(rng.uniform(-limit, limit, (a, b)).astype("f")))
        weights.append(tf.Variable(tf.zeros(b)))
    weights.append(tf.Variable(tf.zeros(LIST_SIZE)))
    first = [tf.Variable(tf.zeros_like(w)) for w in weights]
    second = [tf.Variable(tf.zeros_like(w)) for w in weights]
    count = tf.Variable(0.0)
    table, shown = tf.constant(features), tf.constant(item)
    clicked = tf.constant(click, tf.float32)

    def step(rows: tf.Tensor) -> None:
        x, y = tf.gather(table, tf.gather(shown, rows)), tf.gather(clicked, rows)
        with tf.GradientTape() as tape:
            h = tf.reshape(x, (-1, FEATURES))
            for layer in range(len(HIDDEN)):
                h = tf.nn.relu(h @ weights[2 * layer] + weights[2 * layer + 1])
            h = h @ weights[-3] + weights[-2]
            logits = tf.reshape(h, (-1, LIST_SIZE)) + weights[-1]
            losses = tf.nn.sigmoid_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(tf.reduce_sum(losses, axis=1))
        gradients = tape.gradient(loss, weights)
        count.assign_add(1.0)
        rate = 1e-3 * tf.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        for w, m, v, g in zip(weights, first, second, gradients, strict=True):
            m.assign_add(0.1 * (g - m))
            v.assign_add(0.001 * (g * g - v))
            w.assign_sub(rate * m / (tf.sqrt(v) + 1e-7))

    @tf.function
    def epoch() -> None:
        order = tf.random.shuffle(tf.range(len(item)))
        for start in tf.range(0, len(item), BATCH):
            step(order[start : start + BATCH])

    return lambda: epoch()


# Simulation: clicks of given lists, against the shortest NumPy that draws the same.


def simulate(population: str, seed: int) -> dict[str, float]:
    """Sessions a second on one core, against plain float32 NumPy.

    Both return clicks and kinds of users; `visit` is not asked for more of the truth.
    """
    from simulators.populations import named, visit

    rng = np.random.default_rng(seed)
    sessions = 400_000
    attraction = rng.random((sessions, LIST_SIZE), np.float32)
    crowd = named(population)
    generator = np.random.Generator(np.random.SFC64(seed))
    own, other = alternating(
        lambda: visit(crowd, attraction, generator, truth=False),
        lambda: PLAIN[population](attraction, generator),
    )
    # At the least, attraction is read and a click written.
    least = LIST_SIZE * (4 + 1)
    return compared(sessions, own, other, copy_rate() / least)


def plain_position_based(
    attraction: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    from simulators.behaviours import EYE_TRACKING

    theta = np.array(EYE_TRACKING, np.float32)
    click = rng.random(attraction.shape, np.float32) < attraction * theta
    return click, np.zeros(len(attraction), np.int16)


def plain_mixed(
    attraction: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    from simulators.behaviours import EYE_TRACKING

    theta = np.array(EYE_TRACKING, np.float32)
    kind = rng.integers(0, 3, len(attraction), np.int16)
    examination = np.where((kind == 2)[:, None], np.float32(1), theta)
    wanted = np.where((kind == 1)[:, None], np.float32(1), attraction)
    click = rng.random(attraction.shape, np.float32) < examination * wanted
    return click, kind


PLAIN = {"pbm": plain_position_based, "mixed": plain_mixed}


@dataclass(frozen=True)
class Speed:
    """One case of the table `speed`; `population` says which variant of it."""

    row: str
    population: str
    peer: str

    def settings(self) -> dict[str, Any]:
        return {"peer": self.peer, "rounds": ROUNDS}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        if self.row == "train":
            return train(seed)
        return simulate(self.population, seed)


CASES = (
    Speed("train", "additive", "hand-written tf.function loop"),
    Speed("simulate", "pbm", "plain NumPy float32"),
    Speed("simulate", "mixed", "plain NumPy float32"),
)
