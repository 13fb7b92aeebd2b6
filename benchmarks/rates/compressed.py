"""Tables of ids that share rows: the cost of a step, and the accuracy that is left.

    python -m benchmarks.rates.compressed cost 1e7      # of so many ids, each way
    python -m benchmarks.rates.compressed cost 1e8 hash
    python -m benchmarks.rates.compressed accuracy      # MovieLens-100K

`cost` trains the embeddings of users and items of an in-batch softmax on ids drawn at
random, each way in a process of its own, and says the milliseconds of a step and the
most memory held. `accuracy` trains a DSSM with all rows and with a fourth and a
sixteenth of them, and ranks the last event of each user.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Any

WAYS: tuple[str | None, ...] = (None, "hash", "quotient_remainder")
DIM, BATCH, STEPS, SHARED = 32, 1024, 100, 16


def cost(ids: int, compress: str | None, steps: int = STEPS) -> dict[str, float]:
    """Milliseconds of a step, and gigabytes at most, of this process.

    Args:
        ids: Of items; there are a tenth as many users, with a row each.
        compress: A way of `debias.layers.embedding.COMPRESS`, to a row for `SHARED`
            items; None: a row an item.
        steps: Timed ones, after three.
    """
    import keras
    import numpy as np

    from debias.layers.embedding import RowEmbedding
    from debias.retrieval.models import TwoTower

    class Side(keras.layers.Layer):
        def __init__(self, table: RowEmbedding):
            super().__init__()
            self.table, self.built = table, True

        def call(self, features: Any, training: bool = False) -> Any:
            return self.table(features["id"])

    rows = None if compress is None else max(1, ids // SHARED)
    item = RowEmbedding(2 + ids, DIM, seed=1, compress=compress, rows=rows)
    user = RowEmbedding(2 + max(1, ids // 10), DIM, seed=0)
    model = TwoTower(Side(user), Side(item))
    model.compile()
    rng = np.random.default_rng(0)

    def step() -> None:
        batch = {
            "user": {"id": rng.integers(2, user.size, BATCH)},
            "item": {"id": rng.integers(2, item.size, BATCH)},
            "positive": np.arange(BATCH),
        }
        model.train_on_batch(batch, np.arange(BATCH))

    for _ in range(3):
        step()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    taken = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # KB on Linux
    return {"step_ms": 1e3 * taken / steps, "peak_gb": peak}


def accuracy(epochs: int = 3) -> list[dict[str, Any]]:
    """HR@50 and NDCG@50 of held-out events by the way and the rows of ids."""
    from debias import retrieval
    from debias.retrieval.data.datasets import movielens_100k
    from debias.retrieval.data.interactions import leave_last_out

    log, found = movielens_100k(), []
    train, held_out = leave_last_out(log)
    sizes = [log.users.schema["id"]["size"], log.items.schema["id"]["size"]]
    for compress in WAYS:
        for share in (4, 16) if compress else (1,):
            options: dict[str, Any] = {}
            if compress is not None:
                options = {"compress": compress, "rows": max(sizes) // share}
            model = retrieval.dssm(
                train.users.schema,
                train.items.schema,
                dim=32,
                length=20,
                seed=0,
                **options,
            )
            model.compile()
            batches = retrieval.Batches(train, history=20, packed=True, seed=0)
            model.fit(batches, epochs=epochs, verbose=0)
            metrics = retrieval.evaluate(model, train, held_out)
            held = sum(
                w.size for w in model.weights if len(w.shape) == 2 and w.shape[0] > 99
            )
            found.append(
                {
                    "compress": compress or "none",
                    "share": share,
                    "floats": held,
                    **metrics,
                }
            )
            print(json.dumps(found[-1]), flush=True)
    return found


if __name__ == "__main__":
    if sys.argv[1] == "accuracy":
        accuracy()
    elif len(sys.argv) == 4:
        way = None if sys.argv[3] == "none" else sys.argv[3]
        print(json.dumps({"way": sys.argv[3], **cost(int(float(sys.argv[2])), way)}))
    else:
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.rates.compressed"]
            subprocess.run([*command, "cost", sys.argv[2], way or "none"], check=False)
