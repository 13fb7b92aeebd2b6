"""Mean NDCG@k by rax or ranx; `setup` has "library" and "k".

Everything that does not depend on scores is prepared before the timing: arrays on the
device for rax, and relevance tables for ranx.
"""

from collections.abc import Callable
from typing import Any


def prepare(
    setup: dict[str, Any], arrays: dict[str, Any]
) -> tuple[Callable[[], float], Callable[[float], float]]:
    make = {"rax": by_rax, "ranx": by_ranx}[setup["library"]]
    return make(arrays["labels"], arrays["scores"], setup["k"]), float


def by_rax(labels: Any, scores: Any, k: int) -> Callable[[], float]:
    import jax
    import rax

    each = jax.jit(lambda s, y: rax.ndcg_metric(s, y, topn=k))
    s, y = jax.numpy.array(scores), jax.numpy.array(labels)
    return lambda: float(each(s, y))


def by_ranx(labels: Any, scores: Any, k: int) -> Callable[[], float]:
    import ranx

    names = [f"{i}" for i in range(labels.shape[1])]

    def table(rows: Any) -> dict[str, dict[str, Any]]:
        return {
            f"{q}": dict(zip(names, row, strict=True))
            for q, row in enumerate(rows.tolist())
        }

    truth, run = ranx.Qrels(table(labels.astype(int))), ranx.Run(table(scores))
    return lambda: float(ranx.evaluate(truth, run, f"ndcg_burges@{k}"))
