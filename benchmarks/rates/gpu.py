"""Training speed on a GPU: `fit`, Keras's loop, and hand-written loops.

    python -m benchmarks.rates.gpu            # all models, on the default device
    python -m benchmarks.rates.gpu product --sessions 5120

Each model learns from the same sessions in six ways, which take turns. There are three
loops, each with and without XLA: the compiled loop of `debias.engine.steps`, Keras's
own train function on a pipeline, and a loop written by hand for this model. The command
prints sessions per second (events for `dssm`), and whether the compiled loop is faster
on this device. `debias.models.batches` does not use the compiled loop on a GPU. On a
machine without a GPU, the command measures the CPU and says so.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.rates.speed import LIST_SIZE, Round, alternating, sessions_of, timed

FEATURES, HIDDEN, KINDS, OUT = 136, (256, 128, 64), 3, 8
BATCH, SESSIONS, ROUNDS, STEPS = 512, 51_200, 5, 50
IDS, EVENTS, DIM = 50_000, 1024, 32
LOOPS, COMPILED = ("loop", "keras", "by_hand"), ("", "_xla")
MODELS = ("product", "mixture", "xpa", "dssm")


def click_model(name: str, seed: int = 0) -> Any:
    """An untrained click model with the sizes of this comparison."""
    from debias.layers import BiasTower, Tower
    from debias.models import XPA, Mixture, Product

    def product(seed: int) -> Any:
        bias = BiasTower({"position": LIST_SIZE}, seed=seed)
        return Product(Tower(HIDDEN, seed=seed), bias)

    if name == "product":
        return product(seed)
    if name == "mixture":
        return Mixture([product(seed + kind) for kind in range(KINDS)])
    bias = BiasTower({"position": LIST_SIZE}, out=OUT, seed=seed)
    return XPA(Tower(HIDDEN, out=OUT, seed=seed), bias, seed=seed)


def of_clicks(name: str, sessions: int, seed: int) -> dict[str, Round]:
    """One round of each loop, for a click model; `loop` and `keras` share the model."""
    import keras
    import tensorflow as tf

    from benchmarks.rates import hand_written
    from debias.data import ClickLog, RankingData
    from debias.models.batches import epoch_of, log_batches

    features, item, click = sessions_of(FEATURES, seed)
    item, click = item[:sessions], click[:sessions]
    data = RankingData(features, None, np.array([0, len(features)]))
    log = ClickLog(np.zeros(len(item), np.int32), item, click)
    table, loss = tf.constant(features), getattr(hand_written, f"{name}_loss")
    found = {}
    for xla in COMPILED:
        model = click_model(name, seed)
        feed = log_batches(epoch_of(log, data, BATCH), seed=seed)
        model(next(iter(feed))[0])
        start = [w.numpy() for w in model.trainable_weights]
        model.compile(
            keras.optimizers.Adam(),
            jit_compile=bool(xla),
            steps_per_execution=min(STEPS, sessions // BATCH),
        )
        found[f"loop{xla}"] = epoch(model, feed)
        found[f"keras{xla}"] = epoch(model, feed.pipeline)
        found[f"by_hand{xla}"] = timed(
            hand_written.by_adam(
                lambda weights, shown, y: loss(weights, tf.gather(table, shown), y),
                start,
                (item, click.astype("float32")),
                BATCH,
                bool(xla),
            )
        )
    return found


def of_events(sessions: int, seed: int) -> dict[str, Round]:
    """One round of each loop, for a DSSM on ids and in-batch softmax without logQ."""
    import keras

    from benchmarks.rates.hand_written import by_adam, two_tower_loss
    from debias import retrieval
    from debias.retrieval.data.interactions import FeatureTable, Interactions
    from debias.retrieval.losses import RetrievalLoss

    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, IDS, (2, sessions))
    table = FeatureTable.build({"id": np.arange(IDS)})
    time = np.arange(sessions)
    log = Interactions(user, item, time, table, table)
    found = {}
    for xla in COMPILED:
        model = retrieval.dssm(
            log.users.schema, log.items.schema, DIM, history=None, seed=seed
        )
        model.build(None)
        start = [w.numpy() for w in model.trainable_weights]
        model.compile(
            keras.optimizers.Adam(),
            RetrievalLoss(),
            jit_compile=bool(xla),
            steps_per_execution=min(STEPS, sessions // EVENTS),
        )
        feed = retrieval.Batches(
            log, EVENTS, history=0, exclude_known=False, log_q=False, seed=seed
        )
        found[f"loop{xla}"] = epoch(model, feed)
        found[f"keras{xla}"] = epoch(model, feed.dataset())
        columns = (log.user + 2, log.item + 2)
        found[f"by_hand{xla}"] = timed(
            by_adam(two_tower_loss, start, columns, EVENTS, bool(xla))
        )
    return found


def epoch(model: Any, feed: Any) -> Round:
    return timed(lambda: model.fit(feed, shuffle=False, verbose=0))


def measure(name: str, sessions: int, rounds: int, seed: int = 0) -> dict[str, float]:
    """Sessions per second of each loop, from the median round."""
    ways = (
        of_events(sessions, seed) if name == "dssm" else of_clicks(name, sessions, seed)
    )
    spent = alternating(*ways.values(), times=rounds)
    return {way: sessions / each for way, each in zip(ways, spent, strict=True)}


def verdict(found: dict[str, float]) -> str:
    """Compares the compiled loop with Keras's loop, each at its better XLA setting.

    >>> rates = {"loop": 90.0, "loop_xla": 120.0, "keras": 100.0, "keras_xla": 80.0}
    >>> verdict({**rates, "by_hand": 240.0, "by_hand_xla": 60.0})
    'the compiled loop pays: 1.20 of the rate of Keras, .50 of that of a loop by hand'
    """
    best = {way: max(found[way + xla] for xla in COMPILED) for way in LOOPS}
    gain, share = (best["loop"] / best[other] for other in ("keras", "by_hand"))
    pays = "pays" if gain > 1 else "does not pay"
    return (
        f"the compiled loop {pays}: {gain:.2f} of the rate of Keras, "
        f"{share:.2f} of that of a loop by hand"
    ).replace(" 0.", " .")


def main(
    arguments: list[str] | None = None, say: Callable[[str], None] = print
) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates.gpu")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=" ".join(MODELS))
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args(arguments)
    unknown = set(given.models) - set(MODELS)
    if unknown:
        parser.error(f"MODEL must be one of {', '.join(MODELS)}, got {sorted(unknown)}")
    least = max(BATCH, EVENTS)
    if given.sessions < least or given.sessions % least:
        parser.error(f"--sessions must be a multiple of {least:,}")
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    of = [tf.config.experimental.get_device_details(d)["device_name"] for d in devices]
    say(f"Device: {', '.join(of) or 'the CPU, no GPU was found'}")
    for name in given.models or MODELS:
        found = measure(name, given.sessions, given.rounds)
        rates = {way: round(rate) for way, rate in found.items()}
        say(json.dumps({"model": name, "rates": rates}))
        say(f"{name}: {verdict(found)}")


if __name__ == "__main__":
    main()
