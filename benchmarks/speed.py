"""How fast: our rate, a peer's rate in the same process, and the share of the floor.

Each case is timed in alternating rounds, ours then the peer's, so that a slow spell of
the machine falls on both; rates are of the median round. `floor_fraction` is the rate
over the most that the machine could do: the case's least arithmetic over the rate of a
large matrix product, or its least memory traffic over the rate of a large copy, both
measured in the same process.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
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

CLAX = "DEBIAS_CLAX_PYTHON"
"""Names the Python of an environment that has CLAX, where there is one:

python3 -m venv clax && clax/bin/pip install clax-models jax==0.7.2
DEBIAS_CLAX_PYTHON=clax/bin/python python -m benchmarks speed --only simulate
"""
SESSIONS = 400_000


def simulate(population: str, seed: int) -> dict[str, float]:
    """Sessions a second on one core, clicks and kinds of users, against plain NumPy.

    `write_rate` is that of whole simulated sessions on their way to Parquet, lists,
    propensities, truth and all, on every core. CLAX, where it is installed, may use
    every core too.
    """
    visits, plain = visiting(population, seed, truth=False)
    own, other = alternating(visits, plain)
    found = compared(SESSIONS, own, other, copy_rate() / (LIST_SIZE * CELL[False]))
    if python := os.environ.get(CLAX):
        with clax(python, population, seed) as peer:
            own, other = alternating(visits, peer)
        found |= {"clax_rate": SESSIONS / other, "clax_ratio": other / own}
    return found | {"write_rate": write_rate(population, seed)}


def simulate_truth(population: str, seed: int) -> dict[str, float]:
    """The same with the truth kept: examination and attraction of every cell."""
    own, other = alternating(*visiting(population, seed, truth=True))
    return compared(SESSIONS, own, other, copy_rate() / (LIST_SIZE * CELL[True]))


def visiting(
    population: str, seed: int, truth: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A round of our simulator, and of plain NumPy, over the same lists."""
    from simulators.populations import named, visit

    attraction = np.random.default_rng(seed).random((SESSIONS, LIST_SIZE), np.float32)
    crowd, plain = named(population), PLAIN[population]
    generator = np.random.Generator(np.random.SFC64(seed))
    return (
        lambda: visit(crowd, attraction, generator, truth=truth),
        lambda: plain(attraction, generator),
    )


@contextmanager
def clax(python: str, population: str, seed: int) -> Iterator[Callable[[], object]]:
    """A round of CLAX's sampler over the attractions that `simulate` draws.

    Raises:
        RuntimeError: It does not run, or its clicks are not those of the population.
    """
    from simulators.behaviours import EYE_TRACKING
    from simulators.oracle import click_probability
    from simulators.populations import named

    script = Path(__file__).parent / "peers" / "clax_simulate.py"
    process = subprocess.Popen(
        [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(line: str) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"CLAX did not run: try {python} {script}")
        return json.loads(answer)

    try:
        setup = {"population": population, "sessions": SESSIONS, "seed": seed}
        rates = ask(json.dumps({**setup, "theta": EYE_TRACKING}))["rates"]
        half = np.full((1, LIST_SIZE), 0.5)  # clicks are linear in attraction here
        expected = click_probability(named(population), half)[0]
        error = np.sqrt(0.25 / SESSIONS)
        if (np.abs(rates - expected) > 5 * error).any():
            raise RuntimeError(f"CLAX clicks {rates}, expected {expected.tolist()}")
        yield lambda: ask("round")
    finally:
        process.communicate()  # its input ends, and so does it


def write_rate(population: str, seed: int) -> float:
    """Sessions a second that are simulated and written, start and finish included."""
    from simulators import EpsilonGreedy, generate, prepare, weak_ranker
    from simulators.writer import write

    data = generate(500, seed)
    ready = prepare(data, EpsilonGreedy(weak_ranker(data)), population, seed)
    sessions = 1 << 21
    with TemporaryDirectory() as folder:
        return sessions / seconds(lambda: write(ready, folder, sessions))


def plain_position_based(
    attraction: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    from simulators.behaviours import EYE_TRACKING

    theta = np.array(EYE_TRACKING, np.float32)
    click = rng.random(attraction.shape, np.float32) < attraction * theta
    kind = np.zeros(len(attraction), np.int16)
    return kind, click, np.broadcast_to(theta, click.shape), attraction


def plain_mixed(
    attraction: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    from simulators.behaviours import EYE_TRACKING

    theta = np.array(EYE_TRACKING, np.float32)
    kind = rng.integers(0, 3, len(attraction), np.int16)
    examination = np.where((kind == 2)[:, None], np.float32(1), theta)
    wanted = np.where((kind == 1)[:, None], np.float32(1), attraction)
    click = rng.random(attraction.shape, np.float32) < examination * wanted
    return kind, click, examination, wanted


PLAIN = {"pbm": plain_position_based, "mixed": plain_mixed}
# Bytes of a cell that must be moved, without and with truth: attraction is read and a
# click written, and examination and attraction of the kind of user as well.
CELL = {False: 4 + 1, True: 4 + 1 + 4 + 4}


# EM: one pass over a log that is already counted, as the fit repeats it.


def em(model: str, population: str, seed: int) -> dict[str, float]:
    """Sessions a second of one pass; of the position-based model beside a plain one."""
    import simulators
    from debias.propensity.click_models.timing import prepared_pass

    sessions, data = 200_000, simulators.generate(queries=1000, seed=seed)
    shown = simulators.PlackettLuce(simulators.weak_ranker(data), temperature=0.5)
    log = simulators.simulate(data, shown, population, sessions=sessions, seed=seed)
    ours = prepared_pass(log, model)
    # At the least, the number of a pair and a click are read.
    most = copy_rate() / (LIST_SIZE * (4 + 1))
    if model == "pbm":
        plain = plain_position_based_pass(log.item, log.click)
        return compared(sessions, *alternating(ours, plain), most)
    ours()
    rate = sessions / float(np.median([seconds(ours) for _ in range(ROUNDS)]))
    return {"rate": rate, "floor_fraction": rate / most}


def plain_position_based_pass(
    item: np.ndarray, click: np.ndarray
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """The textbook: all impressions of all sessions, in plain NumPy, prior (1, 2)."""
    clicked, flat = click.astype(float), item.ravel()
    shown = np.bincount(flat)
    gamma, theta = np.full(len(shown), 0.5), np.full(item.shape[1], 0.5)

    def step() -> tuple[np.ndarray, np.ndarray]:
        g = gamma[item]
        rest = (1 - clicked) / (1 - g * theta)
        liked = np.bincount(flat, (clicked + rest * g * (1 - theta)).ravel())
        seen = (clicked + rest * theta * (1 - g)).sum(axis=0)
        return (liked + 1) / (shown + 2), (seen + 1) / (len(item) + 2)

    return step


# Evaluation: NDCG@10 of lists of ten, against plain NumPy and whoever is installed.

LISTS = 100_000


def evaluate(seed: int) -> dict[str, float]:
    """Lists a second of `metrics.ndcg`; each peer must find the same mean.

    scikit-learn always takes part, TensorFlow Ranking, rax and ranx where they are
    installed. No scores are tied here; ties go by half in ours.

    Raises:
        RuntimeError: A peer's mean is not ours.
    """
    from debias.metrics import ndcg

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (LISTS, LIST_SIZE)).astype("float32")
    labels[:, 0] = 1 + labels[:, 0] % 4  # a list without relevant items has no NDCG
    scores = rng.permuted(np.arange(LISTS * LIST_SIZE, dtype="float32"))
    scores = scores.reshape(labels.shape)

    def ours() -> float:
        return float(ndcg(labels, scores, LIST_SIZE).mean())

    def plain() -> float:
        order = np.argsort(-scores, axis=1)
        discount = 1 / np.log2(np.arange(2, LIST_SIZE + 2))
        gain = 2 ** np.take_along_axis(labels, order, axis=1) - 1
        best = 2 ** -np.sort(-labels, axis=1) - 1
        return float((gain @ discount / (best @ discount)).mean())

    own, other = alternating(ours, plain)
    # Scores and labels are read at the least.
    found = compared(LISTS, own, other, copy_rate() / (LIST_SIZE * (4 + 4)))
    for name, peer in ndcg_peers(labels, scores):
        if abs(peer() - ours()) > 1e-5:
            raise RuntimeError(f"{name} finds NDCG@10 {peer()}, ours is {ours()}")
        own, other = alternating(ours, peer)
        found[f"{name}_ratio"] = other / own
    return found


def ndcg_peers(
    labels: np.ndarray, scores: np.ndarray
) -> Iterator[tuple[str, Callable[[], float]]]:
    """Name and a function that returns the mean NDCG@10, of those there are."""
    from sklearn.metrics import ndcg_score

    gain = 2**labels - 1
    yield (
        "sklearn",
        lambda: float(ndcg_score(gain, scores, k=LIST_SIZE, ignore_ties=True)),
    )
    if find_spec("tensorflow_ranking"):
        import tensorflow as tf

        from debias import tfr

        metric = tfr.load().keras.metrics.NDCGMetric(topn=LIST_SIZE)

        @tf.function
        def mean(y: Any, s: Any) -> Any:
            metric.reset_state()
            metric.update_state(y, s)
            return metric.result()

        given = tf.constant(labels), tf.constant(scores)
        yield "tfr", lambda: float(mean(*given))
    if find_spec("rax"):
        import jax
        import rax

        each = jax.jit(lambda s, y: rax.ndcg_metric(s, y, topn=LIST_SIZE))
        arrays = jax.numpy.array(scores), jax.numpy.array(labels)
        yield "rax", lambda: float(each(*arrays))
    if find_spec("ranx"):
        import ranx

        grades = labels.astype(int)
        names = [f"{i}" for i in range(LIST_SIZE)]
        truth = {
            f"{q}": dict(zip(names, row, strict=True))
            for q, row in enumerate(grades.tolist())
        }
        run = {
            f"{q}": dict(zip(names, row, strict=True))
            for q, row in enumerate(scores.tolist())
        }
        qrels, ranked = ranx.Qrels(truth), ranx.Run(run)
        yield (
            "ranx",
            lambda: float(ranx.evaluate(qrels, ranked, f"ndcg_burges@{LIST_SIZE}")),
        )


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
        if self.row == "evaluate":
            return evaluate(seed)
        if self.row.startswith("em_"):
            return em(self.row.removeprefix("em_"), self.population, seed)
        if self.row == "simulate_truth":
            return simulate_truth(self.population, seed)
        return simulate(self.population, seed)


CASES = (
    Speed("train", "additive", "hand-written tf.function loop"),
    Speed("simulate", "pbm", "plain NumPy float32"),
    Speed("simulate", "mixed", "plain NumPy float32"),
    Speed("simulate_truth", "mixed", "plain NumPy float32"),
    Speed("evaluate", "ndcg@10", "plain NumPy"),
    Speed("em_pbm", "pbm", "plain NumPy float64"),
    Speed("em_ubm", "pbm", "none"),
    Speed("em_dbn", "pbm", "none"),
    Speed("em_ccm", "pbm", "none"),
)
