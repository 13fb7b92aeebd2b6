"""Speed compared with a peer in the same run and with a lower bound of the time.

In each case, this library and its peers take turns, so that a slow period of the
machine affects all of them. A rate is computed from the median round. `ratio` is the
rate divided by the rate of the main peer, which the settings of the row name. Peers
whose libraries conflict with this library run in another Python; see
`benchmarks.rates.peer_process`. `floor_fraction` is the rate divided by the largest
possible rate of the machine. The largest possible rate is computed from the minimum
arithmetic of the case and the speed of a large matrix product. In cases with little
arithmetic (simulation, EM, NDCG, reading, search, lookups), it is computed from the
minimum memory traffic and the speed of a large copy. These speeds are measured in the
same process.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.harness.machine import leave_with_parent
from benchmarks.rates.peer_process import peer

ROUNDS = 5
MANY_ROUNDS = 15  # more rounds, if a ratio near 1 must be distinguished from 1


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


Round = Callable[[], float]  # runs once and returns the seconds


def alternating(*rounds: Round, times: int | None = None) -> list[float]:
    """Median seconds of each function over several rounds, after a warm-up.

    The number of rounds is `times`, by default `ROUNDS`. The functions take turns in a
    random order, so that no function always runs after the same other function.
    """
    for each in rounds:
        each()
    spent = np.empty((times or ROUNDS, len(rounds)))
    order = np.random.default_rng(0)
    for row in spent:
        for place in order.permutation(len(rounds)):
            row[place] = rounds[place]()
    return np.median(spent, axis=0).tolist()


def timed(run: Callable[[], Any]) -> Round:
    return partial(seconds, run)


def beside(
    work: float,
    most: float,
    ours: Round,
    base: Round,
    others: Mapping[str, Round | None] = {},
    times: int | None = None,
) -> dict[str, float]:
    """The metrics of a case, with `NAME_ratio` for each available peer."""
    named = {name: each for name, each in others.items() if each is not None}
    own, other, *rest = alternating(ours, base, *named.values(), times=times)
    ratios = {f"{n}_ratio": r / own for n, r in zip(named, rest, strict=True)}
    return compared(work, own, other, most) | ratios


def compared(work: float, own: float, other: float, most: float) -> dict[str, float]:
    """The metrics of a case with `work` units per timed call.

    Args:
        work: Number of units, such as sessions.
        own, other: Seconds of this library and of the peer.
        most: Largest possible number of units per second on this machine.
    """
    rate, peer_rate = work / own, work / other
    return {
        "rate": rate,
        "peer_rate": peer_rate,
        "ratio": rate / peer_rate,
        "floor_fraction": rate / most,
    }


def alone(work: float, most: float, ours: Round) -> dict[str, float]:
    """The metrics of a case without a peer."""
    (own,) = alternating(ours)
    return {"rate": work / own, "floor_fraction": work / own / most}


def copy_rate() -> float:
    """Memory bandwidth: bytes per second of a copy that is larger than the caches."""
    source = np.ones(1 << 26, "float32")
    target = np.empty_like(source)
    best = min(seconds(lambda: np.copyto(target, source)) for _ in range(5))
    return 2 * source.nbytes / best


# Training: a click model through `fit`, compared with a loop written for this model.

FEATURES, HIDDEN, LIST_SIZE, BATCH, STEPS = 136, (256, 128, 64), 10, 512, 100


def matrix_rate() -> float:
    """Floating-point operations per second of a large float32 product in TensorFlow."""
    import tensorflow as tf

    size = 2048
    a = tf.random.normal((size, size))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    product()
    best = min(seconds(lambda: float(product())) for _ in range(5))
    return 2 * size**3 / best


def operations_per_list(
    features: int = FEATURES, hidden: Sequence[int] = HIDDEN, out: int = 1
) -> int:
    """Operations of the relevance tower per list, forward and backward.

    The backward pass has twice as many operations as the forward pass, except that it
    does not need the gradient with respect to the features.
    """
    sizes = (features, *hidden, out)
    layers = [2 * a * b for a, b in pairwise(sizes)]
    return LIST_SIZE * (3 * sum(layers) - layers[0])


def trained(
    model: Any,
    features: np.ndarray,
    item: np.ndarray,
    click: np.ndarray,
    seed: int,
    jit: bool = False,
    kinds: Any = None,
) -> Round:
    """Times an epoch of `fit` of a click model, with packed batches or with XLA."""
    from debias.data import ClickLog, RankingData
    from debias.engine.optimizers import RowWiseAdam
    from debias.models.batches import batches

    data = RankingData(features, None, np.array([0, len(features)]), kinds=kinds)
    log = ClickLog(np.zeros(len(item), np.int32), item, click)
    model.compile(RowWiseAdam(), jit_compile=jit, steps_per_execution=50)
    feed = batches(log, data, BATCH, seed=seed, packed=not jit)
    return timed(lambda: model.fit(feed, verbose=0))


def sessions_of(features: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of 50,000 items, shown items (S, L) and random clicks."""
    rng, items = np.random.default_rng(seed), 50_000
    table = rng.normal(size=(items, features)).astype("float32")
    item = rng.integers(0, items, (BATCH * STEPS, LIST_SIZE), np.int32)
    return table, item, rng.random(item.shape) < 0.2


def simulated_sessions(
    queries: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, shown items and clicks from the simulator, with repeated items."""
    import simulators

    data = simulators.generate(queries, seed)
    shown = simulators.PlackettLuce(simulators.weak_ranker(data), temperature=0.5)
    log = simulators.simulate(data, shown, "pbm", sessions=BATCH * STEPS, seed=seed)
    return data.features, log.item, log.click


def train(seed: int, rounds: int, queries: int | None = None) -> dict[str, float]:
    """Lists per second of `Additive` in `fit`, compared with hand-written loops.

    `peer_rate` is the rate of the tf.function loop. If JAX is installed, a loop in JAX
    is measured too. The lower bound of the time assumes that each distinct item of a
    batch is computed once.

    Args:
        queries: Number of queries of the simulated log. With None, lists are uniform
            draws from all items.
    """
    from benchmarks.rates.hand_written import Job, in_jax, in_tensorflow
    from debias.layers import BiasTower, Tower
    from debias.models import Additive

    if queries is None:
        drawn = sessions_of(FEATURES, seed)
    else:
        drawn = simulated_sessions(queries, seed)
    model = Additive(Tower(HIDDEN), BiasTower({"position": LIST_SIZE}))
    loops = [
        timed(loop(Job(*drawn, HIDDEN, BATCH, seed)))
        for loop in (in_tensorflow, in_jax)
        if loop is in_tensorflow or find_spec("jax")
    ]
    distinct = distinct_share(drawn[1])
    most = matrix_rate() / (distinct * operations_per_list())
    others = dict(zip(("jax",), loops[1:], strict=False))
    ours = trained(model, *drawn, seed)
    found = beside(BATCH * STEPS, most, ours, loops[0], others, rounds)
    return found | {"distinct": distinct}


def distinct_share(item: np.ndarray) -> float:
    """Number of distinct items of a batch, divided by the number of its cells.

    >>> distinct_share(np.tile([[4, 7]], (BATCH * 3, 1))) == 2 / (2 * BATCH)
    True
    """
    parts = item.reshape(-1, BATCH * item.shape[1])
    return float(np.mean([len(np.unique(part)) / part.size for part in parts]))


BRANDS = 1000


def train_kinds(kind: str, seed: int, rounds: int) -> dict[str, float]:
    """Lists per second of the default `product`, with and without layer `Features`.

    Args:
        kind: Kind of the first of the 136 features, "number" or "category". All other
            features are numbers. The category has a thousand values, which the layer
            `Features` embeds. The peer always reads 136 numbers.
    """
    from debias.data.kinds import Feature
    from debias.data.layout import Layout
    from debias.layers import BiasTower, Tower
    from debias.models import Product
    from debias.models.builders import HIDDEN as USUAL
    from debias.models.builders import product

    features, item, click = sessions_of(FEATURES, seed)
    values = tuple(map(str, range(BRANDS))) if kind == "category" else ()
    names = [f"feature {number}" for number in range(FEATURES)]
    kinds = (Feature(names[0], kind, values), *map(Feature, names[1:]))
    mixed = features.copy()
    if values:
        mixed[:, 0] = np.random.default_rng(seed).integers(
            kinds[0].size, size=len(mixed)
        )
    bare = Product(Tower(USUAL, seed=seed), BiasTower({"position": LIST_SIZE}))
    ours = product(Layout({"position": LIST_SIZE}, [], kinds), seed)
    most = matrix_rate() / (distinct_share(item) * operations_per_list(FEATURES, USUAL))
    return beside(
        BATCH * STEPS,
        most,
        trained(ours, mixed, item, click, seed, kinds=kinds),
        trained(bare, features, item, click, seed),
        times=rounds,
    )


SMALL_FEATURES, SMALL_HIDDEN, KINDS = 32, (32, 32), 3  # of the comparison with CLAX


def train_small(name: str, seed: int) -> dict[str, float]:
    """Lists per second of a small click model: two-tower, mixture, or XPA.

    CLAX's two-tower model equals `Product`: sigmoid times sigmoid, a table of
    positions, and a tower with layers of equal size. CLAX is measured without its data
    loader. Both libraries use XLA, because XLA makes towers of this size faster. The
    lower bound of the time counts only the relevance towers.
    """
    from debias.layers import BiasTower, Tower
    from debias.models import XPA, Mixture, Product

    def product(seed: int) -> Any:
        bias = BiasTower({"position": LIST_SIZE}, seed=seed)
        return Product(Tower(SMALL_HIDDEN, seed=seed), bias)

    def xpa() -> Any:
        bias = BiasTower({"position": LIST_SIZE}, out=8, seed=seed)
        return XPA(Tower(SMALL_HIDDEN, out=8, seed=seed), bias, seed=seed)

    features, item, click = sessions_of(SMALL_FEATURES, seed)
    model = {
        "product": lambda: product(seed),
        "mixture": lambda: Mixture([product(seed + kind) for kind in range(KINDS)]),
        "xpa": xpa,
    }[name]()
    ours = trained(model, features, item, click, seed, jit=True)
    components = KINDS if name == "mixture" else 1
    out = 8 if name == "xpa" else 1
    operations = operations_per_list(SMALL_FEATURES, SMALL_HIDDEN, out)
    most = matrix_rate() / (components * operations)
    if name == "xpa":
        return alone(len(item), most, ours)
    setup = {
        "components": components,
        "hidden": SMALL_HIDDEN[0],
        "layers": len(SMALL_HIDDEN),
        "batch": BATCH,
        "seed": seed,
    }
    arrays = {"features": features, "item": item, "click": click.astype("float32")}
    with peer("clax_train", setup, arrays) as clax:
        if clax is None:
            return alone(len(item), most, ours)
        return beside(len(item), most, ours, clax.seconds)


# Simulation: clicks of given lists, compared with the shortest equivalent NumPy code.

SESSIONS = 400_000


def simulate(population: str, seed: int) -> dict[str, float]:
    """Simulated sessions per second on one core, compared with plain NumPy.

    `write_rate` is the number of sessions that are simulated and written to Parquet per
    second on all cores. Written sessions include lists, propensities and truth. CLAX is
    measured if it is installed, and may use all cores.
    """
    visits, plain = visiting(population, seed, truth=False)
    most = copy_rate() / (LIST_SIZE * CELL[False])
    with clax(population, seed) as other:
        found = beside(SESSIONS, most, visits, plain, {"clax": other})
    return found | {"write_rate": write_rate(population, seed)}


def simulate_truth(population: str, seed: int) -> dict[str, float]:
    """Like `simulate`, but including examination and attraction of every cell."""
    most = copy_rate() / (LIST_SIZE * CELL[True])
    return beside(SESSIONS, most, *visiting(population, seed, truth=True))


def visiting(population: str, seed: int, truth: bool) -> tuple[Round, Round]:
    """One round of this simulator, and one of plain NumPy, on the same lists."""
    from simulators.populations import named, visit

    attraction = np.random.default_rng(seed).random((SESSIONS, LIST_SIZE), np.float32)
    crowd, plain = named(population), PLAIN[population]
    generator = np.random.Generator(np.random.SFC64(seed))
    return (
        timed(lambda: visit(crowd, attraction, generator, truth=truth)),
        timed(lambda: plain(attraction, generator)),
    )


@contextmanager
def clax(population: str, seed: int) -> Iterator[Round | None]:
    """One round of CLAX's sampler with the attractions of `simulate`.

    Raises:
        RuntimeError: The clicks of CLAX do not follow the population.
    """
    from simulators.behaviours import EYE_TRACKING
    from simulators.oracle import click_probability
    from simulators.populations import named

    setup = {"population": population, "sessions": SESSIONS, "seed": seed}
    with peer("clax_simulate", {**setup, "theta": EYE_TRACKING}) as found:
        if found is None:
            yield None
            return
        half = np.full((1, LIST_SIZE), 0.5)  # clicks are linear in attraction here
        expected = click_probability(named(population), half)[0]
        error = np.sqrt(0.25 / SESSIONS)
        if (np.abs(np.array(found.value) - expected) > 5 * error).any():
            raise RuntimeError(
                f"CLAX clicks {found.value}, expected {expected.tolist()}"
            )
        yield found.seconds


def write_rate(population: str, seed: int) -> float:
    """Simulated and written sessions per second, including start and end."""
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
# Bytes per cell that must be moved, without and with truth. Attraction is read and a
# click is written; with truth, also examination and attraction of the user's kind.
CELL = {False: 4 + 1, True: 4 + 1 + 4 + 4}


# EM: one pass over counted cells, as the fit repeats it.


def em(model: str, population: str, seed: int) -> dict[str, float]:
    """Sessions per second of an EM pass; PBM is compared with plain NumPy."""
    import simulators
    from debias.propensity.click_models.timing import prepared_pass

    sessions, data = 200_000, simulators.generate(queries=1000, seed=seed)
    shown = simulators.PlackettLuce(simulators.weak_ranker(data), temperature=0.5)
    log = simulators.simulate(data, shown, population, sessions=sessions, seed=seed)
    ours = timed(prepared_pass(log, model))
    # At least, the number of a pair and a click are read.
    most = copy_rate() / (LIST_SIZE * (4 + 1))
    if model == "pbm":
        plain = plain_position_based_pass(log.item, log.click)
        return beside(sessions, most, ours, timed(plain))
    return alone(sessions, most, ours)


def plain_position_based_pass(
    item: np.ndarray, click: np.ndarray
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """The textbook EM pass over all impressions in plain NumPy, with prior (1, 2)."""
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


# Evaluation: NDCG@10 of lists of ten, compared with plain NumPy and installed peers.

LISTS = 100_000


def evaluate(seed: int) -> dict[str, float]:
    """Lists per second of `metrics.ndcg`; each peer must return the same mean.

    scikit-learn is always measured. TensorFlow Ranking, rax and ranx are measured if
    they are installed. The scores have no ties, because the libraries treat ties
    differently.

    Raises:
        RuntimeError: A peer's mean differs from the mean of this library.
    """
    from debias.metrics import ndcg

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (LISTS, LIST_SIZE)).astype("float32")
    labels[:, 0] = 1 + labels[:, 0] % 4  # every list has an NDCG
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

    most = copy_rate() / (LIST_SIZE * (4 + 4))  # scores and labels, at least, are read
    arrays = {"labels": labels, "scores": scores}
    with ExitStack() as stack:
        found, others = {}, {}
        for name, run in ndcg_peers(labels, scores):
            found[name], others[name] = run(), timed(run)
        for name in ("rax", "ranx"):
            setup = {"library": name, "k": LIST_SIZE}
            other = stack.enter_context(peer("ndcg", setup, arrays))
            if other is not None:
                found[name], others[name] = other.value, other.seconds
        for name, value in found.items():
            if abs(value - ours()) > 1e-5:
                raise RuntimeError(f"{name} finds NDCG@10 {value}, ours is {ours()}")
        return beside(LISTS, most, timed(ours), timed(plain), others)


def ndcg_peers(
    labels: np.ndarray, scores: np.ndarray
) -> Iterator[tuple[str, Callable[[], float]]]:
    """The peers in this process, as names and functions that compute mean NDCG@10."""
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


# Reading a LETOR file and a click log; scoring items; searching for them.


ROWS, SHOWN = 10_000, 1 << 20  # rows of the LETOR file, sessions of the log


def read(what: str, seed: int) -> dict[str, float]:
    """Rows of a LETOR file, or sessions of a Parquet log, read per second.

    The peer for LETOR is scikit-learn's SVMLight reader. The peer for the log is
    pyarrow, which reads the columns into NumPy. A peer must read the same values. The
    lower bound is the time to read the returned arrays once from memory.
    """
    with TemporaryDirectory() as folder:
        return READ[what](Path(folder), seed)


def read_letor_file(folder: Path, seed: int) -> dict[str, float]:
    from sklearn.datasets import load_svmlight_file

    from debias.data import read_letor

    rng, rows, path = np.random.default_rng(seed), ROWS, folder / "train.txt"
    values = rng.random((rows, FEATURES), np.float32).round(4) + 0.0001
    lines = [
        f"{row % 5} qid:{row // 10} "
        + " ".join(f"{i}:{v:.4f}" for i, v in enumerate(each, 1))
        for row, each in enumerate(values.tolist())
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    caches = (folder / f"cache{number}" for number in range(ROUNDS + 2))

    def ours() -> np.ndarray:
        return read_letor(path, cache=next(caches)).features  # each is read only once

    def plain() -> np.ndarray:
        found, _, _ = load_svmlight_file(str(path), dtype=np.float32, query_id=True)
        return found.toarray()

    if not np.array_equal(ours(), plain()):
        raise RuntimeError("scikit-learn reads other features")
    most = copy_rate() / (4 * FEATURES)
    return beside(rows, most, timed(ours), timed(plain))


def read_log(folder: Path, seed: int) -> dict[str, float]:
    import pyarrow.parquet as pq

    from debias.data import ClickLog

    rng, sessions, path = np.random.default_rng(seed), SHOWN, folder / "log.parquet"
    item = rng.integers(0, 50_000, (sessions, LIST_SIZE), np.int32)
    click = rng.random(item.shape, np.float32) < 0.2
    ClickLog(np.zeros(sessions, np.int32), item, click).write(path)

    def plain() -> np.ndarray:
        table = pq.read_table(path)
        columns = {
            name: table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            for name in ("item", "click")
        }
        return columns["item"].reshape(sessions, -1)

    if not np.array_equal(ClickLog.open(path).item, plain()):
        raise RuntimeError("pyarrow reads other items")
    most = copy_rate() / (LIST_SIZE * (4 + 1))
    return beside(sessions, most, timed(lambda: ClickLog.open(path)), timed(plain))


READ = {"letor": read_letor_file, "log": read_log}


def score(seed: int) -> dict[str, float]:
    """Items per second of the ranker, compared with matrix products alone."""
    import tensorflow as tf

    from debias.layers import BiasTower, Tower
    from debias.models import Additive, ranker

    rng, items = np.random.default_rng(seed), 1 << 14
    features = tf.constant(rng.normal(size=(items, FEATURES)).astype("float32"))
    model = Additive(Tower(HIDDEN), BiasTower({"position": LIST_SIZE}))
    position = tf.ones((1, LIST_SIZE), tf.int32)
    model({"features": features[None, :LIST_SIZE], "position": position})
    serving = ranker(model)
    weights = [tf.constant(w) for step in model.relevance.steps for w in step.weights]

    @tf.function
    def ours() -> Any:
        return serving(features)

    @tf.function
    def plain() -> Any:
        h = features
        for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            h = tf.nn.relu(h @ kernel + bias)
        return (h @ weights[-2] + weights[-1])[:, 0]

    np.testing.assert_allclose(ours(), plain(), atol=1e-4)
    forward = sum(2 * a * b for a, b in pairwise((FEATURES, *HIDDEN, 1)))
    return beside(
        items,
        matrix_rate() / forward,
        timed(lambda: ours().numpy()),
        timed(lambda: plain().numpy()),
    )


def search(kind: str, seed: int) -> dict[str, float]:
    """Searches per second of `Index` for single users, compared with its engine alone.

    `Index` and the engine search the same graph of 100,000 vectors. `Index` also
    rescores, sorts ties and checks input. The lower bound is the time to read the
    vectors that Faiss compares in a search.

    Args:
        kind: "hnsw" for the engine Faiss, or "milvus" for embedded Milvus. With
            "milvus", Faiss alone is measured too. Milvus serves fewer users, because a
            search takes longer.
    """
    import faiss

    from benchmarks.rates.ann import QUERIES, K, clustered
    from debias.retrieval.serving.index import Index, hnsw

    vectors, users = clustered(np.random.default_rng(seed), 100_000, QUERIES)
    graph = hnsw(vectors)

    def plain() -> list[np.ndarray]:
        return [graph.index.search(user[None], K)[1][0] for user in users]

    stats: Any = faiss.cvar
    stats.hnsw_stats.reset()
    plain()
    read = 4 * stats.hnsw_stats.ndis * vectors.shape[1] / QUERIES
    others: dict[str, Round | None] = {}
    searcher, base = graph, plain
    if kind == "milvus":
        users = users[:IN_MILVUS]
        searcher, base = in_milvus(vectors, users, K)
        others["faiss"] = timed(plain)
    index = Index(vectors, searcher)

    def ours() -> list[np.ndarray]:
        return [index.search(user, K)[0] for user in users]

    same = np.mean([len(np.intersect1d(*b)) for b in zip(ours(), base(), strict=True)])
    if same < 0.99 * K:
        raise RuntimeError(f"{kind} names only {same} of our {K} rows")
    most = copy_rate() / read
    return beside(len(users), most, timed(ours), timed(base), others)


IN_MILVUS = 50  # users who search in Milvus


def in_milvus(
    vectors: np.ndarray, users: np.ndarray, k: int
) -> tuple[Any, Callable[[], list[np.ndarray]]]:
    """A searcher on embedded Milvus, and a function that only uses its client."""
    from debias.retrieval.serving.milvus import milvus

    found = milvus(vectors)
    how = {"metric_type": "IP", "params": {"ef": found.effort}}

    def plain() -> list[np.ndarray]:
        answers = (
            found.client.search(
                found.collection, data=[user], limit=k, search_params=how
            )
            for user in users
        )
        return [np.array([hit["id"] for hit in answer[0]]) for answer in answers]

    return found, plain


ONE_CORE = "one-core"
FEW = "200-queries"


Case = Callable[[int], dict[str, float]]


def on_one_core(case: Case, seed: int) -> dict[str, float]:
    """Measures a case and its lower bound in a process on a single core."""
    with ProcessPoolExecutor(1, get_context("spawn"), _hold_to_one_core) as pool:
        return pool.submit(case, seed).result()


def _hold_to_one_core() -> None:
    leave_with_parent()
    if not hasattr(os, "sched_setaffinity"):
        raise OSError("a process can be held to one core on Linux only")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@dataclass(frozen=True)
class Speed:
    """One case of the table `speed`; `population` is its variant."""

    row: str
    population: str
    peer: str
    rounds: int = ROUNDS

    def settings(self) -> dict[str, Any]:
        return {"peer": self.peer, "rounds": self.rounds}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        if self.population == ONE_CORE:
            learn: Case = partial(train, rounds=self.rounds)
            return on_one_core(learn if self.row == "train" else score, seed)
        if self.row == "simulate":
            return simulate(self.population, seed)
        if self.row == "simulate_truth":
            return simulate_truth(self.population, seed)
        if self.row == "read":
            return read(self.population, seed)
        if self.row == "train":
            if self.population == "additive":
                return train(seed, self.rounds)
            if self.population == FEW:
                return train(seed, self.rounds, queries=200)
            return train_small(self.population, seed)
        if self.row.startswith("train_"):
            return train_kinds(self.row.removeprefix("train_"), seed, self.rounds)
        if self.row == "evaluate":
            return evaluate(seed)
        if self.row == "score":
            return score(seed)
        if self.row == "search":
            return search(self.population, seed)
        return em(self.row.removeprefix("em_"), self.population, seed)


CASES = (
    Speed("train", "additive", "hand-written tf.function loop", MANY_ROUNDS),
    Speed("train", FEW, "hand-written tf.function loop", MANY_ROUNDS),
    Speed("train", "product", "CLAX two-tower"),
    Speed("train", "mixture", "CLAX mixture"),
    Speed("train", "xpa", "none"),
    Speed("train", ONE_CORE, "hand-written tf.function loop", MANY_ROUNDS),
    Speed("train_number", "features", "the same without Features", MANY_ROUNDS),
    Speed("train_category", "features", "136 numbers, no Features", MANY_ROUNDS),
    Speed("score", "additive", "bare products in TensorFlow"),
    Speed("score", ONE_CORE, "bare products in TensorFlow"),
    Speed("read", "letor", "scikit-learn"),
    Speed("read", "log", "pyarrow"),
    Speed("simulate", "pbm", "plain NumPy float32"),
    Speed("simulate", "mixed", "plain NumPy float32"),
    Speed("simulate_truth", "mixed", "plain NumPy float32"),
    Speed("evaluate", "ndcg@10", "plain NumPy"),
    Speed("em_pbm", "pbm", "plain NumPy float64"),
    Speed("em_ubm", "pbm", "none"),
    Speed("em_dbn", "pbm", "none"),
    Speed("em_ccm", "pbm", "none"),
    Speed("search", "hnsw", "Faiss"),
    Speed("search", "milvus", "pymilvus"),
)
